"""`inheritune grow --dry_run`: the stages there may be, their sizes, and the disk they take."""

from inheritune_lit.base.text_table import columns
from inheritune_lit.base.units import gib
from inheritune_lit.grow.stages import Settings, parameters, possible, recipe_of
from inheritune_lit.recipes.recipe import Recipe

CHECKPOINTS = 2
"""How many of a training's newest stay while it runs, with keep: final"""
MODEL, CHECKPOINT = 4, 12
"""Bytes a parameter: weights in float32; a checkpoint of litGPT's, which has AdamW's two states as well"""


def plan(settings: Settings, keep: str) -> str:
    """A table of all stages, if par is not reached before max_layers, and a sentence on the disk."""
    rows, counts, saved = [], [], []
    for stage in possible(settings):
        recipe = recipe_of(settings, stage)
        steps = Recipe.of(recipe).steps or 0
        counts.append(parameters(recipe))
        interval = recipe["train"].get("save_interval")
        saved.append(1 + (steps // interval if interval else 0))
        tokens = recipe["train"]["max_tokens"]
        sizes = (f"{counts[-1]:,}", f"{steps:,}", f"{tokens:,}", gib(CHECKPOINT * counts[-1]), str(saved[-1]))
        rows.append((stage.name, stage.title, str(stage.blocks), *sizes))
    heads = ("stage", "start", "n", "parameters", "steps", "tokens", "checkpoint", "saved")
    return "\n".join([*columns(heads, rows, left=2), "", _disk(counts, saved, keep)])


def _disk(counts: list[int], saved: list[int], keep: str) -> str:
    """Models and starts of all stages, and their checkpoints or those of the largest one."""
    models = 2 * MODEL * sum(counts)
    if keep == "all":
        checkpoints = sum(CHECKPOINT * count * number for count, number in zip(counts, saved, strict=True))
        return f"Disk: at most {gib(models + checkpoints)} in the end (keep: all)."
    # one more than stay while it is written, with copies of their weights beside them
    at_once = max(min(number, CHECKPOINTS + 1) * count for count, number in zip(counts, saved, strict=True))
    return f"Disk: at most {gib(models + (CHECKPOINT + MODEL) * at_once)} at a time (keep: final)."
