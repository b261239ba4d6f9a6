"""The checkpoints that a target is made of: opened, and checked before anything is planned.

Importing this module imports neither torch nor litGPT.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import MODEL_CONFIG
from inheritune_lit.checkpoint.hub import Headers, model_name, snapshot_of
from inheritune_lit.checkpoint.layers import slice_config
from inheritune_lit.checkpoint.opening import open_weights
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.surgery.starts import RULES, Start

if TYPE_CHECKING:
    from litgpt.config import Config


@dataclass(frozen=True)
class Parent:
    """A checkpoint folder that gives tensors."""

    folder: Path
    config: "Config"
    weights: Weights

    @classmethod
    def open(cls, folder: Path, headers: Headers | None = None) -> "Parent":
        """Opens a checkpoint folder and checks names and shapes; reads no weights.

        Args:
            folder: litGPT's or Hugging Face's.
            headers: Of the hub's shards, which are not there as yet.

        Raises:
            InheritError: what open_weights raises.
        """
        return cls(folder, *open_weights(folder, headers))

    @property
    def entry(self) -> dict[str, Any]:
        """The receipt's."""
        known = snapshot_of(self.folder)
        return {
            "name": model_name(self.folder.resolve()),
            "n_layer": self.config.n_layer,
            "fingerprint": self.weights.fingerprint(),
            **(dict(zip(("repository", "commit"), known, strict=True)) if known else {}),
        }

    @property
    def tied(self) -> bool:
        """Token embedding and head are one tensor."""
        wte, head = "transformer.wte.weight", "lm_head.weight"
        return head not in self.weights or self.weights.identity(wte) == self.weights.identity(head)


def check_request(source_dir: Path, start: Start, seed: int, target_dir: Path | None) -> None:
    """The folders are checkpoints' and not runs', the seed is one, and a trained target is there if it is to grow.

    Raises:
        InheritError: one of them is not so.
    """
    if not source_dir.is_dir():
        raise InheritError(
            f"SOURCE_DIR {source_dir} is not a folder. If it is a model of the Hugging Face hub, ORG/NAME or "
            "ORG/NAME@REVISION, --fetch fetches its config.json, its tokenizer and the safetensors files that hold "
            "what is kept, all of one commit, into huggingface_hub's cache."
        )
    for folder in (source_dir, target_dir):
        if folder and not (folder / MODEL_CONFIG).is_file() and (folder / "model" / MODEL_CONFIG).is_file():
            raise InheritError(f"{folder} is a run's folder; its checkpoint is {folder / 'model'}. Name that.")
    if not 0 <= seed < 2**32:
        raise InheritError(f"--seed {seed}: expected 0 to {2**32 - 1}, as `litgpt pretrain --seed` takes it.")
    if RULES[start].grows != (target_dir is not None):
        raise InheritError(
            "--start grow needs --target_dir, the trained target that grows, and no other start takes one: "
            f"got --start {start} with --target_dir {target_dir}."
        )


def check_growth(source: "Config", target: "Config") -> None:
    """A trained target can take the next blocks of the source: everything but the depth is the same.

    Raises:
        InheritError: naming what differs.
    """
    expected = _computed(slice_config(source, range(min(target.n_layer, source.n_layer))))
    found = _computed(target)
    differences = [
        f"{key} {found.get(key)!r}, expected {expected.get(key)!r}"
        for key in {**expected, **found}
        if key != "n_layer" and found.get(key) != expected.get(key)
    ]
    if differences:
        raise InheritError(
            f"--target_dir is another architecture than the first {target.n_layer} blocks of the source: "
            f"{'; '.join(differences)}. Grow a target that was made from this source."
        )


def _computed(config: "Config") -> dict[str, Any]:
    """What of a Config decides the model: not its names, and of hf_config only a GPT-2's options."""
    settings = {key: value for key, value in asdict(config).items() if key not in ("name", "padding_multiple")}
    options = settings.pop("hf_config")
    return settings | (options | {"layer_idx": gpt2.layer_indices(config)} if gpt2.is_gpt2(config) else {})
