"""A `litgpt pretrain` recipe: what it states, litGPT's defaults for what it leaves out, and what follows from both.

All arithmetic of a recipe stands here: batch, steps, tokens. A number that is none, or that litGPT could not count
with, is None here; `inheritune recipes validate` says so. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.yaml_document import Document, read_document
from inheritune_lit.checkpoint.folder import checkpoint_folder
from inheritune_lit.recipes.litgpt_settings import PACKED, config_class, pretrain_settings

if TYPE_CHECKING:
    from litgpt.config import Config

TEACHER = "data.init_args.teacher_dir"
MOST = 2**62  # above that, litGPT's own arithmetic and torch's sizes overflow
# Dotted key → the least and the most that litGPT, whose parser takes any number, can divide by, loop on or count with
RANGES = {
    **dict.fromkeys(("devices", "num_nodes", "data.init_args.epochs"), (1, 2**31)),
    **dict.fromkeys(("train.global_batch_size", "train.micro_batch_size", "train.max_seq_length"), (1, MOST)),
    **dict.fromkeys(("train.max_tokens", "train.save_interval", "train.log_interval"), (1, MOST)),
    **dict.fromkeys(("eval.interval", "eval.max_iters"), (1, MOST)),
    **dict.fromkeys(("train.lr_warmup_steps", "train.min_lr", "train.max_norm"), (0, MOST)),
    **dict.fromkeys(("optimizer.init_args.lr", "optimizer.init_args.weight_decay"), (0, MOST)),
    **dict.fromkeys(("seed", "data.init_args.seed"), (0, 2**32 - 1)),
    "data.init_args.num_workers": (0, 2**10),
    "data.init_args.weight": (0, 1),
    "data.init_args.temperature": (0.01, 100),
    "model_config.n_layer": (1, 2**16),
    **{f"model_config.{key}": (1, MOST) for key in ("n_embd", "n_head", "block_size", "padded_vocab_size")},
    **{f"model_config.{key}": (1, MOST) for key in ("n_query_groups", "head_size", "intermediate_size")},
}


def in_range(key: str, value: Any) -> bool:
    """Whether it is a number that can be counted with."""
    low, high = RANGES[key]
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


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
    def config(self) -> "Config":
        """litGPT's Config of the model. What model_config holds that it does not know is a finding of its own.

        Raises:
            InheritError: litGPT can't make one of what is stated.
        """
        Config, model = config_class(), self.document.get("model_config")
        if isinstance(model, Mapping) and not in_range("model_config.n_layer", model.get("n_layer", 1)):
            raise InheritError("model_config.n_layer is no number of blocks.")  # Config would make lists of so many
        try:
            if isinstance(model, Mapping):
                return Config(**{field.name: model[field.name] for field in fields(Config) if field.name in model})
            return Config.from_name(str(self.document.get("model_name")))
        except Exception as error:  # litGPT checks with asserts and lets the constructor's errors through
            raise InheritError(f"litGPT can't make a model of it: {error}.") from error

    @property
    def is_gpt2(self) -> bool:
        """Whether it says that its model is a GPT-2."""
        return bool(self.document.get("model_config.hf_config.model_type") == "gpt2")

    @cached_property
    def block_size(self) -> int | None:
        """Tokens that the model can attend to."""
        if (value := self.document.get("model_config.block_size")) is None:
            try:
                value = self.config.block_size
            except InheritError:
                return None
        return int(value) if in_range("model_config.block_size", value) else None

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
