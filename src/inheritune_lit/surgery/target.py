"""The target: a plan of what surgery writes, made from the names, shapes and Configs of the checkpoints it is made of.

Importing this module imports neither torch nor litGPT.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.base.units import gib
from inheritune_lit.checkpoint.copy import InMemory, TensorCopy, distinct
from inheritune_lit.checkpoint.folder import (
    HF_CONFIG,
    expected_shapes,
    load_config,
    refuse_code,
)
from inheritune_lit.checkpoint.hub import Headers, model_name
from inheritune_lit.checkpoint.hugging_face import as_hf_config, check_describes
from inheritune_lit.checkpoint.layers import slice_hf_config
from inheritune_lit.checkpoint.receipt import inputs_of
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.surgery.half_width import halved_hf_config, halved_origins
from inheritune_lit.surgery.origins import Origin, summary
from inheritune_lit.surgery.parents import Parent, check_growth, check_request
from inheritune_lit.surgery.plain_llama import is_plain_llama
from inheritune_lit.surgery.starts import (
    RULES,
    Head,
    Start,
    choose_blocks,
    origins,
    random_state,
    start_config,
)

if TYPE_CHECKING:
    from litgpt.config import Config

RANDOM = "litGPT's initialisation"


@dataclass(frozen=True)
class Plan:
    """What surgery will write, known from names and shapes alone."""

    start: Start
    source_dir: Path
    source_config: "Config"
    parents: dict[str, Parent]
    """Who gives tensors, by their key in the receipt: `source`, and `target`, which grows"""
    blocks: list[int]
    """For each block of the target, the source's block that it comes from, or would if it were not random"""
    config: "Config"
    hf_config: dict[str, Any] | None
    """The target's config.json, if the source has one"""
    origins: dict[str, Origin]
    copies: dict[str, TensorCopy]
    """Target tensor name → what is written; random tensors are on the meta device as yet"""
    seed: int | None
    """Of the random tensors, if there are any"""
    dtype: str | None
    """What was asked for"""
    head: Head | None
    """What was asked for, if a trained target grows"""

    def receipt(self) -> dict[str, Any]:
        """What the receipt says but for the files."""
        entries = {key: parent.entry for key, parent in self.parents.items()}
        name, n_layer = model_name(self.source_dir.resolve()), self.source_config.n_layer
        return {
            "source": {"name": name, "n_layer": n_layer, "fingerprint": None},  # of a random start: it takes no tensor
            **entries,
            **self.settings(),
            "origins": summary(self.origins),
            "parameters": self.parameters(),
        }

    def settings(self) -> dict[str, Any]:
        """What of the receipt decides about what is written."""
        weights = {key: parent.weights.fingerprint() for key, parent in self.parents.items()}
        inputs = {**weights, "source": inputs_of(self.source_dir, weights.get("source"))}
        names = ("start", "blocks", "dtype", "seed", "head")
        return {**{name: getattr(self, name) for name in names}, "inputs": inputs}

    @property
    def bytes(self) -> int:
        return sum(self.copies[name].numel * self.copies[name].dtype.itemsize for name in distinct(self.copies))

    def parameters(self, *, embeddings: bool = True) -> int:
        """Number of parameters; without embeddings, those of tokens and positions and the head are left out."""
        return sum(
            self.copies[name].numel
            for name in distinct(self.copies)
            if embeddings or not name.startswith(("transformer.wte.", "transformer.wpe.", "lm_head."))
        )

    def drawn(self) -> dict[str, TensorCopy]:
        """The copies, with random tensors drawn: all of litGPT's initialisation is in memory then, in float32."""
        if self.seed is None:
            return self.copies
        random = InMemory(random_state(self.config, self.seed), RANDOM)
        return {
            name: replace(copy, weights=random) if self.origins[name].giver == "random" else copy
            for name, copy in self.copies.items()
        }

    def __str__(self) -> str:
        dtypes = sorted({str(copy.dtype).removeprefix("torch.") for copy in self.copies.values()})
        givers = Counter(origin.giver for origin in self.origins.values())
        parents = {key: f"{parent.folder} ({parent.config.n_layer} blocks)" for key, parent in self.parents.items()}
        rows = {
            "start": f"{self.start}{'' if self.seed is None else f', seed {self.seed}'}: {RULES[self.start].note}",
            "source": f"{self.source_dir} ({self.source_config.name}, {self.source_config.n_layer} blocks)",
            **{key: text for key, text in parents.items() if key != "source"},
            "blocks": f"{len(self.blocks)}: {', '.join(map(str, self.blocks))}",
            "parameters": f"{self.parameters():,} ({self.parameters(embeddings=False):,} without embeddings and head)",
            "tensors": f"{', '.join(f'{count} {giver}' for giver, count in givers.items())}; {', '.join(dtypes)}",
            "bytes": f"{self.bytes:,} ({gib(self.bytes)})",
        }
        return "\n".join(f"{key:<11} {value}" for key, value in rows.items())


def make_plan(
    source_dir: Path,
    layers: str | None,
    dtype: str | None,
    *,
    start: Start = "inherit",
    seed: int = 42,
    target_dir: Path | None = None,
    head: Head = "target",
    headers: Headers | None = None,
) -> Plan:
    """Opens the source and decides where each tensor of the target comes from; reads no weights.

    Raises:
        InheritError: the source is not a whole checkpoint, its config.json could make transformers run code, or
            `layers` or the start does not fit it.
    """
    rule = RULES[start]
    check_request(source_dir, start, seed, target_dir)
    refuse_code(source_dir)  # its config.json becomes the target's
    config = load_config(source_dir)
    parents = {} if rule.inherits == () else {"source": Parent.open(source_dir, headers)}
    if target_dir is not None:
        parents["target"] = Parent.open(target_dir)
        check_growth(config, parents["target"].config)
    trained = parents["target"].config.n_layer if "target" in parents else 0
    blocks = choose_blocks(start, layers, config.n_layer, trained=trained)
    target_config = start_config(start, config, blocks)
    shapes = expected_shapes(target_config)
    names = parents["source"].weights if parents else expected_shapes(config)
    tied = bool(parents) and parents["source"].tied
    given = origins(start, names, blocks, trained=trained, head=head, tied=tied)
    if rule.halves:
        given = halved_origins(given, shapes, target_config)
    copies = _copies(given, parents, shapes, dtype)
    assert {name: copy.shape for name, copy in copies.items()} == shapes, "the target is not the model of its Config"
    copies = {name: copies[name] for name in shapes}  # the same bytes, in whatever order the source has them
    is_random = any(origin.giver == "random" for origin in given.values())
    return Plan(
        start=start,
        source_dir=source_dir,
        source_config=config,
        parents=parents,
        blocks=blocks,
        config=target_config,
        hf_config=_hf_config(source_dir, config, target_config, blocks, halves=rule.halves),
        origins=given,
        copies=copies,
        seed=seed if is_random else None,
        dtype=dtype,
        head=head if rule.grows else None,
    )


def _hf_config(
    source_dir: Path, config: "Config", target: "Config", blocks: list[int], *, halves: bool
) -> dict[str, Any] | None:
    """The target's config.json, which is the model that is trained: export would find out only after the training."""
    path = source_dir / HF_CONFIG
    if not path.is_file():
        return None
    hf_config = slice_hf_config(read_json(path, "Hugging Face config"), config, blocks)
    hf_config = halved_hf_config(hf_config) if halves else hf_config
    if is_plain_llama(hf_config, target):
        return hf_config
    try:
        check_describes(as_hf_config(hf_config, target, path), target, source_dir)
    except InheritError as error:
        raise InheritError(
            f"The target could not be exported to Hugging Face: {error} Mend {path}, or remove it to go without."
        ) from error
    return hf_config


def _copies(
    given: Mapping[str, Origin],
    parents: Mapping[str, Parent],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str | None,
) -> dict[str, TensorCopy]:
    """Target tensor name → where it is read and what it becomes."""
    import torch

    fresh = {name: torch.empty(shape, device="meta", dtype=torch.float32) for name, shape in shapes.items()}
    givers: dict[str, Weights | InMemory] = {key: parent.weights for key, parent in parents.items()}
    givers["random"] = InMemory(fresh, RANDOM)
    copies = {
        name: TensorCopy(givers[origin.giver], origin.name, givers[origin.giver].layout(origin.name).dtype, origin.cut)
        for name, origin in given.items()
    }
    floating = [copy.dtype for copy in copies.values() if copy.dtype.is_floating_point]
    common = None if dtype is None else getattr(torch, dtype)
    if common is None and len({origin.giver for origin in given.values()}) > 1:
        common = reduce(torch.promote_types, floating)  # the widest rounds nothing, and a model computes in one
    if common is None:
        return copies
    return {
        name: replace(copy, dtype=common) if copy.dtype.is_floating_point else copy for name, copy in copies.items()
    }
