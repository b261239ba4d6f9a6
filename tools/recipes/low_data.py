"""The low-data runs of arXiv 2404.08634 as a table, the one place where a number of them stands; and as files.

What a model looks like is not here: litGPT knows it by the reference's name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

from litgpt.config import Config

from inheritune_lit.checkpoint.layers import slice_config
from inheritune_lit.plan.machines import GPUS
from recipes.body import PAPER, WEIGHT_DECAY, Corpus, commands, comment, cost, epochs, power, sizes, surgery
from recipes.body import render as render_table


@dataclass(frozen=True)
class Reference:
    """A pretrained model that blocks are taken from."""

    title: str
    repository: str
    """In the Hugging Face hub"""
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
class Subset(Corpus):
    """A random subset of RedPajama v1."""

    paper_steps: int
    """Optimizer steps that the paper states for its run on it"""
    save_interval: int
    """Optimizer steps between checkpoints (ours)"""


SUBSETS = {
    "1b": Subset("1B", "redpajama_1b", 10**9, paper_steps=64_000, save_interval=1000),
    "50b": Subset("50B", "redpajama_50b", 50 * 10**9, paper_steps=191_000, save_interval=5000),
}

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
    chosen: str = ""
    """The --layers of blocks that are not the paper's first n: the shares that were best in small models"""
    # Of every run. The paper's: batch, learning rate, warm-up. Ours, where it is silent: the others.
    sequence: ClassVar = 2048  # tokens
    batch: ClassVar = 64  # sequences a step: 131,072 tokens
    learning_rate: ClassVar = 3e-4
    min_learning_rate: ClassVar = 3e-5
    warmup_steps: ClassVar = 1000
    eval_iters: ClassVar = 100  # micro-batches
    result: str = field(default="not run", compare=False)

    @property
    def reference(self) -> Reference:
        return REFERENCES[self.reference_key]

    @property
    def corpus(self) -> Subset:
        return SUBSETS[self.subset_key]

    @property
    def save_interval(self) -> int:
        return self.corpus.save_interval

    @property
    def model(self) -> str:
        """As tables name it"""
        return f"{self.reference.title} → {self.n_layer}"

    @property
    def start(self) -> str:
        return "random" if self.random else "chosen" if self.chosen else "inherited"

    @property
    def reproduces(self) -> str:
        return f"comparison for {self.name.removesuffix('_random')}" if self.random else self.shows

    @property
    def target(self) -> str:
        """What surgery writes for it, and its random start has the shape of."""
        return f"{self.reference_key}_n{self.n_layer}{'_best' if self.chosen else ''}"

    @property
    def name(self) -> str:
        """openllama3b_n13: on 1B tokens, 8 epochs, the first blocks; what differs from that is appended."""
        subset = "" if self.subset_key == "1b" else f"_{self.subset_key}"
        epochs = "" if self.epochs == MAIN_EPOCHS[self.subset_key] else f"_e{self.epochs}"
        return f"{self.target}{subset}{epochs}{'_random' if self.random else ''}"

    @property
    def max_tokens(self) -> int:
        """Tokens trained on in all: the paper's steps do not agree with its tokens, and these count."""
        return self.epochs * self.corpus.tokens

    @property
    def step_tokens(self) -> int:
        return self.batch * self.sequence

    @cached_property
    def config(self) -> Config:
        """What surgery writes for the run's target."""
        return slice_config(Config.from_name(self.reference.model_name), range(self.n_layer))


MAIN = "main table (Ours-1.5B); 13 blocks, 8 epochs of the ablations"
DEPTHS = "ablation: MMLU against the number of blocks"
EPOCHS = "ablation: quality against epochs on 1B tokens"
MMLU = "MMLU (5-shot) by reference and tokens"
BEST = "nothing: better blocks, by small models"

_INHERITED = (
    Run("openllama3b", 13, "1b", MAIN, epochs=8, micro_batch=2),
    *(Run("openllama3b", n, "1b", DEPTHS, epochs=8, micro_batch=8 if n < 10 else 4) for n in (4, 6, 8, 10, 16, 18, 20)),
    *(Run("openllama3b", 13, "1b", EPOCHS, epochs=times, micro_batch=2) for times in (1, 2, 4, 5, 10, 20)),
    Run("openllama7b", 7, "1b", "no published score: beside LLaMA-2-7B on 1B", epochs=8, micro_batch=4),
    Run("llama2_7b", 7, "1b", MMLU, epochs=8, micro_batch=4),
    Run("openllama3b", 13, "50b", MMLU, epochs=1, micro_batch=2),
    Run("openllama7b", 7, "50b", MMLU, epochs=1, micro_batch=4),
    Run("llama2_7b", 7, "50b", MMLU, epochs=1, micro_batch=4),
)

# 3 + 12 of 30 blocks and 2 + 6 of 16 were best of the halves tried, 3 + 4 of 30 of the quarters (benchmarks/starts.md)
_CHOSEN = {"openllama3b_n13": "0-2,16-25", "openllama7b_n7": "0-2,28-31", "llama2_7b_n7": "0-2,28-31"}


def runs() -> Iterator[Run]:
    """Every inherited start, followed by its random start, and by better blocks for the main one of each reference."""
    for run in _INHERITED:
        yield run
        yield replace(run, random=True)
        if chosen := _CHOSEN.get(run.name):
            yield replace(run, chosen=chosen, shows=BEST)


def render() -> dict[str, str]:
    """Path in recipes/ → text."""
    return render_table(list(runs()), _header, _surgery)


def _header(run: Run) -> tuple[str, ...]:
    steps = [
        *_download(run),
        (f"inheritune surgery --config recipes/surgery/{run.target}.yaml", f"→ checkpoints/{run.target}"),
        (f"inheritune prepare --config recipes/data/{run.corpus.name}.yaml", f"→ {run.corpus.folder}"),
        (f"litgpt pretrain --config recipes/{run.name}.yaml", "one GPU, or all of a machine's with FSDP"),
    ]
    return comment(_title(run)), commands(steps), _tokens(run), _sources(run), _cost(run), comment(_gpus(run))


def _download(run: Run) -> list[tuple[str, str]]:
    """Where the hub has pickles only, surgery says how safetensors are made of them."""
    fetch = f"hf download {run.reference.repository} --local-dir {run.reference.folder}"
    if run.reference_key == "llama2_7b":  # which the hub has in both forms
        return [("hf auth login", "its licence must be accepted first"), (f"{fetch} --exclude '*.bin'", "")]
    return [(fetch, "")]


def _title(run: Run) -> str:
    times = f"{epochs(run)} over a {run.corpus.title}-token subset of RedPajama"
    if run.random:
        return (
            f"A random start of the shape of {run.reference.title}'s first {run.n_layer} blocks, trained for {times}: "
            f"what recipes/{run.name.removesuffix('_random')}.yaml, Algorithm 1 of {PAPER}, is to be compared with; "
            "nothing else differs. The edge of a pruned start shrinks as tokens are added (arXiv 2606.14150)."
        )
    if run.chosen:
        return (
            f"{run.reference.title} → {run.n_layer} of its blocks, --layers {run.chosen}, trained for {times}: "
            f"recipes/{run.name.removesuffix('_best')}.yaml with other blocks, to be compared with it and with its "
            "random start; nothing else differs."
        )
    return (
        f"{run.reference.title} → its first {run.n_layer} blocks, trained for {times}: Algorithm 1 of {PAPER}. "
        f"Reproduces: {run.reproduces}."
    )


def _tokens(run: Run) -> str:
    subset, total, steps = power(run.corpus.tokens), power(run.max_tokens), run.max_tokens // run.step_tokens
    return comment(
        f"Tokens: {run.batch} sequences × {run.sequence:,} = {run.step_tokens:,} a step; {epochs(run)} × {subset} = "
        f"{total} in all; {total} / {run.step_tokens:,} = {steps:,} steps.",
        f"The subset must hold at least {subset} tokens, or its {epochs(run)} end before the budget does, with an "
        f"error that says so. Then lower max_tokens to {run.epochs} × what `inheritune prepare` reported.",
    )


def _sources(run: Run) -> str:
    steps = run.corpus.paper_steps
    disagree = (run.epochs == MAIN_EPOCHS[run.subset_key]) * (
        f"The paper's {steps:,} steps and its tokens disagree ({steps:,} × {run.step_tokens:,} = "
        f"{power(steps * run.step_tokens)}); this recipe keeps the tokens."
    )
    chosen = bool(run.chosen) * (
        "Evidence: on models of 135M and 16M parameters and up to 21M tokens, few first and many last blocks needed a "
        "quarter to a sixty-fourth of the tokens that the first n need for the same loss (benchmarks/starts.md of the "
        "repository). A guess: that it holds for billions of both, that these shares of first and last are this "
        "reference's, that the paper's learning rate suits. To measure the blocks, once the data are prepared: "
        f"`inheritune choose {run.reference.folder} --data {run.corpus.folder} --keep {run.n_layer} --learning_rate "
        f"{run.learning_rate:.0e} --out_dir out/choice`; write the --layers that it names into the surgery recipe."
    )
    random = run.random * (
        "tokenizer_dir is the folder that surgery wrote, for a random start too: litGPT copies config.json from there "
        "into every checkpoint, and the reference's states a depth that evaluation would fill with random blocks."
    )
    return comment(
        f"The paper's: subset and epochs, batch, AdamW, learning rate {run.learning_rate:.0e}, cosine, "
        f"{run.warmup_steps:,} warm-up steps, weight decay {WEIGHT_DECAY}.",
        "Ours, where the paper is silent: min_lr (a tenth of the peak), betas, gradient clipping, bf16-mixed (with "
        "bf16-true, AdamW's small steps are rounded away), micro batch, evaluation and checkpoint intervals, seed.",
        *filter(None, [disagree, random, chosen]),
    )


def _cost(run: Run) -> str:
    main = (run.subset_key, run.epochs, run.random) == ("1b", MAIN_EPOCHS["1b"], False)
    aside = ': days, not the paper\'s "less than half a day"' if main else ""
    return comment(f"{sizes(run, 'embedding and head')}.", cost(run, GPUS["a6000"], "A6000", aside))


def _gpus(run: Run) -> str:
    return (
        "More GPUs: global_batch_size / (devices × num_nodes) must be a multiple of micro_batch_size: with "
        f"{run.micro_batch}, up to {run.batch // run.micro_batch} GPUs."
    )


def _surgery(run: Run) -> str:
    papers = {"openllama3b_n13": " (the paper calls it 1.5B)", "llama2_7b_n7": " (the paper calls it 1.6B)"}
    which = f"Blocks {run.chosen}" if run.chosen else f"The first {run.n_layer}"
    return surgery(
        run,
        f"{which} of {run.reference.title}'s {run.reference.n_layer} blocks, with its token embedding, final norm and "
        "LM head.",
        _download(run),
        f"{sizes(run, 'embeddings and head')}{papers.get(run.target, '')}.",
        run.reference.folder,
        run.chosen,
    )
