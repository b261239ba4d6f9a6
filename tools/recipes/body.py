"""What all rendered recipes have alike: everything below the header, and how numbers and commands look in one."""

import dataclasses
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from litgpt.config import Config

from inheritune_lit.plan.machines import Gpu
from inheritune_lit.plan.model import count_parameters

PAPER = '"Pre-training Small Base LMs with Fewer Tokens" (arXiv 2404.08634)'

# Of every run. The paper's: weight decay. Ours, or of the code that it builds on, where it is silent: the others.
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
MAX_NORM = 1.0
EVAL_INTERVAL = 1000  # steps
SEED = 42
TOKENIZER = "checkpoints/gpt2_tokenizer"

STATED = (  # of a model, always and in this order; then whatever else differs from Config's defaults
    *("name", "hf_config", "block_size", "n_layer", "n_embd", "n_head", "n_query_groups", "head_size"),
    *("intermediate_size", "vocab_size", "padding_multiple", "padded_vocab_size", "norm_class_name", "norm_eps"),
    *("mlp_class_name", "parallel_residual", "bias", "rotary_percentage"),
)


@dataclass(frozen=True)
class Corpus:
    """Data to train on."""

    title: str
    name: str
    """Of its recipe in recipes/data/, and of the folder that it is prepared into"""
    tokens: int
    """Those of the model's tokenizer that a preparation of it holds, about"""

    @property
    def folder(self) -> str:
        return f"data/{self.name}"


def body(run: Any) -> str:
    """What follows the header, of a Run of either table."""
    billions, rest = divmod(run.max_tokens, 10**9)
    not_a_float = "" if rest else f"  # litGPT rejects {billions}e9"
    teacher = ""
    if folder := getattr(run, "teacher", None):
        teacher = f"    teacher_dir: {folder}\n    weight: {run.teacher_weight}\n    temperature: 1.0\n"
    start = f"checkpoints/{run.target}" if run.target and not run.random else "null"
    return f"""\
model_name: {run.config.name}  # required by litGPT; model_config below is what counts
{_model_config(run.config)}

initial_checkpoint_dir: {start}
tokenizer_dir: {f"checkpoints/{run.target}" if run.target else TOKENIZER}
out_dir: out/{run.name}
precision: bf16-mixed
seed: {SEED}

data:
  class_path: inheritune_lit.data.{"DistilledTokens" if teacher else "PackedTokens"}
  init_args:
    data_path: {run.corpus.folder}
    epochs: {run.epochs}
    seed: {SEED}
    num_workers: 2
{teacher}
train:
  max_tokens: {run.max_tokens}{not_a_float}
  max_seq_length: {run.sequence}
  global_batch_size: {run.batch}
  micro_batch_size: {run.micro_batch}
  lr_warmup_steps: {run.warmup_steps}
  min_lr: {_scalar(run.min_learning_rate)}
  max_norm: {MAX_NORM}
  tie_embeddings: false
  save_interval: {run.save_interval}
  log_interval: 1

eval:
  interval: {EVAL_INTERVAL}
  max_iters: {run.eval_iters}
  initial_validation: true
  final_validation: true

optimizer:
  class_path: torch.optim.AdamW
  init_args:
    lr: {_scalar(run.learning_rate)}
    weight_decay: {WEIGHT_DECAY}
    betas: {list(BETAS)}

logger_name: csv
"""


def _model_config(config: Config) -> str:
    """The model_config block, of which Config's defaults are left out."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    model = dataclasses.asdict(config)
    others = [key for key, value in model.items() if key not in STATED and value != defaults[key]]
    lines = ["model_config:"]
    for key in [*STATED, *others]:
        if isinstance(value := model[key], dict):
            lines += [f"  {key}:", *(f"    {name}: {_scalar(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"  {key}: {_scalar(value)}")
    return "\n".join(lines)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.1e}" if isinstance(value, float) and 0 < value < 0.01 else str(value)


def render(runs: list[Any], header: Callable[[Any], Iterable[str]], surgery: Callable[[Any], str]) -> dict[str, str]:
    """Path in recipes/ → text: a table's runs, and what surgery writes for them."""
    recipes = {f"{run.name}.yaml": "\n#\n".join(header(run)) + f"\n\n{body(run)}" for run in runs}
    return recipes | {f"surgery/{run.target}.yaml": surgery(run) for run in runs if run.target}


def epochs(run: Any) -> str:
    return f"{run.epochs} epoch{'s' * (run.epochs > 1)}"


def comment(*paragraphs: str) -> str:
    return "\n".join(
        textwrap.fill(text, 120, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        for text in paragraphs
    )


def commands(listed: list[tuple[str, str]]) -> str:
    """A header's commands, each with its note."""
    width = max((len(command) for command, note in listed if note), default=0)
    return "\n".join(f"#   {command:<{width}}  {'# ' * bool(note)}{note}".rstrip() for command, note in listed)


def cost(run: Any, gpu: Gpu, what: str, aside: str = "") -> str:
    """The FLOPs of a run, and what they would take at a GPU's peak."""
    total = count_parameters(run.config).total
    flops = 6 * total * run.max_tokens
    hours = flops / (gpu.peak_tflops * 1e12) / 3600
    return (
        f"Cost: 6 × {total / 1e9:.3f}×10⁹ parameters × {power(run.max_tokens)} tokens = {power(flops)} FLOPs, "
        f"{hours:,.0f} h of an {what}'s bf16 peak ({gpu.peak_tflops:.0f} TFLOP/s){aside}. "
        f"`inheritune plan recipes/{run.name}.yaml` says more."
    )


def sizes(run: Any, without: str, called: str = "") -> str:
    """A run's parameters, in all and without those named."""
    counted = count_parameters(run.config)
    return f"{counted.total:,} parameters{called}, {counted.inside:,} without {without}"


def surgery(run: Any, header: str, before: list[tuple[str, str]], size: str, source: str, layers: str = "") -> str:
    """The recipe of `inheritune surgery` for a run's target."""
    steps = [*before, (f"inheritune surgery --config recipes/surgery/{run.target}.yaml", "")]
    settings = f'source_dir: {source}\nlayers: "{layers or run.n_layer}"\nout_dir: checkpoints/{run.target}\n'
    return f"{comment(header)}\n#\n{commands(steps)}\n#\n{comment(size)}\n{settings}"


def power(number: float) -> str:
    """8000000000 → 8×10⁹; three digits at most, trailing zeros left out."""
    digits, exponent = f"{number:.2e}".split("e")
    digits = digits.rstrip("0").rstrip(".")
    raised = str(int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if digits == "1" else f"{digits}×10{raised}"
