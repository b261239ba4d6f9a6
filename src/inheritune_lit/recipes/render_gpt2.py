"""The GPT-2 runs as files: headers that say where each number comes from, `litgpt pretrain` and surgery recipes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inheritune_lit.plan.machines import GPUS
from inheritune_lit.recipes import table_gpt2 as table
from inheritune_lit.recipes.body import Settings, commands, comment, power, render_body, stated
from inheritune_lit.recipes.listing import parameters
from inheritune_lit.recipes.table_gpt2 import Reference, Run

if TYPE_CHECKING:
    from litgpt.config import Config

PAPER = '"Pre-training Small Base LMs with Fewer Tokens" (arXiv 2404.08634)'
PAPERS_GPUS = 3  # of a node, A100-40GB


def render_gpt2() -> dict[str, str]:
    """Path in recipes/ → text."""
    texts = {f"{run.name}.yaml": _recipe(run) for run in table.runs()}
    return texts | {f"surgery/{run.target}.yaml": _surgery(run) for run in table.runs() if run.target}


def config_of(reference: Reference, n_layer: int) -> "Config":
    """litGPT's Config of the paper's GPT-2: no biases, attention logits divided by the layer's number too."""
    from litgpt.config import Config

    return Config(
        name=reference.model_name,
        hf_config={"model_type": "gpt2", "layer_norm_bias": False, "scale_attn_by_inverse_layer_idx": True},
        block_size=table.SEQUENCE,
        n_layer=n_layer,
        n_head=reference.n_head,
        n_embd=reference.n_embd,
        vocab_size=table.VOCABULARY,
        padded_vocab_size=table.PADDED_VOCABULARY,
        norm_class_name="LayerNorm",
        mlp_class_name="GptNeoxMLP",
        gelu_approximate="tanh",
        rotary_percentage=0.0,
        parallel_residual=False,
        bias=False,
    )


def _recipe(run: Run) -> str:
    reference, model = run.reference, stated(config_of(run.reference, run.n_layer))
    target = f"checkpoints/{run.target}" if run.target else None
    settings = Settings(
        initial_checkpoint_dir=target,
        tokenizer_dir=target or table.TOKENIZER,
        out_dir=f"out/{run.name}",
        data_path=reference.corpus.folder,
        epochs=run.epochs,
        max_tokens=run.max_tokens,
        sequence=table.SEQUENCE,
        batch=reference.batch,
        micro_batch=table.MICRO_BATCH,
        warmup_steps=table.WARMUP_STEPS,
        learning_rate=reference.learning_rate,
        min_learning_rate=reference.min_learning_rate,
        save_interval=table.SAVE_INTERVAL,
        eval_iters=table.EVAL_ITERS,
    )
    return f"{_header(run, model)}\n\n{render_body(model, settings)}"


def _header(run: Run, model: Mapping[str, Any]) -> str:
    paragraphs = [_title(run), commands(_steps(run)), _tokens(run), _sources(run), _cost(run, model), _gpus(run)]
    return "\n#\n".join(paragraphs)


def _steps(run: Run) -> list[tuple[str, str]]:
    corpus = run.reference.corpus
    steps = [(f"inheritune prepare --config recipes/data/{corpus.name}.yaml", f"→ {corpus.folder}; see there first")]
    if run.target:
        steps += [
            (f"litgpt pretrain --config recipes/{run.reference_name}.yaml", f"→ out/{run.reference_name}"),
            (f"inheritune surgery --config recipes/surgery/{run.target}.yaml", f"→ checkpoints/{run.target}"),
        ]
    return [*steps, (f"litgpt pretrain --config recipes/{run.name}.yaml", "one GPU, or some of a machine's with FSDP")]


def _title(run: Run) -> str:
    reference, times = run.reference, f"{run.steps:,} steps on {run.reference.corpus.title}"
    if run.is_reference:
        text = (
            f"{reference.title}, all of its {run.n_layer} blocks, from random weights, for {times}: the reference of "
            f"Algorithm 2 of {PAPER}, whose validation loss a shorter model is to reach."
        )
    elif run.random:
        than = ", trained twice as long" if run.steps > table.STEPS else "; nothing else differs but tokenizer_dir"
        text = (
            f"A random start of the shape of {reference.title}'s first {run.n_layer} blocks, for {times}: what "
            f"recipes/{run.inherited_name}.yaml, Algorithm 2 of {PAPER}, is to be compared with{than}."
        )
    else:
        text = f"{reference.title} → its first {run.n_layer} blocks, for {times}: Algorithm 2 of {PAPER}."
    return comment(f"{text} {_published(run)}")


def _published(run: Run) -> str:
    if run.published is None:
        return "The authors have published no such run."
    return (
        f"Reproduces: validation loss {run.published.loss:.4f} after the last step (the authors' {run.published.log})."
    )


def _tokens(run: Run) -> str:
    batch, corpus = run.reference.batch, run.reference.corpus
    step, epochs = batch * table.SEQUENCE, f"{run.epochs} epoch{'s' * (run.epochs > 1)}"
    return comment(
        f"Tokens: {batch} sequences × {table.SEQUENCE:,} = {step:,} a step; {run.steps:,} × {step:,} = "
        f"{run.max_tokens:,}. {corpus.folder} has about {power(corpus.tokens)}: {epochs} will do."
    )


def _sources(run: Run) -> str:
    reference = run.reference
    batch, rate = reference.batch_source, reference.rate_source
    tokenizer = (
        "tokenizer_dir is a tokenizer alone: litGPT would copy the config.json of another model, with another depth, "
        "into every checkpoint. `inheritune export` makes the right one from model_config."
    )
    return comment(
        f"The paper's: steps, AdamW, betas, cosine, {table.WARMUP_STEPS:,} warm-up steps, weight decay, gradient "
        f"clipping, bf16, evaluation interval. Batch: {batch}. Learning rate and min_lr: {rate}.",
        "Ours, where the paper is silent: bf16-mixed (with bf16-true, AdamW's small steps are rounded away), micro "
        "batch, windows of an evaluation, checkpoint interval, seed.",
        *[tokenizer][run.target is not None :],
        "The head is the token embedding: GPT-2's model here ties them by itself, on many GPUs too, hence "
        "tie_embeddings: false, which is litGPT's own way.",
    )


def _cost(run: Run, model: Mapping[str, Any]) -> str:
    total, inside = parameters(model)
    flops = 6 * total * run.max_tokens
    gpu = GPUS["a100-40"]
    hours = flops / (gpu.peak_tflops * 1e12) / 3600
    called = f" (the paper calls it {run.reference.called})" if run.is_reference else ""
    return comment(
        f"{total:,} parameters{called}, {inside:,} without embeddings.",
        f"Cost: 6 × {total / 1e9:.3f}×10⁹ parameters × {power(run.max_tokens)} tokens = {power(flops)} FLOPs, "
        f"{hours:,.0f} h of an A100's bf16 peak ({gpu.peak_tflops:.0f} TFLOP/s). "
        f"`inheritune plan recipes/{run.name}.yaml` says more.",
    )


def _gpus(run: Run) -> str:
    batch, micro = run.reference.batch, table.MICRO_BATCH
    counts = [n for n in range(1, batch // micro + 1) if batch % (n * micro) == 0]
    listed = ", ".join(map(str, counts))
    text = f"GPUs: {listed}, so that global_batch_size / (devices × num_nodes) is a multiple of micro_batch_size."
    smaller = [n for n in range(1, batch + 1) if batch % n == 0 and n not in counts]
    if smaller:
        text += f" With a smaller micro_batch_size {', '.join(map(str, smaller))} too."
    if batch % PAPERS_GPUS:
        text += (
            f" {batch} sequences do not divide by {PAPERS_GPUS}, the GPUs of the paper's node: litGPT would take "
            f"{batch // PAPERS_GPUS * PAPERS_GPUS}, and not say so."
        )
    return comment(text)


def _surgery(run: Run) -> str:
    reference = run.reference
    total, inside = parameters(stated(config_of(reference, run.n_layer)))
    header = comment(
        f"The first {run.n_layer} of {reference.title}'s {reference.n_layer} blocks, with its token and position "
        f"embeddings and final norm; the reference is our own, trained on {reference.corpus.title}."
    )
    steps = [
        (f"litgpt pretrain --config recipes/{run.reference_name}.yaml", f"→ out/{run.reference_name}"),
        (f"inheritune surgery --config recipes/surgery/{run.target}.yaml", ""),
    ]
    size = comment(f"{total:,} parameters, {inside:,} without embeddings.")
    body = f'source_dir: out/{run.reference_name}/final\nlayers: "{run.n_layer}"\nout_dir: checkpoints/{run.target}\n'
    return f"{header}\n#\n{commands(steps)}\n#\n{size}\n{body}"
