"""Numbers that litGPT's parser takes, and its training then divides by, loops on or stops at."""

from typing import Any

from inheritune_lit.base.yaml_document import Document
from inheritune_lit.recipes.check.findings import Finding
from inheritune_lit.recipes.litgpt_settings import PACKED

MOST = 2**62  # above that, litGPT's own arithmetic and torch's sizes overflow
# Dotted key → the least and the most
RANGES = {
    **dict.fromkeys(("devices", "num_nodes", "data.init_args.epochs"), (1, 2**31)),
    **dict.fromkeys(("train.global_batch_size", "train.micro_batch_size", "train.max_seq_length"), (1, MOST)),
    **dict.fromkeys(("train.max_tokens", "train.save_interval", "train.log_interval"), (1, MOST)),
    **dict.fromkeys(("eval.interval", "eval.max_iters"), (1, MOST)),
    **dict.fromkeys(("train.lr_warmup_steps", "train.min_lr", "train.max_norm"), (0, MOST)),
    **dict.fromkeys(("optimizer.init_args.lr", "optimizer.init_args.weight_decay"), (0, MOST)),
    **dict.fromkeys(("seed", "data.init_args.seed"), (0, 2**32 - 1)),
    "data.init_args.num_workers": (0, 2**10),
    "data.init_args.weight": (0, 1),
    "data.init_args.temperature": (0.01, 100),
    "model_config.n_layer": (1, 2**16),
    **{f"model_config.{key}": (1, MOST) for key in ("n_embd", "n_head", "block_size", "padded_vocab_size")},
    **{f"model_config.{key}": (1, MOST) for key in ("n_query_groups", "head_size", "intermediate_size")},
}
FIXES = {
    "train.save_interval": "Write after how many steps to save, or null to save at the end only.",
    "optimizer.init_args.lr": "Write the peak learning rate, such as 3.0e-04.",
    "devices": "Write a number of GPUs, or auto for all of them.",
}


def in_range(key: str, value: Any) -> bool:
    """Whether it is a number that can be counted with."""
    low, high = RANGES[key]
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def check_numbers(document: Document) -> list[Finding]:
    """What lies outside of its range; in what litGPT's parser leaves untyped, what is no number, too."""
    findings = []
    for key, (low, high) in RANGES.items():
        value = document.get(key)
        if value is None or in_range(key, value) or (key == "devices" and value in ("auto", -1)):
            continue
        if key.startswith("data.") and str(document.get("data.class_path")) not in PACKED:
            continue
        text = f"It is {value!r}, expected a number from {low} to {high}."
        fix = FIXES.get(key, f"Write a number from {low} to {high}.")
        findings.append(Finding("error", key, text.replace(f" to {MOST}", " on"), fix.replace(f" to {MOST}", " on")))
    return findings
