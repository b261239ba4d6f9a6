"""A `litgpt pretrain` recipe: what it states, litGPT's defaults for what it leaves out, and what follows from both.

All arithmetic of a recipe stands here: batch, steps, tokens. A number that is none, or that litGPT could not count
with, is None here; `inheritune recipes validate` says so. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.yaml_document import Document, read_document
from inheritune_lit.checkpoint.folder import checkpoint_folder
from inheritune_lit.recipes.check.numbers import in_range
from inheritune_lit.recipes.litgpt_settings import PACKED, config_class, pretrain_settings

TEACHER = "data.init_args.teacher_dir"


@cache
def train_defaults() -> dict[str, Any]:
    """What litGPT takes for a setting that the recipe's train block leaves out."""
    return asdict(pretrain_settings()["train"].default)


@dataclass(frozen=True)
class Recipe:
    """A recipe's numbers, as litGPT will have them."""

    document: Document

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """The recipe in a file; nothing in it is interpreted but what is asked for.

        Raises:
            InheritError: the file is no mapping of settings.
        """
        return cls(read_document(path))

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Recipe":
        """The recipe of settings that were read before."""
        return cls(Document(dict(settings)))

    def number(self, key: str) -> Any:
        """A setting of the train block, the recipe's, or litGPT's where that says nothing; None if out of range."""
        train = self.document.content.get("train")
        stated = train if isinstance(train, Mapping) else {}
        value = stated[key] if key in stated else train_defaults().get(key)
        return value if in_range(f"train.{key}", value) else None

    def count(self, key: str) -> int | None:
        """`number`, of what is counted."""
        value = self.number(key)
        return int(value) if value is not None else None

    @cached_property
    def block_size(self) -> int | None:
        """Tokens that the model can attend to."""
        Config = config_class()
        model = self.document.get("model_config")
        if isinstance(model, Mapping):
            value = model.get("block_size", Config.block_size)
            return int(value) if in_range("model_config.block_size", value) else None
        try:
            return int(Config.from_name(str(self.document.get("model_name"))).block_size)
        except ValueError:
            return None

    @property
    def sequence(self) -> int | None:
        """Tokens of a window."""
        return self.count("max_seq_length") or self.block_size

    @property
    def global_batch(self) -> int | None:
        """Windows of an optimizer step."""
        return self.count("global_batch_size")

    @property
    def micro_batch(self) -> int | None:
        """Windows that a device takes at a time."""
        return self.count("micro_batch_size")

    @property
    def step_tokens(self) -> int | None:
        """Tokens of an optimizer step."""
        return self.global_batch * self.sequence if self.global_batch and self.sequence else None

    @property
    def tokens(self) -> int | None:
        """Tokens trained on in all."""
        return self.count("max_tokens")

    @property
    def steps(self) -> int | None:
        """Optimizer steps: litGPT leaves out the last one that would not be whole."""
        return self.tokens // self.step_tokens if self.tokens and self.step_tokens else None

    @property
    def data(self) -> Mapping[str, Any]:
        """The data module's settings."""
        settings = self.document.get("data.init_args")
        return settings if isinstance(settings, Mapping) else {}

    @property
    def teacher(self) -> Path | None:
        """The folder of the model that training learns from besides its data; None without one, or with weight 0."""
        is_taught = PACKED.get(str(self.document.get("data.class_path"))) == "DistilledTokens"
        folder = self.data.get("teacher_dir") if is_taught and self.data.get("weight") else None
        return checkpoint_folder(folder) if folder else None

    @property
    def checkpoints(self) -> dict[str, Path]:
        """The folders that the training reads weights from, by the keys that name them."""
        initial = self.document.get("initial_checkpoint_dir")
        found = {"initial_checkpoint_dir": checkpoint_folder(initial) if initial else None, TEACHER: self.teacher}
        return {key: folder for key, folder in found.items() if folder}

    def machines(self, devices: int | None, nodes: int | None) -> tuple[int | None, int]:
        """GPUs of a node, None where litGPT takes all that it finds, and nodes: those given, or the recipe's."""
        stated = (self.document.get("devices"), self.document.get("num_nodes"))
        counts = [v if in_range(key, v) else None for key, v in zip(("devices", "num_nodes"), stated, strict=True)]
        return devices or counts[0], nodes or counts[1] or 1

    def accumulation(self, gpus: int) -> int:
        """Micro-batches that each of so many GPUs takes an optimizer step.

        Raises:
            InheritError: a batch is no number, or litGPT would train on a smaller one in silence.
        """
        batch, micro = self.global_batch, self.micro_batch
        if not batch or not micro:
            train = self.document.content.get("train")
            raise InheritError(
                f"train.global_batch_size and train.micro_batch_size of {train!r}: expected whole numbers from 1 on."
            )
        if batch % (gpus * micro):
            raise InheritError(
                f"train.global_batch_size {batch} does not make whole micro-batches of {micro} on {gpus} GPUs "
                f"({batch / gpus:g} sequences each): litGPT would train on a smaller batch in silence. Choose the "
                "GPUs, or train.micro_batch_size, so that global_batch_size / GPUs is a multiple of micro_batch_size."
            )
        return batch // (gpus * micro)
