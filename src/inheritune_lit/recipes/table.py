"""The low-data runs of arXiv 2404.08634 as a table: the one place where a number of a rendered recipe stands.

What a model looks like is not here: litGPT knows it by the reference's name. Imports neither torch nor litGPT.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Reference:
    """A pretrained model that blocks are taken from."""

    title: str
    repository: str
    """What `litgpt download` takes"""
    n_layer: int
    """Blocks it has"""

    @property
    def model_name(self) -> str:
        """litGPT's name for it"""
        return self.repository.rpartition("/")[2]

    @property
    def folder(self) -> str:
        return f"checkpoints/{self.repository}"


REFERENCES = {
    "openllama3b": Reference("OpenLLaMA-3B", "openlm-research/open_llama_3b", 26),
    "openllama7b": Reference("OpenLLaMA-7B", "openlm-research/open_llama_7b", 32),
    "llama2_7b": Reference("LLaMA-2-7B", "meta-llama/Llama-2-7b-hf", 32),
}


@dataclass(frozen=True)
class Subset:
    """A random subset of RedPajama v1."""

    title: str
    name: str
    """Of its recipe in recipes/data/, and of the folder that it is prepared into"""
    tokens: int
    paper_steps: int
    """Optimizer steps that the paper states for its run on it"""
    save_interval: int
    """Optimizer steps between checkpoints (ours)"""

    @property
    def folder(self) -> str:
        return f"data/{self.name}"


SUBSETS = {
    "1b": Subset("1B", "redpajama_1b", 10**9, paper_steps=64_000, save_interval=1000),
    "50b": Subset("50B", "redpajama_50b", 50 * 10**9, paper_steps=191_000, save_interval=5000),
}

# Of every run. The paper's: batch, learning rate, warm-up, weight decay. Ours, where it is silent: the others.
SEQUENCE = 2048  # tokens
BATCH = 64  # sequences a step: 131,072 tokens
LEARNING_RATE = 3e-4
MIN_LEARNING_RATE = 3e-5
WARMUP_STEPS = 1000
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
MAX_NORM = 1.0
EVAL_INTERVAL = 1000  # steps
EVAL_ITERS = 100  # micro-batches
SEED = 42
MAIN_EPOCHS = {"1b": 8, "50b": 1}


@dataclass(frozen=True)
class Run:
    """One rendered recipe."""

    reference_key: str
    n_layer: int
    subset_key: str
    shows: str
    """Which table, figure or sentence of the paper"""
    epochs: int
    micro_batch: int
    """Sequences that a GPU takes at a time (ours): by `inheritune plan` the most that fits 48 GiB, else 80; up to 8"""
    random: bool = False
    result: str = field(default="not run", compare=False)

    @property
    def reference(self) -> Reference:
        return REFERENCES[self.reference_key]

    @property
    def subset(self) -> Subset:
        return SUBSETS[self.subset_key]

    @property
    def model(self) -> str:
        """As tables name it"""
        return f"{self.reference.title} → {self.n_layer}"

    @property
    def start(self) -> str:
        return "random" if self.random else "inherited"

    @property
    def reproduces(self) -> str:
        return f"comparison for {self.name.removesuffix('_random')}" if self.random else self.shows

    @property
    def target(self) -> str:
        """What surgery writes for it, and its random start has the shape of."""
        return f"{self.reference_key}_n{self.n_layer}"

    @property
    def name(self) -> str:
        """openllama3b_n13: on 1B tokens, 8 epochs, inherited; what differs from that is appended."""
        subset = "" if self.subset_key == "1b" else f"_{self.subset_key}"
        epochs = "" if self.epochs == MAIN_EPOCHS[self.subset_key] else f"_e{self.epochs}"
        return f"{self.target}{subset}{epochs}{'_random' if self.random else ''}"

    @property
    def max_tokens(self) -> int:
        """Tokens trained on in all: the paper's steps do not agree with its tokens, and these count."""
        return self.epochs * self.subset.tokens


DEPTHS = "ablation: MMLU against the number of blocks"
EPOCHS = "ablation: quality against epochs on 1B tokens"
MMLU = "MMLU (5-shot) by reference and tokens"

_INHERITED = (
    Run(
        "openllama3b", 13, "1b", "main table (Ours-1.5B); 13 blocks, 8 epochs of the ablations", epochs=8, micro_batch=2
    ),
    Run("openllama3b", 4, "1b", DEPTHS, epochs=8, micro_batch=8),
    Run("openllama3b", 6, "1b", DEPTHS, epochs=8, micro_batch=8),
    Run("openllama3b", 8, "1b", DEPTHS, epochs=8, micro_batch=8),
    Run("openllama3b", 10, "1b", DEPTHS, epochs=8, micro_batch=4),
    Run("openllama3b", 16, "1b", DEPTHS, epochs=8, micro_batch=4),
    Run("openllama3b", 18, "1b", DEPTHS, epochs=8, micro_batch=4),
    Run("openllama3b", 20, "1b", DEPTHS, epochs=8, micro_batch=4),
    *(
        Run("openllama3b", 13, "1b", EPOCHS, epochs=epochs, micro_batch=2) for epochs in (1, 2, 4, 5, 10, 20)
    ),  # 8: the main one
    Run("openllama7b", 7, "1b", "no published score: beside LLaMA-2-7B on 1B", epochs=8, micro_batch=4),
    Run("llama2_7b", 7, "1b", MMLU, epochs=8, micro_batch=4),
    Run("openllama3b", 13, "50b", MMLU, epochs=1, micro_batch=2),
    Run("openllama7b", 7, "50b", MMLU, epochs=1, micro_batch=4),
    Run("llama2_7b", 7, "50b", MMLU, epochs=1, micro_batch=4),
)


def runs() -> Iterator[Run]:
    """Every inherited start, each followed by its comparison: the same shape and settings from a random start."""
    for run in _INHERITED:
        yield run
        yield replace(run, random=True)


def run_named(name: str) -> Run | None:
    """The low-data run that a recipe of this name was rendered from; None if there is none."""
    return next((run for run in runs() if run.name == name), None)
