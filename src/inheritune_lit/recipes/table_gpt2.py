"""The GPT-2 runs of arXiv 2404.08634 as a table: the one place where a number of recipes/gpt2/ stands.

What of them is the same in the low-data runs stands in table.py; what the authors measured, in published/. Imports
neither torch nor litGPT.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from inheritune_lit.published import LossRun, losses


@dataclass(frozen=True)
class Corpus:
    title: str
    name: str
    """Of its recipe in recipes/data/, and of the folder that it is prepared into"""
    tokens: int
    """GPT-2 tokens that a preparation of it holds, about"""

    @property
    def folder(self) -> str:
        return f"data/{self.name}"


OPENWEBTEXT = Corpus("OpenWebText", "openwebtext", 9 * 10**9)
FINEWEB_EDU = Corpus("FineWeb-Edu", "fineweb_edu", 5 * 10**9)


@dataclass(frozen=True)
class Reference:
    """A GPT-2 of full depth, trained here: what blocks are taken from, and what a shorter one is measured by."""

    title: str
    called: str
    """Parameters, as the paper says them"""
    n_layer: int
    n_head: int
    n_embd: int
    corpus: Corpus
    batch: int
    """Sequences an optimizer step"""
    batch_source: str
    learning_rate: float
    min_learning_rate: float
    rate_source: str

    @property
    def model_name(self) -> str:
        """model_config.name; litGPT has no GPT-2 and knows none of that name."""
        return self.title.lower().replace("gpt-2 ", "gpt2-").removesuffix("*")


_PAPERS, _SOPHIA, _THEIRS = "the paper's", "those of the code that the paper builds on", "those of the authors' code"
_OURS = "ours, the large model's, as the paper does not say"
_MEDIUM = Reference("GPT-2 medium", "355M", 24, 16, 1024, OPENWEBTEXT, 48, _PAPERS, 3e-4, 6e-5, _SOPHIA)
_LARGE = Reference("GPT-2 large", "770M", 36, 20, 1280, OPENWEBTEXT, 16, _PAPERS, 2e-4, 1e-5, _THEIRS)
_XLARGE = Reference("GPT-2 xlarge", "1.5B", 48, 25, 1600, OPENWEBTEXT, 16, _OURS, 2e-4, 1e-5, _OURS)
REFERENCES = {
    "medium": _MEDIUM,
    "large": _LARGE,
    "xlarge": _XLARGE,
    "fineweb_medium": replace(_MEDIUM, corpus=FINEWEB_EDU),
    "fineweb_large": replace(
        _LARGE, title="GPT-2 large*", called="680M", n_layer=32, corpus=FINEWEB_EDU, batch_source=_OURS
    ),
}
SHORTER = {"medium": (12, 14, 16), "large": (18,), "xlarge": (24,), "fineweb_medium": (16,), "fineweb_large": (16,)}

# Of every run, and the paper's.
SEQUENCE = 1024  # tokens
VOCABULARY, PADDED_VOCABULARY = 50257, 50304
STEPS = 100_000
WARMUP_STEPS = 2000
# Ours. Four sequences of each model fit 40 GiB by `inheritune plan` (xlarge's 48 blocks on one GPU only while PyTorch's
# allocator gives freed blocks back), and both batches divide by four GPUs with them.
MICRO_BATCH = 4
SAVE_INTERVAL = 5000  # steps
EVAL_ITERS = 200  # micro-batches: 819,200 tokens
TOKENIZER = "checkpoints/gpt2_tokenizer"


@dataclass(frozen=True)
class Run:
    """One rendered recipe."""

    reference_key: str
    n_layer: int
    random: bool = False
    steps: int = STEPS
    result: str = field(default="not run", compare=False)

    @property
    def reference(self) -> Reference:
        return REFERENCES[self.reference_key]

    @property
    def is_reference(self) -> bool:
        return self.n_layer == self.reference.n_layer

    @property
    def model(self) -> str:
        """As tables name it"""
        if self.is_reference:
            return f"{self.reference.title}, {self.n_layer} blocks"
        return f"{self.reference.title} → {self.n_layer}"

    @property
    def start(self) -> str:
        return "random (reference)" if self.is_reference else "random" if self.random else "inherited"

    @property
    def inherited_name(self) -> str:
        """The recipe of the same n blocks, inherited."""
        return f"gpt2/{self.reference_key}_n{self.n_layer}"

    @property
    def reference_name(self) -> str:
        return f"gpt2/{self.reference_key}_k{self.reference.n_layer}"

    @property
    def name(self) -> str:
        """gpt2/large_n18: inherited, 100,000 steps; what differs from that is appended."""
        if self.is_reference:
            return self.reference_name
        longer = "" if self.steps == STEPS else f"_{self.steps // 1000}k"
        return f"{self.inherited_name}{'_random' if self.random else ''}{longer}"

    @property
    def target(self) -> str | None:
        """What surgery writes for it; None if it starts from random weights."""
        return None if self.random else f"gpt2_{self.reference_key}_n{self.n_layer}"

    @property
    def max_tokens(self) -> int:
        return self.steps * self.reference.batch * SEQUENCE

    @property
    def epochs(self) -> int:
        return -(-self.max_tokens // self.reference.corpus.tokens)

    @property
    def published(self) -> LossRun | None:
        """The authors' run, if they have such a one."""
        size, start = self.reference.title.removeprefix("GPT-2 "), "random" if self.random else "inherited"
        wanted = (self.reference.corpus.title, size, self.n_layer, start, self.steps)
        listed = {(run.data, run.size, run.blocks, run.start, run.steps): run for run in losses("gpt2_losses").runs}
        return listed.get(wanted)

    @property
    def reproduces(self) -> str:
        if self.published is None:
            return f"comparison for {self.inherited_name}"
        return f"validation loss {self.published.loss:.4f}"


def _shorter(key: str, n: int) -> Iterator[Run]:
    """n blocks, inherited; from a random start; and, on OpenWebText, that for twice the steps."""
    run = Run(key, n)
    yield run
    yield replace(run, random=True)
    if REFERENCES[key].corpus is OPENWEBTEXT:
        yield replace(run, random=True, steps=2 * STEPS)


def runs() -> Iterator[Run]:
    """Every reference, followed by its shorter models, each followed by its comparisons from a random start."""
    for key, shorter in SHORTER.items():
        yield Run(key, REFERENCES[key].n_layer, random=True)
        for n in shorter:
            yield from _shorter(key, n)
