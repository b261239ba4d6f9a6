"""Whole files out of the table: `litgpt pretrain` recipes, surgery recipes, the README's table."""

import dataclasses
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inheritune_lit.plan.machines import GPUS
from inheritune_lit.recipes import table
from inheritune_lit.recipes.listing import Row, parameters, rows
from inheritune_lit.recipes.table import Run, runs

STATED = (  # of a model, always and in this order; then whatever else differs from Config's defaults
    *("name", "hf_config", "block_size", "n_layer", "n_embd", "n_head", "n_query_groups", "head_size"),
    *("intermediate_size", "vocab_size", "padding_multiple", "padded_vocab_size", "norm_class_name", "norm_eps"),
    *("mlp_class_name", "parallel_residual", "bias", "rotary_percentage"),
)
STEP_TOKENS = table.BATCH * table.SEQUENCE


def render_all() -> dict[str, str]:
    """Path in recipes/ → text of every file that is made from the table, but for the README."""
    texts = {f"{run.name}.yaml": render_recipe(run) for run in runs()}
    return texts | {f"surgery/{run.target}.yaml": render_surgery(run) for run in runs()}


def model_of(run: Run) -> dict[str, Any]:
    """The model_config block: what surgery writes for the run's target, of which Config's defaults are left out."""
    from litgpt.config import Config

    from inheritune_lit.layers import slice_config

    config = slice_config(Config.from_name(run.reference.model_name), range(run.n_layer))
    defaults = {f.name: f.default for f in dataclasses.fields(Config)}
    model = dataclasses.asdict(config)
    others = [key for key, value in model.items() if key not in STATED and value != defaults[key]]
    return {key: model[key] for key in [*STATED, *others]}


def render_recipe(run: Run) -> str:
    model = model_of(run)
    return "\n\n".join([_header(run, model), _model(model), _places(run), _data(run), _training(run)]) + "\n"


def _header(run: Run, model: Mapping[str, Any]) -> str:
    commands = [
        (f"litgpt download {run.reference.repository}", _gated(run)),
        (f"inheritune surgery --config recipes/surgery/{run.target}.yaml", f"→ checkpoints/{run.target}"),
        (f"inheritune prepare --config recipes/data/{run.subset.name}.yaml", f"→ {run.subset.folder}"),
        (f"litgpt pretrain --config recipes/{run.name}.yaml", "one GPU, or all of a machine's with FSDP"),
    ]
    paragraphs = [_title(run), _commands(commands), _tokens(run), _sources(run), _cost(run, model), _gpus(run)]
    return "\n#\n".join(paragraphs)


def _title(run: Run) -> str:
    times = f"{_epochs(run)} over a {run.subset.title}-token subset of RedPajama"
    source = '"Pre-training Small Base LMs with Fewer Tokens" (arXiv 2404.08634)'
    if run.random:
        return _comment(
            f"A random start of the shape of {run.reference.title}'s first {run.n_layer} blocks, trained for {times}: "
            f"what recipes/{run.name.removesuffix('_random')}.yaml, Algorithm 1 of {source}, is to be compared with; "
            "nothing else differs. The edge of a pruned start shrinks as tokens are added (arXiv 2606.14150)."
        )
    return _comment(
        f"{run.reference.title} → its first {run.n_layer} blocks, trained for {times}: Algorithm 1 of {source}. "
        f"Reproduces: {run.reproduces}."
    )


def _epochs(run: Run) -> str:
    return f"{run.epochs} epoch{'s' * (run.epochs > 1)}"


def _gated(run: Run) -> str:
    return "its licence must be accepted first: --access_token" if run.reference_key == "llama2_7b" else ""


def _commands(commands: list[tuple[str, str]]) -> str:
    width = max(len(command) for command, _ in commands)
    return "\n".join(f"#   {command:<{width}}  {'# ' * bool(note)}{note}".rstrip() for command, note in commands)


def _tokens(run: Run) -> str:
    subset, steps = _power(run.subset.tokens), run.max_tokens // STEP_TOKENS
    total = _power(run.max_tokens)
    return _comment(
        f"Tokens: {table.BATCH} sequences × {table.SEQUENCE:,} = {STEP_TOKENS:,} a step; {_epochs(run)} × {subset} = "
        f"{total} in all; {total} / {STEP_TOKENS:,} = {steps:,} steps.",
        f"The subset must hold at least {subset} tokens, or its {_epochs(run)} end before the budget does, with an "
        f"error that says so. Then lower max_tokens to {run.epochs} × what `inheritune prepare` reported.",
    )


def _sources(run: Run) -> str:
    steps = run.subset.paper_steps
    stated = (run.epochs == table.MAIN_EPOCHS[run.subset_key]) * (
        f"The paper's {steps:,} steps and its tokens disagree ({steps:,} × {STEP_TOKENS:,} = "
        f"{_power(steps * STEP_TOKENS)}); this recipe keeps the tokens."
    )
    random = run.random * (
        "tokenizer_dir is the folder that surgery wrote, for a random start too: litGPT copies config.json from there "
        "into every checkpoint, and the reference's states a depth that evaluation would fill with random blocks."
    )
    return _comment(
        f"The paper's: subset and epochs, batch, AdamW, learning rate {table.LEARNING_RATE:.0e}, cosine, "
        f"{table.WARMUP_STEPS:,} warm-up steps, weight decay {table.WEIGHT_DECAY}.",
        "Ours, where the paper is silent: min_lr (a tenth of the peak), betas, gradient clipping, bf16-mixed (with "
        "bf16-true, AdamW's small steps are rounded away), micro batch, evaluation and checkpoint intervals, seed.",
        *filter(None, [stated, random]),
    )


def _cost(run: Run, model: Mapping[str, Any]) -> str:
    total, inside = parameters(model)
    flops = 6 * total * run.max_tokens
    gpu = GPUS["a6000"]
    hours = flops / (gpu.peak_tflops * 1e12) / 3600
    main = (run.subset_key, run.epochs, run.random) == ("1b", table.MAIN_EPOCHS["1b"], False)
    paper = ': days, not the paper\'s "less than half a day"' if main else ""
    return _comment(
        f"{total:,} parameters, {inside:,} without embedding and head.",
        f"Cost: 6 × {total / 1e9:.3f}×10⁹ parameters × {_power(run.max_tokens)} tokens = {_power(flops)} FLOPs, "
        f"{hours:,.0f} h of an A6000's bf16 peak ({gpu.peak_tflops:.0f} TFLOP/s){paper}. "
        f"`inheritune plan recipes/{run.name}.yaml` says more.",
    )


def _gpus(run: Run) -> str:
    most = table.BATCH // run.micro_batch
    return _comment(
        "More GPUs: global_batch_size / (devices × num_nodes) must be a multiple of micro_batch_size: with "
        f"{run.micro_batch}, up to {most} GPUs."
    )


def _model(model: Mapping[str, Any]) -> str:
    lines = ["model_config:"]
    for key, value in model.items():
        if isinstance(value, dict):
            lines += [f"  {key}:", *(f"    {name}: {inner}" for name, inner in value.items())]
        else:
            lines.append(f"  {key}: {_scalar(value)}")
    name = f"model_name: {model['name']}  # required by litGPT; model_config below is what counts"
    return "\n".join([name, *lines])


def _places(run: Run) -> str:
    target = f"checkpoints/{run.target}"
    return textwrap.dedent(f"""\
        initial_checkpoint_dir: {"null" if run.random else target}
        tokenizer_dir: {target}
        out_dir: out/{run.name}
        precision: bf16-mixed
        seed: {table.SEED}""")


def _data(run: Run) -> str:
    return textwrap.dedent(f"""\
        data:
          class_path: inheritune_lit.data.PackedTokens
          init_args:
            data_path: {run.subset.folder}
            epochs: {run.epochs}
            seed: {table.SEED}
            num_workers: 2""")


def _training(run: Run) -> str:
    return textwrap.dedent(f"""\
        train:
          max_tokens: {run.max_tokens}  # litGPT rejects {run.max_tokens // 10**9}e9
          max_seq_length: {table.SEQUENCE}
          global_batch_size: {table.BATCH}
          micro_batch_size: {run.micro_batch}
          lr_warmup_steps: {table.WARMUP_STEPS}
          min_lr: {_scalar(table.MIN_LEARNING_RATE)}
          max_norm: {table.MAX_NORM}
          tie_embeddings: false
          save_interval: {run.subset.save_interval}
          log_interval: 1

        eval:
          interval: {table.EVAL_INTERVAL}
          max_iters: {table.EVAL_ITERS}
          initial_validation: true
          final_validation: true

        optimizer:
          class_path: torch.optim.AdamW
          init_args:
            lr: {_scalar(table.LEARNING_RATE)}
            weight_decay: {table.WEIGHT_DECAY}
            betas: {list(table.BETAS)}

        logger_name: csv""")


def render_surgery(run: Run) -> str:
    total, inside = parameters(model_of(run))
    papers = {("openllama3b", 13): " (the paper calls it 1.5B)", ("llama2_7b", 7): " (the paper calls it 1.6B)"}
    header = _comment(
        f"The first {run.n_layer} of {run.reference.title}'s {run.reference.n_layer} blocks, with its token embedding, "
        "final norm and LM head."
    )
    commands = [
        (f"litgpt download {run.reference.repository}", _gated(run)),
        (f"inheritune surgery --config recipes/surgery/{run.target}.yaml", ""),
    ]
    size = _comment(
        f"{total:,} parameters, {inside:,} without embeddings and head"
        f"{papers.get((run.reference_key, run.n_layer), '')}."
    )
    body = f'source_dir: {run.reference.folder}\nlayers: "{run.n_layer}"\nout_dir: checkpoints/{run.target}\n'
    return f"{header}\n#\n{_commands(commands)}\n#\n{size}\n{body}"


def render_readme(folder: Path) -> str:
    """recipes/README.md: its text from the page beside this module, its table from the recipes in `folder`."""
    lines = [
        "| recipe | model | start | parameters | tokens | steps | reproduces | result |",
        "|---|---|---|---|---|---|---|---|",
        *map(_readme_row, rows(folder)),
    ]
    page = (Path(__file__).parent / "readme.md").read_text(encoding="utf-8")
    return page.replace("{TABLE}\n", "\n".join(lines) + "\n")


def _readme_row(row: Row) -> str:
    cells = [
        f"`{row.name}`",
        f"{row.reference} → {row.n_layer}",
        row.start,
        f"{row.parameters / 1e9:.3f}B",
        _power(row.tokens),
        f"{row.steps:,}",
        row.reproduces,
        row.result,
    ]
    return f"| {' | '.join(cells)} |"


def _comment(*paragraphs: str) -> str:
    return "\n".join(
        textwrap.fill(text, 120, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        for text in paragraphs
    )


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.1e}" if isinstance(value, float) and 0 < value < 0.01 else str(value)


def _power(number: float) -> str:
    """8000000000 → 8×10⁹; three digits at most, trailing zeros left out."""
    digits, exponent = f"{number:.2e}".split("e")
    digits = digits.rstrip("0").rstrip(".")
    raised = str(int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if digits == "1" else f"{digits}×10{raised}"
