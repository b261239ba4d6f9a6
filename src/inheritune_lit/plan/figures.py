"""The figures of a plan. What a recipe says itself is its Recipe's; here is what follows for models and machines."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from inheritune_lit.checkpoint.folder import MODEL_CONFIG, is_hugging_face, load_config
from inheritune_lit.data.manifest import MANIFEST, Manifest
from inheritune_lit.plan.machines import MFU_HIGH, MFU_LOW, Gpu
from inheritune_lit.plan.memory import OPTIMIZER_STATES, Memory, Run, largest_micro_batch, peak
from inheritune_lit.plan.model import Parameters, count_parameters, measured_flops, saved_for_backward
from inheritune_lit.recipes.recipe import Recipe


@dataclass(frozen=True)
class Teacher:
    """The model that a training learns from; without one, or where it is not here, its size and cost are 0."""

    folder: Path | None
    weight: float | None
    parameters: int = 0
    flops_per_token: float = 0.0


def teacher_of(recipe: Recipe) -> Teacher:
    """A recipe's teacher."""
    folder, weight = recipe.teacher, recipe.data.get("weight")
    if folder is None or not ((folder / MODEL_CONFIG).is_file() or is_hugging_face(folder)):
        return Teacher(folder, weight)
    config, sequence = load_config(folder), recipe.sequence or 1
    flops = measured_flops(config, sequence, backward=False) / sequence
    return Teacher(folder, weight, count_parameters(config).total, flops)


@dataclass(frozen=True)
class Plan:
    """What a recipe takes on GPUs of one kind. Sizes are in bytes, times in seconds."""

    recipe: Recipe
    sequence: int
    tokens: int
    micro_batch: int
    accumulation: int
    """Micro-batches of an optimizer step"""
    gpu: str
    """As --gpu names it"""
    machine: Gpu
    devices: int
    nodes: int

    @property
    def gpus(self) -> int:
        return self.devices * self.nodes

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimizer step; plan_on lets no recipe through that has none."""
        return self.recipe.step_tokens or 0

    @property
    def steps(self) -> int:
        """Optimizer steps, each whole."""
        return self.recipe.steps or 0

    @cached_property
    def parameters(self) -> Parameters:
        return count_parameters(self.recipe.config, tied=bool(self.recipe.document.get("train.tie_embeddings")))

    @cached_property
    def teacher(self) -> Teacher:
        return teacher_of(self.recipe)

    @cached_property
    def flops_per_token(self) -> float:
        """As litGPT counts them, and the teacher's."""
        return measured_flops(self.recipe.config, self.sequence) / self.sequence + self.teacher.flops_per_token

    @property
    def flops(self) -> int:
        return round(self.flops_per_token * self.tokens)

    @property
    def six_n_d(self) -> int:
        """FLOPs by the usual estimate: six for each parameter, embeddings included, and token; a teacher's two."""
        return (6 * self.parameters.total + 2 * self.teacher.parameters) * self.tokens

    @property
    def start(self) -> str:
        return str(self.recipe.document.get("initial_checkpoint_dir", "random"))

    @property
    def precision(self) -> str:
        return str(self.recipe.document.get("precision", "bf16-mixed"))

    @property
    def optimizer_states(self) -> int:
        """Values beside each weight."""
        optimizer = self.recipe.document.get("optimizer", "AdamW")
        name = optimizer if isinstance(optimizer, str) else optimizer["class_path"]
        return OPTIMIZER_STATES.get(name.rpartition(".")[2], 2)

    @property
    def vocabulary(self) -> int:
        """Tokens that the head scores."""
        config = self.recipe.config
        return config.padded_vocab_size or config.vocab_size

    @property
    def shards(self) -> int:
        """GPUs that share weights and optimizer states: those of a node, as litGPT takes HYBRID_SHARD."""
        return self.devices if self.gpus > 1 else 1

    @cached_property
    def memory_run(self) -> Run:
        return Run(
            parameters=self.parameters,
            saved=saved_for_backward(self.recipe.config, self.sequence, self.precision),
            vocabulary=self.vocabulary,
            sequence=self.sequence,
            precision=self.precision,
            optimizer_states=self.optimizer_states,
            shards=self.shards,
            teacher=self.teacher.parameters,
        )

    def memory(self, *, compiled: bool = True) -> Memory:
        """Of one GPU at its peak, with or without torch.compile."""
        run = replace(self.memory_run, compiled=compiled)
        return peak(run, self.micro_batch, accumulates=self.accumulation > 1)

    def largest_micro_batch(self, *, compiled: bool = True) -> int | None:
        """Sequences, of which a GPU's part of a step is a multiple; None if not even one fits."""
        run = replace(self.memory_run, compiled=compiled)
        return largest_micro_batch(run, self.accumulation * self.micro_batch, self.machine.memory)

    @property
    def fits(self) -> bool:
        return self.memory().total <= self.machine.memory

    @property
    def fits_if_given_back(self) -> bool:
        """Whether it fits while PyTorch's allocator gives freed blocks back, which takes time."""
        return self.memory().in_use + self.memory().context <= self.machine.memory

    def seconds(self, flops: float, utilisation: float = 1.0) -> float:
        """Wall clock for so many FLOPs at a share of the GPUs' peak."""
        return flops / (self.machine.peak_flops * self.gpus * utilisation)

    @property
    def seconds_range(self) -> list[float]:
        """Wall clock by litGPT's FLOPs, at the highest and at the lowest utilisation that is usual."""
        return [self.seconds(self.flops, utilisation) for utilisation in (MFU_HIGH, MFU_LOW)]

    @cached_property
    def manifest(self) -> Manifest | None:
        """Of the data, if they are at hand."""
        folder = Path(str(self.recipe.data.get("data_path", "")))
        return Manifest(folder) if (folder / MANIFEST).is_file() else None

    @property
    def unique_tokens(self) -> int | None:
        """Training tokens of one epoch: those at hand, or those that the recipe's epochs mean."""
        if self.manifest:
            return self.manifest.splits["train"].tokens
        epochs = self.recipe.data.get("epochs")
        return self.tokens // epochs if epochs else None

    @property
    def domains(self) -> dict[str, int]:
        """Training tokens of each domain at hand. Each is seen as often as the whole: the order is a permutation."""
        entries = self.manifest.content["splits"]["train"] if self.manifest else []
        return {entry["domain"]: entry["tokens"] for entry in entries}

    @property
    def checkpoint(self) -> int:
        """Size of one: weights and optimizer states, in the weights' type."""
        return self.parameters.total * (1 + self.optimizer_states) * (2 if self.precision == "bf16-true" else 4)

    @property
    def checkpoints(self) -> int:
        """litGPT keeps every one."""
        interval = self.recipe.count("save_interval")
        return (self.steps // interval if interval else 0) + 1

    @property
    def data_bytes(self) -> int | None:
        """Of the token shards."""
        width = 2 if self.vocabulary <= 2**16 else 4
        return self.unique_tokens * width if self.unique_tokens else None
