"""What came out of a growth: the table of its stages, and the curves of their validation losses."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.figure import INK, Line, colours, draw_losses, drawing
from inheritune_lit.base.text_table import columns
from inheritune_lit.base.units import duration
from inheritune_lit.checkpoint.folder import find_checkpoint
from inheritune_lit.grow.ledger import LEDGER
from inheritune_lit.grow.stages import REFERENCE, Settings
from inheritune_lit.runs.folder import read_run

FIGURE = "growth"


def report(settings: Settings, content: Mapping[str, Any]) -> str:
    """Draws the figure, and returns what to print."""
    path = settings.out_dir / FIGURE
    draw(settings, content["stages"], path)
    return f"\n{table(content)}\n\nCurves: {path}.png; all numbers: {settings.out_dir / LEDGER}"


def table(content: Mapping[str, Any]) -> str:
    """The stages side by side and the outcome, from the ledger alone."""
    heads = ("stage", "start", "n", "parameters", "steps", "time", "validation loss", "− reference", "")
    stages = content["stages"]
    benchmark = stages[REFERENCE]["validation_loss"]
    rows = [_row(name, stage, benchmark) for name, stage in stages.items() if stage["state"] == "done"]
    windows = len(stages[REFERENCE]["per_window"])
    note = f"Validation loss in nats per token, ± its standard error, on all {windows:,} windows of the held-out text."
    return "\n".join([*columns(heads, rows, left=2), "", note, content["outcome"] or ""])


def _row(name: str, stage: Mapping[str, Any], benchmark: float) -> tuple[str, ...]:
    error = "" if stage["stderr"] is None else f" ± {stage['stderr']:.4f}"
    decision = stage.get("decision", {})
    given = "parameters" not in stage
    return (
        name,
        stage["start"],
        str(stage["blocks"]),
        "–" if given else f"{stage['parameters'] / 1e6:,.1f} M",
        "–" if given else f"{stage['steps']:,}",
        "–" if given else duration(stage["seconds"]),
        f"{stage['validation_loss']:.4f}{error}",
        "" if name == REFERENCE else f"{stage['validation_loss'] - benchmark:+.4f}",
        {True: "at par", False: "not at par"}.get(decision.get("at_par"), ""),
    )


def draw(settings: Settings, stages: Mapping[str, Mapping[str, Any]], stem: Path) -> None:
    """Validation loss against steps for every stage with a log, with the benchmark as a dashed line."""
    done = {name: stage for name, stage in stages.items() if stage["state"] == "done"}
    depths = [str(stage["blocks"]) for stage in done.values() if "decision" in stage]
    title = f"{' to '.join(dict.fromkeys((depths[0], depths[-1])))} of {settings.blocks} blocks, beside the whole model"
    curves = curves_of(settings, done)
    shade = colours({name: done[name]["start"] == "random" for name in curves if name != REFERENCE}) | {REFERENCE: INK}
    lines = [Line(name, shade[name], curve) for name, curve in curves.items()]
    with drawing(stem, (8, 4.6 + 0.2 * len(lines)), title) as (axes,):
        benchmark = {"the reference's, to be reached": stages[REFERENCE]["validation_loss"]}
        draw_losses(axes, lines, "optimizer steps", benchmark)


def curves_of(settings: Settings, done: Mapping[str, Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """(step, validation loss) of every stage that was trained; of a given reference, if it is a run that has logs."""
    runs = {name: (settings.out_dir / name, stage) for name, stage in done.items() if "steps" in stage}
    if settings.reference_dir is not None:
        with suppress(InheritError):  # a checkpoint alone, or a run whose logs can't be read
            checkpoint = find_checkpoint(settings.reference_dir)
            run = read_run(checkpoint.parent)
            steps = run.recipe["train"]["max_tokens"] // run.tokens_per_step
            if run.curves["validation"] and checkpoint.name in ("model", "final"):  # those of its last step
                runs[REFERENCE] = (run.folder, {**done[REFERENCE], "steps": steps})
    return {name: _curve(folder, stage) for name, (folder, stage) in runs.items()}


def _curve(folder: Path, stage: Mapping[str, Any]) -> list[tuple[int, float]]:
    """litGPT's own validation, which may be on the first windows only, and our loss on all of them at the end."""
    steps = stage["steps"]
    logged = [(step, loss) for step, _, loss in read_run(folder).curves["validation"] if step < steps]
    return [*logged, (steps, stage["validation_loss"])]
