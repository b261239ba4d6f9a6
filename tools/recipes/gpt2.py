"""The GPT-2 runs of arXiv 2404.08634 as a table, the one place where a number of them stands; and as files.

What the authors measured stands in inheritune_lit/published.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

from litgpt.config import Config

from inheritune_lit.plan.machines import GPUS
from inheritune_lit.plan.model import count_parameters
from inheritune_lit.published import LossRun, losses
from recipes.body import PAPER, Corpus, commands, comment, cost, epochs, power, sizes, surgery
from recipes.body import render as render_table

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

VOCABULARY, PADDED_VOCABULARY = 50257, 50304
STEPS, DISTILLED_STEPS = 100_000, 50_000
PAPERS_GPUS = 3  # of a node, A100-40GB


@dataclass(frozen=True)
class Run:
    """One rendered recipe."""

    reference_key: str
    n_layer: int
    random: bool = False
    distilled: bool = False  # from the whole reference; the paper's such run is from random weights
    steps: int = STEPS
    # Of every run. The paper's: length and warm-up. Ours: the others. Four sequences of each model fit 40 GiB by
    # `inheritune plan` (xlarge's 48 blocks on one GPU only while PyTorch's allocator gives freed blocks back), and both
    # batches divide by four GPUs with them.
    sequence: ClassVar = 1024  # tokens
    warmup_steps: ClassVar = 2000
    micro_batch: ClassVar = 4
    teacher_weight: ClassVar = 0.4  # 1 − the paper's α
    save_interval: ClassVar = 5000  # steps
    eval_iters: ClassVar = 200  # micro-batches: 819,200 tokens
    result: str = field(default="not run", compare=False)

    @property
    def reference(self) -> Reference:
        return REFERENCES[self.reference_key]

    @property
    def corpus(self) -> Corpus:
        return self.reference.corpus

    @property
    def batch(self) -> int:
        return self.reference.batch

    @property
    def learning_rate(self) -> float:
        return self.reference.learning_rate

    @property
    def min_learning_rate(self) -> float:
        return self.reference.min_learning_rate

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
        if self.distilled:
            return "random, distilled"
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
        if self.distilled:
            return f"{self.inherited_name}_kd"
        longer = "" if self.steps == STEPS else f"_{self.steps // 1000}k"
        return f"{self.inherited_name}{'_random' if self.random else ''}{longer}"

    @property
    def target(self) -> str | None:
        """What surgery writes for it; None if it starts from random weights."""
        return None if self.random else f"gpt2_{self.reference_key}_n{self.n_layer}"

    @property
    def teacher(self) -> str | None:
        """The folder of the model that it learns from, beside the labels."""
        return f"out/{self.reference_name}/final" if self.distilled else None

    @property
    def max_tokens(self) -> int:
        return self.steps * self.step_tokens

    @property
    def step_tokens(self) -> int:
        return self.batch * self.sequence

    @cached_property
    def config(self) -> Config:
        return config_of(self.reference, self.n_layer)

    @property
    def epochs(self) -> int:
        return -(-self.max_tokens // self.reference.corpus.tokens)

    @property
    def published(self) -> LossRun | None:
        """The authors' run, if they have such a one."""
        size, start = self.reference.title.removeprefix("GPT-2 "), "random" if self.random else "inherited"
        blocks: int | None = self.n_layer
        if self.distilled:  # whose log says nothing of blocks; the paper's table does
            start, blocks = "distillation", None
        wanted = (self.reference.corpus.title, size, blocks, start, self.steps)
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
    if (key, n) == ("medium", 12):
        yield replace(run, random=True, distilled=True, steps=DISTILLED_STEPS)


def runs() -> Iterator[Run]:
    """Every reference, followed by its shorter models, each followed by its comparisons from a random start."""
    for key, shorter in SHORTER.items():
        yield Run(key, REFERENCES[key].n_layer, random=True)
        for n in shorter:
            yield from _shorter(key, n)


def config_of(reference: Reference, n_layer: int) -> Config:
    """litGPT's Config of the paper's GPT-2: no biases, attention logits divided by the layer's number too."""
    return Config(
        name=reference.model_name,
        hf_config={"model_type": "gpt2", "layer_norm_bias": False, "scale_attn_by_inverse_layer_idx": True},
        block_size=Run.sequence,
        n_layer=n_layer,
        n_head=reference.n_head,
        n_embd=reference.n_embd,
        vocab_size=VOCABULARY,
        padded_vocab_size=PADDED_VOCABULARY,
        norm_class_name="LayerNorm",
        mlp_class_name="GptNeoxMLP",
        gelu_approximate="tanh",
        rotary_percentage=0.0,
        parallel_residual=False,
        bias=False,
    )


def render() -> dict[str, str]:
    """Path in recipes/ → text."""
    return render_table(list(runs()), _header, _surgery)


def _header(run: Run) -> tuple[str, ...]:
    return comment(_title(run)), commands(_steps(run)), _tokens(run), _sources(run), _cost(run), comment(_gpus(run))


def _steps(run: Run) -> list[tuple[str, str]]:
    corpus = run.reference.corpus
    prepare = (f"inheritune prepare --config recipes/data/{corpus.name}.yaml", f"→ {corpus.folder}; see there first")
    pretrain = (f"litgpt pretrain --config recipes/{run.name}.yaml", "one GPU, or some of a machine's with FSDP")
    if run.distilled:
        return [prepare, _train_reference(run), pretrain]
    if not run.target:
        return [prepare, pretrain]
    cut = (f"inheritune surgery --config recipes/surgery/{run.target}.yaml", f"→ checkpoints/{run.target}")
    return [prepare, _train_reference(run), cut, pretrain]


def _train_reference(run: Run) -> tuple[str, str]:
    return f"litgpt pretrain --config recipes/{run.reference_name}.yaml", f"→ out/{run.reference_name}"


def _title(run: Run) -> str:
    reference, times = run.reference, f"{run.steps:,} steps on {run.reference.corpus.title}"
    if run.is_reference:
        text = (
            f"{reference.title}, all of its {run.n_layer} blocks, from random weights, for {times}: the reference of "
            f"Algorithm 2 of {PAPER}, whose validation loss a shorter model is to reach."
        )
    elif run.distilled:
        text = (
            f"A random start of the shape of {reference.title}'s first {run.n_layer} blocks, distilled from all "
            f"{reference.n_layer}, for {times}: logit distillation, which {PAPER} compares its own "
            f"recipes/{run.inherited_name}.yaml with."
        )
    elif run.random:
        than = ", trained twice as long" if run.steps > STEPS else "; nothing else differs but tokenizer_dir"
        text = (
            f"A random start of the shape of {reference.title}'s first {run.n_layer} blocks, for {times}: what "
            f"recipes/{run.inherited_name}.yaml, Algorithm 2 of {PAPER}, is to be compared with{than}."
        )
    else:
        text = f"{reference.title} → its first {run.n_layer} blocks, for {times}: Algorithm 2 of {PAPER}."
    if run.published is None:
        return f"{text} The authors have published no such run."
    loss, log = run.published.loss, run.published.log
    return f"{text} Reproduces: validation loss {loss:.4f} after the last step (the authors' {log})."


def _tokens(run: Run) -> str:
    return comment(
        f"Tokens: {run.reference.batch} sequences × {run.sequence:,} = {run.step_tokens:,} a step; {run.steps:,} × "
        f"{run.step_tokens:,} = {run.max_tokens:,}. {run.corpus.folder} has about {power(run.corpus.tokens)}: "
        f"{epochs(run)} will do."
    )


def _sources(run: Run) -> str:
    tokenizer = (
        "tokenizer_dir is a tokenizer alone: litGPT would copy the config.json of another model, with another depth, "
        "into every checkpoint. `inheritune export` makes the right one from model_config."
    )
    return comment(
        f"The paper's: steps, AdamW, betas, cosine, {run.warmup_steps:,} warm-up steps, weight decay, gradient "
        f"clipping, bf16, evaluation interval. Batch: {run.reference.batch_source}. Learning rate and min_lr: "
        f"{run.reference.rate_source}.",
        "Ours, where the paper is silent: bf16-mixed (with bf16-true, AdamW's small steps are rounded away), micro "
        "batch, windows of an evaluation, checkpoint interval, seed.",
        *[tokenizer][run.target is not None :],
        *[_teacher(run)][not run.distilled :],
        "The head is the token embedding: GPT-2's model here ties them by itself, on many GPUs too, hence "
        "tie_embeddings: false, which is litGPT's own way.",
    )


def _teacher(run: Run) -> str:
    return (
        f"The teacher is the reference, trained first. The paper's: temperature 1, α 0.6, {run.steps:,} steps; the "
        "rest as for its other runs, as it says nothing of it. Nor does it say what α is the share of: in the authors' "
        "log the training loss is 0.59 to 0.61 times the validation loss from the first step to the last, so it is "
        f"taken to be the labels', and the teacher has the rest: weight {run.teacher_weight}. By the same log the "
        "teacher's part of their loss was next to nothing."
    )


def _cost(run: Run) -> str:
    taught = ""
    if run.distilled:
        size = count_parameters(config_of(run.reference, run.reference.n_layer)).total
        flops = f"2 × {size / 1e9:.3f}×10⁹ × {power(run.max_tokens)} = {power(2 * size * run.max_tokens)} FLOPs"
        taught = f", without the teacher's forward passes, {flops}"
    called = f" (the paper calls it {run.reference.called})" if run.is_reference else ""
    return comment(f"{sizes(run, 'embeddings', called)}.", cost(run, GPUS["a100-40"], "A100", taught))


def _gpus(run: Run) -> str:
    batch = run.reference.batch
    counts = [n for n in range(1, batch // run.micro_batch + 1) if batch % (n * run.micro_batch) == 0]
    smaller = [n for n in range(1, batch + 1) if batch % n == 0 and n not in counts]
    text = (
        f"GPUs: {', '.join(map(str, counts))}, so that global_batch_size / (devices × num_nodes) is a multiple of "
        f"micro_batch_size. With a smaller micro_batch_size {', '.join(map(str, smaller))} too."
    )
    if batch % PAPERS_GPUS:
        text += (
            f" {batch} sequences do not divide by {PAPERS_GPUS}, the GPUs of the paper's node: litGPT would take "
            f"{batch // PAPERS_GPUS * PAPERS_GPUS}, and not say so."
        )
    return text


def _surgery(run: Run) -> str:
    reference = run.reference
    return surgery(
        run,
        f"The first {run.n_layer} of {reference.title}'s {reference.n_layer} blocks, with its token and position "
        f"embeddings and final norm; the reference is our own, trained on {reference.corpus.title}.",
        [_train_reference(run)],
        f"{sizes(run, 'embeddings')}.",
        f"out/{run.reference_name}/final",
    )
