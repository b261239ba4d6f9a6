"""The low-data runs as files: headers that say where each number comes from, `litgpt pretrain` and surgery recipes."""

from collections.abc import Mapping
from typing import Any

from inheritune_lit.plan.machines import GPUS
from inheritune_lit.recipes import table
from inheritune_lit.recipes.body import Settings, commands, comment, power, render_body, stated
from inheritune_lit.recipes.listing import parameters
from inheritune_lit.recipes.table import Run

STEP_TOKENS = table.BATCH * table.SEQUENCE


def render_low_data() -> dict[str, str]:
    """Path in recipes/ → text."""
    texts = {f"{run.name}.yaml": _recipe(run) for run in table.runs()}
    return texts | {f"surgery/{run.target}.yaml": _surgery(run) for run in table.runs()}


def _model_of(run: Run) -> dict[str, Any]:
    """The model_config block: what surgery writes for the run's target."""
    from litgpt.config import Config

    from inheritune_lit.checkpoint.layers import slice_config

    return stated(slice_config(Config.from_name(run.reference.model_name), range(run.n_layer)))


def _recipe(run: Run) -> str:
    model, target = _model_of(run), f"checkpoints/{run.target}"
    settings = Settings(
        initial_checkpoint_dir=None if run.random else target,
        tokenizer_dir=target,
        out_dir=f"out/{run.name}",
        data_path=run.subset.folder,
        epochs=run.epochs,
        max_tokens=run.max_tokens,
        sequence=table.SEQUENCE,
        batch=table.BATCH,
        micro_batch=run.micro_batch,
        warmup_steps=table.WARMUP_STEPS,
        learning_rate=table.LEARNING_RATE,
        min_learning_rate=table.MIN_LEARNING_RATE,
        save_interval=run.subset.save_interval,
        eval_iters=table.EVAL_ITERS,
    )
    return f"{_header(run, model)}\n\n{render_body(model, settings)}"


def _header(run: Run, model: Mapping[str, Any]) -> str:
    steps = [
        (f"litgpt download {run.reference.repository}", _gated(run)),
        (f"inheritune surgery --config recipes/surgery/{run.target}.yaml", f"→ checkpoints/{run.target}"),
        (f"inheritune prepare --config recipes/data/{run.subset.name}.yaml", f"→ {run.subset.folder}"),
        (f"litgpt pretrain --config recipes/{run.name}.yaml", "one GPU, or all of a machine's with FSDP"),
    ]
    paragraphs = [_title(run), commands(steps), _tokens(run), _sources(run), _cost(run, model), _gpus(run)]
    return "\n#\n".join(paragraphs)


def _title(run: Run) -> str:
    times = f"{_epochs(run)} over a {run.subset.title}-token subset of RedPajama"
    source = '"Pre-training Small Base LMs with Fewer Tokens" (arXiv 2404.08634)'
    if run.random:
        return comment(
            f"A random start of the shape of {run.reference.title}'s first {run.n_layer} blocks, trained for {times}: "
            f"what recipes/{run.name.removesuffix('_random')}.yaml, Algorithm 1 of {source}, is to be compared with; "
            "nothing else differs. The edge of a pruned start shrinks as tokens are added (arXiv 2606.14150)."
        )
    return comment(
        f"{run.reference.title} → its first {run.n_layer} blocks, trained for {times}: Algorithm 1 of {source}. "
        f"Reproduces: {run.reproduces}."
    )


def _epochs(run: Run) -> str:
    return f"{run.epochs} epoch{'s' * (run.epochs > 1)}"


def _gated(run: Run) -> str:
    return "its licence must be accepted first: --access_token" if run.reference_key == "llama2_7b" else ""


def _tokens(run: Run) -> str:
    subset, steps = power(run.subset.tokens), run.max_tokens // STEP_TOKENS
    total = power(run.max_tokens)
    return comment(
        f"Tokens: {table.BATCH} sequences × {table.SEQUENCE:,} = {STEP_TOKENS:,} a step; {_epochs(run)} × {subset} = "
        f"{total} in all; {total} / {STEP_TOKENS:,} = {steps:,} steps.",
        f"The subset must hold at least {subset} tokens, or its {_epochs(run)} end before the budget does, with an "
        f"error that says so. Then lower max_tokens to {run.epochs} × what `inheritune prepare` reported.",
    )


def _sources(run: Run) -> str:
    steps = run.subset.paper_steps
    disagree = (run.epochs == table.MAIN_EPOCHS[run.subset_key]) * (
        f"The paper's {steps:,} steps and its tokens disagree ({steps:,} × {STEP_TOKENS:,} = "
        f"{power(steps * STEP_TOKENS)}); this recipe keeps the tokens."
    )
    random = run.random * (
        "tokenizer_dir is the folder that surgery wrote, for a random start too: litGPT copies config.json from there "
        "into every checkpoint, and the reference's states a depth that evaluation would fill with random blocks."
    )
    return comment(
        f"The paper's: subset and epochs, batch, AdamW, learning rate {table.LEARNING_RATE:.0e}, cosine, "
        f"{table.WARMUP_STEPS:,} warm-up steps, weight decay {table.WEIGHT_DECAY}.",
        "Ours, where the paper is silent: min_lr (a tenth of the peak), betas, gradient clipping, bf16-mixed (with "
        "bf16-true, AdamW's small steps are rounded away), micro batch, evaluation and checkpoint intervals, seed.",
        *filter(None, [disagree, random]),
    )


def _cost(run: Run, model: Mapping[str, Any]) -> str:
    total, inside = parameters(model)
    flops = 6 * total * run.max_tokens
    gpu = GPUS["a6000"]
    hours = flops / (gpu.peak_tflops * 1e12) / 3600
    main = (run.subset_key, run.epochs, run.random) == ("1b", table.MAIN_EPOCHS["1b"], False)
    paper = ': days, not the paper\'s "less than half a day"' if main else ""
    return comment(
        f"{total:,} parameters, {inside:,} without embedding and head.",
        f"Cost: 6 × {total / 1e9:.3f}×10⁹ parameters × {power(run.max_tokens)} tokens = {power(flops)} FLOPs, "
        f"{hours:,.0f} h of an A6000's bf16 peak ({gpu.peak_tflops:.0f} TFLOP/s){paper}. "
        f"`inheritune plan recipes/{run.name}.yaml` says more.",
    )


def _gpus(run: Run) -> str:
    most = table.BATCH // run.micro_batch
    return comment(
        "More GPUs: global_batch_size / (devices × num_nodes) must be a multiple of micro_batch_size: with "
        f"{run.micro_batch}, up to {most} GPUs."
    )


def _surgery(run: Run) -> str:
    total, inside = parameters(_model_of(run))
    papers = {("openllama3b", 13): " (the paper calls it 1.5B)", ("llama2_7b", 7): " (the paper calls it 1.6B)"}
    header = comment(
        f"The first {run.n_layer} of {run.reference.title}'s {run.reference.n_layer} blocks, with its token embedding, "
        "final norm and LM head."
    )
    steps = [
        (f"litgpt download {run.reference.repository}", _gated(run)),
        (f"inheritune surgery --config recipes/surgery/{run.target}.yaml", ""),
    ]
    size = comment(
        f"{total:,} parameters, {inside:,} without embeddings and head"
        f"{papers.get((run.reference_key, run.n_layer), '')}."
    )
    body = f'source_dir: {run.reference.folder}\nlayers: "{run.n_layer}"\nout_dir: checkpoints/{run.target}\n'
    return f"{header}\n#\n{commands(steps)}\n#\n{size}\n{body}"
