"""Batch, budget, schedule, precision, resuming: what litGPT 0.5 refuses, ignores or does otherwise than one thinks."""

from collections.abc import Iterator

from inheritune_lit.base.yaml_document import Document
from inheritune_lit.recipes.check.findings import Finding, error, note, warning
from inheritune_lit.recipes.recipe import Recipe, in_range, train_defaults

ENOUGH = 4096  # no step has more GPUs, no micro-batch that fits more sequences: where the search for a number ends
# What litGPT's pretraining takes from none of them: key → what to do instead
REFUSED = {
    "train.epochs": "Say it in tokens, train.max_tokens; PackedTokens' own data.init_args.epochs only bounds it.",
    "eval.max_new_tokens": "Remove it.",
}


def check_training(recipe: Recipe, devices: int | None, nodes: int | None) -> Iterator[Finding]:
    document = recipe.document
    if not isinstance(document.get("train", {}), dict):
        return  # said already
    yield from _left_out(document)
    yield from _unsupported(recipe)
    yield from _schedule(recipe)
    yield from _batch(recipe, devices, nodes)
    yield from _precision_and_start(document)
    if document.get("train.tie_embeddings") and not recipe.is_gpt2 and recipe.machines(devices, nodes) != (1, 1):
        text = "On more than one GPU, FSDP unties them in silence; on one, litGPT loads one and drops the other."
        yield warning("train.tie_embeddings", text, "Write devices: 1, or tie_embeddings: false.")


def _left_out(document: Document) -> Iterator[Finding]:
    """A partial train block keeps litGPT's defaults for pretraining from nothing."""
    wanted = ("max_tokens", "global_batch_size", "micro_batch_size", "lr_warmup_steps", "min_lr", "max_norm")
    for key in (*wanted, "save_interval", "max_seq_length"):
        if document.states(f"train.{key}") or (key == "lr_warmup_steps" and document.get("train.lr_warmup_fraction")):
            continue
        value = train_defaults()[key]
        text = f"It is left out, and litGPT then takes {value:,}." if value else "It is left out: the whole block_size."
        yield warning(f"train.{key}", text, "Write down what you mean.")
    if not document.states("data"):
        fix = "Name a data module, such as inheritune_lit.data.PackedTokens."
        yield warning("data", "It is left out: litGPT then trains on TinyLlama's data.", fix)
    if document.get("optimizer.init_args.lr") is None:
        text = "No learning rate is given: the optimizer's own default is taken, 0.001 for AdamW."
        fix = "Write class_path, and lr, weight_decay and betas under init_args; litGPT ignores the command line's."
        yield warning("optimizer", text, fix)


def _unsupported(recipe: Recipe) -> Iterator[Finding]:
    document, step = recipe.document, recipe.step_tokens
    for key in ("max_steps", "max_time"):
        if (value := document.get(f"train.{key}")) is not None:
            counted = key == "max_steps" and isinstance(value, int) and step
            fix = f"For {value:,} steps write max_tokens: {value * step}." if counted else "Say it in train.max_tokens."
            text = f"It is {value!r}, and litGPT ignores it: the run ends with max_tokens alone."
            yield error(f"train.{key}", text, fix)
    for key, fix in REFUSED.items():
        if document.get(key) is not None:
            yield error(key, "litGPT's pretraining refuses it.", fix)


def _schedule(recipe: Recipe) -> Iterator[Finding]:
    document, warmup, steps = recipe.document, recipe.count("lr_warmup_steps"), recipe.steps
    if fraction := document.get("train.lr_warmup_fraction"):
        if document.get("train.lr_warmup_steps") or not document.states("train.lr_warmup_steps"):
            by_default = "" if document.states("train.lr_warmup_steps") else ", litGPT's, as it is left out"
            text = f"litGPT refuses it beside lr_warmup_steps ({warmup}{by_default})."
            yield error("train.lr_warmup_fraction", text, "Write lr_warmup_steps: null beside it.")
        if isinstance(fraction, int | float) and not 0 <= fraction <= 1:
            text = f"It is {fraction}, and litGPT refuses what is not a share."
            yield error("train.lr_warmup_fraction", text, "Write a number from 0 to 1.")
    if steps == 0:
        least = f"{recipe.step_tokens:,} tokens of one step"
        text = f"It is {recipe.tokens:,}, less than the {least}: nothing would be trained."
        yield error("train.max_tokens", text, f"Write {recipe.step_tokens} or more.")
    elif steps and warmup and warmup >= steps and not fraction:
        text = f"It is {warmup:,}, and there are only {steps:,} steps: the learning rate would never reach its peak."
        yield error("train.lr_warmup_steps", text, f"Write less, such as {max(1, steps // 50)}.")
    block, longest = recipe.block_size, recipe.count("max_seq_length")
    if block and longest and longest > block:
        text = f"It is {longest:,}, and the model attends to block_size, {block:,}, at most: litGPT refuses it."
        yield error("train.max_seq_length", text, f"Write {block} or less.")
    lr, lowest = document.get("optimizer.init_args.lr"), recipe.number("min_lr")
    if in_range("optimizer.init_args.lr", lr) and lowest is not None and lowest >= lr:
        text = f"It is {lowest:g}, not below the peak, optimizer.init_args.lr {lr:g}: the cosine would rise."
        yield warning("train.min_lr", text, f"Write a tenth of the peak, {lr / 10:g}.")


def _batch(recipe: Recipe, devices: int | None, nodes: int | None) -> Iterator[Finding]:
    """litGPT divides with //: what is left over is not trained on, and nothing says so."""
    batch, micro = recipe.global_batch, recipe.micro_batch
    if not batch or not micro:
        return
    known, nodes = recipe.machines(devices, nodes)
    gpus = (known or 1) * nodes
    each = batch // gpus
    if batch % gpus:
        text = f"{batch} sequences on {gpus} GPUs: litGPT takes {each} on each, {each * gpus} in all."
        fix = f"Choose a multiple of {gpus}, such as {-(-batch // gpus) * gpus}, or another number of GPUs."
        yield error("train.global_batch_size", text, fix)
    elif each % micro:
        text = f"{each} sequences a GPU are {each // micro} micro-batches of {micro}: {each % micro} are left out."
        if each < micro:
            text = f"It is {micro}, more than the {each} sequences that a GPU takes a step: litGPT stops at once."
        fitting = next(m for m in range(min(each, micro, ENOUGH), 0, -1) if each % m == 0)
        yield error("train.micro_batch_size", text, f"Write a divisor of {each}, such as {fitting}.")
    elif known is None:
        possible = range(1, min(batch // micro, ENOUGH) + 1)
        counts = ", ".join(str(n) for n in possible if batch % n == 0 and batch // n % micro == 0)
        text = "litGPT will take all GPUs that it finds."
        yield note("devices", text, f"The batch divides on {counts} GPUs; on others it would shrink.")


def _precision_and_start(document: Document) -> Iterator[Finding]:
    precision = document.get("precision")
    if precision in (None, "bf16-true"):
        text = "It is left out: litGPT chooses by the GPU, so that another machine may train in another precision."
        if precision:
            text = (
                "With bfloat16 weights, AdamW's steps are smaller than the weights' own rounding: most weights, and "
                "all norms, stay where they are."
            )
        yield warning("precision", text, "Write bf16-mixed.")
    resume = document.get("resume")
    if resume and document.get("initial_checkpoint_dir"):
        text = f"It is {resume!r} beside initial_checkpoint_dir, and litGPT refuses the two together."
        yield error("resume", text, "To resume, write initial_checkpoint_dir: null; to begin a run, resume: false.")
    elif resume == "auto":
        text = (
            "litGPT takes the highest step-* of any run below out_dir, whole or not; if there is none, it begins from "
            "random weights and does not say so."
        )
        yield warning("resume", text, "Name the checkpoint: resume: out/…/step-…/lit_model.pth.")
