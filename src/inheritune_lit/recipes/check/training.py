"""Batch, budget, schedule, precision, resuming: what litGPT 0.5 refuses, ignores or does otherwise than one thinks."""

from typing import Any

from inheritune_lit.base.yaml_document import Document
from inheritune_lit.recipes.check.findings import Finding
from inheritune_lit.recipes.check.gpt2 import states_gpt2
from inheritune_lit.recipes.check.numbers import in_range
from inheritune_lit.recipes.recipe import Recipe, train_defaults

ENOUGH = 4096  # no step has more GPUs, no micro-batch that fits more sequences: where the search for a number ends


def check_training(document: Document, devices: int | None, nodes: int | None) -> list[Finding]:
    train = document.get("train")
    if train is not None and not isinstance(train, dict):
        return []  # said already
    findings = _left_out(document)
    findings += _unsupported(document) + _schedule(document) + _batch(document, devices, nodes)
    return findings + _precision(document) + _resume(document) + _tied(document, devices, nodes) + _optimizer(document)


def _left_out(document: Document) -> list[Finding]:
    """A partial train block keeps litGPT's defaults for pretraining from nothing."""
    findings = []
    wanted = ("max_tokens", "global_batch_size", "micro_batch_size", "lr_warmup_steps", "min_lr", "max_norm")
    for key in (*wanted, "save_interval", "max_seq_length"):
        if document.states(f"train.{key}") or (key == "lr_warmup_steps" and document.get("train.lr_warmup_fraction")):
            continue
        value = train_defaults()[key]
        text = f"It is left out, and litGPT then takes {value:,}." if value else "It is left out: the whole block_size."
        findings.append(Finding("warning", f"train.{key}", text, "Write down what you mean."))
    if not document.states("data"):
        text = "It is left out: litGPT then trains on TinyLlama's data."
        findings.append(
            Finding("warning", "data", text, "Name a data module, such as inheritune_lit.data.PackedTokens.")
        )
    return findings


def _unsupported(document: Document) -> list[Finding]:
    findings = []
    for key in ("max_steps", "max_time"):
        if (value := document.get(f"train.{key}")) is not None:
            text = f"It is {value!r}, and litGPT ignores it: the run ends with max_tokens alone."
            findings.append(Finding("error", f"train.{key}", text, _instead(document, key, value)))
    if document.get("train.epochs") is not None:
        text = "litGPT's pretraining refuses it."
        fix = "Say it in tokens, train.max_tokens; PackedTokens' own data.init_args.epochs only bounds it."
        findings.append(Finding("error", "train.epochs", text, fix))
    for key in ("max_tokens", "max_norm"):
        if document.states(f"train.{key}") and document.get(f"train.{key}") is None:
            findings.append(Finding("error", f"train.{key}", "It is null, and litGPT requires it.", "Write a number."))
    if document.get("eval.max_new_tokens") is not None:
        text = "litGPT's pretraining refuses it."
        findings.append(Finding("error", "eval.max_new_tokens", text, "Remove it."))
    return findings


def _instead(document: Document, key: str, value: Any) -> str:
    step = Recipe(document).step_tokens
    if key == "max_steps" and isinstance(value, int) and step:
        return f"For {value:,} steps write max_tokens: {value * step}."
    return "Remove it, and say it in train.max_tokens."


def _schedule(document: Document) -> list[Finding]:
    findings = []
    warmup, fraction = document.get("train.lr_warmup_steps"), document.get("train.lr_warmup_fraction")
    if fraction:
        if warmup or not document.states("train.lr_warmup_steps"):
            stated = warmup or f"{train_defaults()['lr_warmup_steps']}, litGPT's, as it is left out"
            text = f"litGPT refuses it beside lr_warmup_steps ({stated})."
            findings.append(
                Finding("error", "train.lr_warmup_fraction", text, "Write lr_warmup_steps: null beside it.")
            )
        if isinstance(fraction, int | float) and not 0 <= fraction <= 1:
            text = f"It is {fraction}, and litGPT refuses what is not a share."
            findings.append(Finding("error", "train.lr_warmup_fraction", text, "Write a number from 0 to 1."))
    recipe = Recipe(document)
    findings += _steps(recipe)
    block, longest = recipe.block_size, recipe.count("max_seq_length")
    if block and longest and longest > block:
        text = f"It is {longest:,}, and the model attends to block_size, {block:,}, at most: litGPT refuses it."
        findings.append(Finding("error", "train.max_seq_length", text, f"Write {block} or less."))
    lr, lowest = document.get("optimizer.init_args.lr"), recipe.number("min_lr")
    if in_range("optimizer.init_args.lr", lr) and lowest is not None and lowest >= lr:
        text = f"It is {lowest:g}, not below the peak, optimizer.init_args.lr {lr:g}: the cosine would rise."
        findings.append(Finding("warning", "train.min_lr", text, f"Write a tenth of the peak, {lr / 10:g}."))
    return findings


def _steps(recipe: Recipe) -> list[Finding]:
    tokens, steps, warmup = recipe.tokens, recipe.steps, recipe.count("lr_warmup_steps")
    if steps == 0:
        text = f"It is {tokens:,}, less than the {recipe.step_tokens:,} tokens of one step: nothing would be trained."
        return [Finding("error", "train.max_tokens", text, f"Write {recipe.step_tokens} or more.")]
    if steps and warmup and warmup >= steps and not recipe.document.get("train.lr_warmup_fraction"):
        text = f"It is {warmup:,}, and there are only {steps:,} steps: the learning rate would never reach its peak."
        return [Finding("error", "train.lr_warmup_steps", text, f"Write less, such as {max(1, steps // 50)}.")]
    return []


def _batch(document: Document, devices: int | None, nodes: int | None) -> list[Finding]:
    """litGPT divides with //: what is left over is not trained on, and nothing says so."""
    recipe = Recipe(document)
    batch, micro = recipe.global_batch, recipe.micro_batch
    if not batch or not micro:
        return []
    known, nodes = recipe.machines(devices, nodes)
    gpus = (known or 1) * nodes
    if batch % gpus:
        text = f"{batch} sequences on {gpus} GPUs: litGPT takes {batch // gpus} on each, {batch // gpus * gpus} in all."
        fix = f"Choose a multiple of {gpus}, such as {-(-batch // gpus) * gpus}, or another number of GPUs."
        return [Finding("error", "train.global_batch_size", text, fix)]
    if (batch // gpus) % micro:
        each = batch // gpus
        if each < micro:
            text = f"It is {micro}, more than the {each} sequences that a GPU takes a step: litGPT stops at once."
        else:
            text = f"{each} sequences a GPU are {each // micro} micro-batches of {micro}: {each % micro} are left out."
        fitting = next(m for m in range(min(each, micro, ENOUGH), 0, -1) if each % m == 0)
        return [Finding("error", "train.micro_batch_size", text, f"Write a divisor of {each}, such as {fitting}.")]
    if known is None:
        possible = range(1, min(batch // micro, ENOUGH) + 1)
        counts = ", ".join(str(n) for n in possible if batch % n == 0 and batch // n % micro == 0)
        text = "litGPT will take all GPUs that it finds."
        return [Finding("note", "devices", text, f"The batch divides on {counts} GPUs; on others it would shrink.")]
    return []


def _precision(document: Document) -> list[Finding]:
    precision = document.get("precision")
    if precision == "bf16-true":
        text = (
            "With bfloat16 weights, AdamW's steps are smaller than the weights' own rounding: most weights, and all "
            "norms, stay where they are."
        )
        return [Finding("warning", "precision", text, "Write bf16-mixed.")]
    if precision is None:
        text = "It is left out: litGPT chooses by the GPU, so that another machine may train in another precision."
        return [Finding("warning", "precision", text, "Write bf16-mixed.")]
    return []


def _resume(document: Document) -> list[Finding]:
    resume, initial = document.get("resume"), document.get("initial_checkpoint_dir")
    if resume and initial:
        text = f"It is {resume!r} beside initial_checkpoint_dir, and litGPT refuses the two together."
        fix = "To resume a run, write initial_checkpoint_dir: null; to begin one, resume: false."
        return [Finding("error", "resume", text, fix)]
    if resume == "auto":
        text = (
            "litGPT takes the highest step-* of any run below out_dir, whole or not; if there is none, it begins from "
            "random weights and does not say so."
        )
        return [Finding("warning", "resume", text, "Name the checkpoint: resume: out/…/step-…/lit_model.pth.")]
    return []


def _tied(document: Document, devices: int | None, nodes: int | None) -> list[Finding]:
    if not document.get("train.tie_embeddings") or states_gpt2(document):
        return []
    if Recipe(document).machines(devices, nodes) == (1, 1):
        return []
    text = "On more than one GPU, FSDP unties them in silence; on one, litGPT loads one of the two and drops the other."
    return [Finding("warning", "train.tie_embeddings", text, "Write devices: 1, or tie_embeddings: false.")]


def _optimizer(document: Document) -> list[Finding]:
    optimizer = document.get("optimizer")
    if isinstance(optimizer, dict) and document.get("optimizer.init_args.lr") is not None:
        return []
    text = "No learning rate is given: the optimizer's own default is taken, 0.001 for AdamW."
    fix = "Write class_path, and lr, weight_decay and betas under init_args; from the command line litGPT ignores them."
    return [Finding("warning", "optimizer", text, fix)]
