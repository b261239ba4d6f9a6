"""What all rendered recipes have alike: everything below the header, and how numbers and commands look in one."""

import dataclasses
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inheritune_lit.recipes import table

if TYPE_CHECKING:
    from litgpt.config import Config

STATED = (  # of a model, always and in this order; then whatever else differs from Config's defaults
    *("name", "hf_config", "block_size", "n_layer", "n_embd", "n_head", "n_query_groups", "head_size"),
    *("intermediate_size", "vocab_size", "padding_multiple", "padded_vocab_size", "norm_class_name", "norm_eps"),
    *("mlp_class_name", "parallel_residual", "bias", "rotary_percentage"),
)


def stated(config: "Config") -> dict[str, Any]:
    """The model_config block of a Config, of which Config's defaults are left out."""
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    model = dataclasses.asdict(config)
    others = [key for key, value in model.items() if key not in STATED and value != defaults[key]]
    return {key: model[key] for key in [*STATED, *others]}


@dataclass(frozen=True)
class Settings:
    """What differs between the bodies of two recipes; what doesn't, stands in table.py."""

    initial_checkpoint_dir: str | None
    tokenizer_dir: str
    out_dir: str
    data_path: str
    epochs: int
    max_tokens: int
    sequence: int
    """Tokens"""
    batch: int
    """Sequences an optimizer step"""
    micro_batch: int
    warmup_steps: int
    learning_rate: float
    min_learning_rate: float
    save_interval: int
    """Optimizer steps"""
    eval_iters: int
    """Micro-batches of an evaluation"""


def render_body(model: Mapping[str, Any], settings: Settings) -> str:
    return "\n\n".join([_model(model), _places(settings), _data(settings), _training(settings)]) + "\n"


def _model(model: Mapping[str, Any]) -> str:
    lines = ["model_config:"]
    for key, value in model.items():
        if isinstance(value, dict):
            lines += [f"  {key}:", *(f"    {name}: {scalar(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"  {key}: {scalar(value)}")
    name = f"model_name: {model['name']}  # required by litGPT; model_config below is what counts"
    return "\n".join([name, *lines])


def _places(settings: Settings) -> str:
    return textwrap.dedent(f"""\
        initial_checkpoint_dir: {settings.initial_checkpoint_dir or "null"}
        tokenizer_dir: {settings.tokenizer_dir}
        out_dir: {settings.out_dir}
        precision: bf16-mixed
        seed: {table.SEED}""")


def _data(settings: Settings) -> str:
    return textwrap.dedent(f"""\
        data:
          class_path: inheritune_lit.data.PackedTokens
          init_args:
            data_path: {settings.data_path}
            epochs: {settings.epochs}
            seed: {table.SEED}
            num_workers: 2""")


def _training(settings: Settings) -> str:
    return textwrap.dedent(f"""\
        train:
          max_tokens: {settings.max_tokens}{_not_a_float(settings.max_tokens)}
          max_seq_length: {settings.sequence}
          global_batch_size: {settings.batch}
          micro_batch_size: {settings.micro_batch}
          lr_warmup_steps: {settings.warmup_steps}
          min_lr: {scalar(settings.min_learning_rate)}
          max_norm: {table.MAX_NORM}
          tie_embeddings: false
          save_interval: {settings.save_interval}
          log_interval: 1

        eval:
          interval: {table.EVAL_INTERVAL}
          max_iters: {settings.eval_iters}
          initial_validation: true
          final_validation: true

        optimizer:
          class_path: torch.optim.AdamW
          init_args:
            lr: {scalar(settings.learning_rate)}
            weight_decay: {table.WEIGHT_DECAY}
            betas: {list(table.BETAS)}

        logger_name: csv""")


def _not_a_float(tokens: int) -> str:
    billions, rest = divmod(tokens, 10**9)
    return "" if rest else f"  # litGPT rejects {billions}e9"


def comment(*paragraphs: str) -> str:
    return "\n".join(
        textwrap.fill(text, 120, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        for text in paragraphs
    )


def commands(listed: list[tuple[str, str]]) -> str:
    """A header's commands, each with its note."""
    width = max(len(command) for command, _ in listed)
    return "\n".join(f"#   {command:<{width}}  {'# ' * bool(note)}{note}".rstrip() for command, note in listed)


def scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.1e}" if isinstance(value, float) and 0 < value < 0.01 else str(value)


def power(number: float) -> str:
    """8000000000 → 8×10⁹; three digits at most, trailing zeros left out."""
    digits, exponent = f"{number:.2e}".split("e")
    digits = digits.rstrip("0").rstrip(".")
    raised = str(int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if digits == "1" else f"{digits}×10{raised}"
