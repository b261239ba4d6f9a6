"""`inheritune grow --dry_run`: the stages there may be, their sizes, and the disk they take."""

from inheritune_lit.growth.stages import Settings, parameters, possible, recipe_of, steps
from inheritune_lit.growth.view import columns

MODEL, CHECKPOINT = 4, 12
"""Bytes a parameter: weights in float32; a checkpoint of litGPT's with AdamW's two states as well"""


def plan(settings: Settings, keep: str) -> str:
    """A table of all stages, if par is not reached before max_layers, and a sentence on the disk."""
    rows, sizes = [], []
    for stage in possible(settings):
        recipe = recipe_of(settings, stage)
        count = parameters(recipe)
        saved = 1 + steps(recipe) // interval if (interval := recipe["train"].get("save_interval")) else 1
        start = MODEL * count * (stage.start != "random")
        sizes.append((MODEL * count, CHECKPOINT * count * saved, start))
        rows.append(
            (
                stage.name,
                stage.title,
                str(stage.blocks),
                f"{count:,}",
                f"{steps(recipe):,}",
                f"{recipe['train']['max_tokens']:,}",
                gib(sum(sizes[-1])),
            )
        )
    heads = ("stage", "start", "n", "parameters", "steps", "tokens", "disk")
    return "\n".join([*columns(heads, rows, left=2), "", _disk(sizes, keep)])


def _disk(sizes: list[tuple[int, int, int]], keep: str) -> str:
    """Each of `sizes`: bytes of a stage's model, its checkpoints, its start."""
    if keep == "all":
        return f"Disk: {gib(sum(map(sum, sizes)))} in the end (keep: all)."
    # at the worst all models there are, the largest start, and one stage's checkpoints
    models, checkpoints, starts = zip(*sizes, strict=True)
    return f"Disk: at most {gib(sum(models) + max(checkpoints) + 2 * max(starts))} at a time (keep: final)."


def gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB"
