"""The tables on training: the runs, how their recipes differ, their losses, the tokens to reach a loss."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from inheritune_lit import published
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.units import duration
from inheritune_lit.evaluate import ValidationLoss
from inheritune_lit.report.subjects import Subject
from inheritune_lit.report.tables import (
    NOTHING,
    Cell,
    Row,
    Table,
    heads,
    loss_cell,
    setting,
    short_count,
    signed,
)
from inheritune_lit.runs.curves import tokens_to_reach

PLACES = ("out_dir", "initial_checkpoint_dir", "tokenizer_dir")  # where things lie, which the start says better


def runs_table(subjects: Sequence[Subject]) -> Table:
    rows = []
    for subject in subjects:
        receipt, blocks = subject.receipt, subject.blocks
        rate = receipt.get("tokens_per_second")
        mfu = receipt.get("mfu")
        cells = (
            Cell(str(blocks) if blocks else "–"),
            Cell(short_count(receipt.get("parameters"))),
            Cell(short_count(receipt.get("tokens"))),
            Cell(f"{receipt['steps']:,}" if receipt.get("steps") else "–"),
            Cell(duration(receipt["seconds"]) if receipt.get("seconds") else "–"),
            Cell(f"{rate:,.0f}" if rate else "–", f"{mfu:.0%} MFU" if mfu else ""),
            loss_cell(subject.validation[-1][1] if subject.validation else None),
        )
        rows.append(Row(subject.name, cells, subject.start))
    titles = heads("run", "blocks", "parameters", "tokens", "steps", "time", "tokens/s", "validation loss")
    return Table(titles, tuple(rows), ("Validation loss: the last one that training logged, in nats per token.",))


def recipe_differences(subjects: Sequence[Subject]) -> Table | None:
    """The settings in which the recipes differ; None with fewer than two recipes."""
    runs = [subject for subject in subjects if subject.run]
    if len(runs) < 2:
        return None
    recipes = [_flat(subject.run.recipe) for subject in runs if subject.run]
    keys = list(dict.fromkeys(key for recipe in recipes for key in recipe if key not in PLACES))
    rows = []
    for key in keys:
        values = [setting(recipe[key]) if key in recipe else "not stated" for recipe in recipes]
        if len(set(values)) > 1:
            rows.append(Row(key, tuple(map(Cell, values))))
    starts = tuple(Cell(subject.start) for subject in runs)
    same = len(keys) - len(rows)
    note = f"The other {same} settings are the same. Where things lie ({', '.join(PLACES)}) is left out."
    return Table(heads("setting", *(s.name for s in runs)), (Row("start", starts), *rows), (note,), is_text=True)


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def reach_table(subjects: Sequence[Subject]) -> Table | None:
    """Tokens that each run took to the final validation loss of every random start, and the ratio of the two."""
    goals = [s for s in subjects if s.is_random and s.is_finite]
    others = [s for s in subjects if s.validation]
    if not goals or len(others) < 2:
        return None
    titles = [Cell("run")]
    for goal in goals:
        titles += [Cell(f"tokens to {goal.validation[-1][1]:.3f} nats", f"where {goal.name} ends"), Cell("times fewer")]
    rows = [Row(s.name, tuple(cell for goal in goals for cell in _reach_cells(s, goal))) for s in others]
    note = (
        "Tokens after which a run's validation loss first was at that of the random start's end, on straight lines "
        "between validations; times fewer: the random start's tokens divided by these."
    )
    return Table(tuple(titles), tuple(rows), (note,))


def _reach_cells(subject: Subject, goal: Subject) -> tuple[Cell, Cell]:
    tokens, loss = goal.validation[-1]
    reached = tokens if subject is goal else tokens_to_reach(subject.validation, loss)
    if reached is None:
        return Cell("not reached", f"lowest {_lowest(subject):.3f}"), NOTHING
    return Cell(short_count(reached)), Cell(f"{tokens / reached:.2f}×" if reached else "untrained")


def _lowest(subject: Subject) -> float:
    return min((loss for _, loss in subject.validation if math.isfinite(loss)), default=math.nan)


def verdicts(subjects: Sequence[Subject]) -> list[str]:
    """A sentence on each run against each random start with as many blocks, then against each that ended higher."""
    sentences = []
    finite = [s for s in subjects if s.validation and s.is_finite]
    for goal in sorted(finite, key=lambda s: not s.is_random):
        tokens, loss = goal.validation[-1]
        inherited = [s for s in subjects if not s.is_random and s.validation and s.blocks == goal.blocks]
        for subject in (s for s in inherited if goal.is_random or s.validation[-1][1] < loss):
            reached = tokens_to_reach(subject.validation, loss)
            goal_loss = f"the final validation loss of {goal.name} ({loss:.3f} nats)"
            if reached is None:
                sentences.append(f"{subject.name} did not reach {goal_loss}; its lowest is {_lowest(subject):.3f}.")
            elif reached == 0:
                sentences.append(f"{subject.name} was at {goal_loss} before any training.")
            else:
                share = f"{reached / tokens:.0%} of its tokens, {short_count(reached)}"
                sentences.append(f"{subject.name} reached {goal_loss} with {share}.")
    return sentences


def held_out_table(subjects: Sequence[Subject]) -> Table | None:
    """The losses that `inheritune evaluate --loss` measured, and their differences to the random start.

    Raises:
        InheritError: they were measured on different tokens.
    """
    measured = [s for s in subjects if s.loss]
    if not measured:
        return None
    check_same_windows(measured)
    base = next((s for s in measured if s.is_random), measured[0])
    rows = []
    for subject in measured:
        loss = subject.loss or {}
        difference = NOTHING if subject is base else _difference(loss, base.loss or {})
        perplexity = Cell(f"{loss['perplexity']:,.2f}" if loss["perplexity"] < 10_000 else f"{loss['perplexity']:.3g}")
        rows.append(Row(subject.name, (loss_cell(loss["mean"], loss.get("stderr")), perplexity, difference)))
    first = measured[0].loss or {}
    is_paired = all("per_window" in (s.loss or {}) for s in measured)
    notes = (
        f"In nats per token, ± one standard error, on {first['windows']:,} windows of {first['max_seq_length']:,} "
        f"held-out tokens ({first['data']['path']}).",
        "Differences are paired window by window."
        if is_paired
        else "Differences have errors as if the two losses were of different windows, as loss.json has none of single "
        "windows; the true ones are smaller.",
        *(["≈ within two standard errors of it."] if any(cell.marks for row in rows for cell in row.cells) else []),
    )
    titles = heads("model", "held-out loss", "perplexity", f"minus {base.name}")
    return Table(titles, tuple(rows), notes)


def _difference(loss: Mapping[str, Any], base: Mapping[str, Any]) -> Cell:
    if "per_window" in loss and "per_window" in base:
        ours, theirs = (ValidationLoss(tuple(x["per_window"])) for x in (loss, base))
        difference, error = ours.minus(theirs)
    else:
        difference = loss["mean"] - base["mean"]
        error = math.hypot(loss.get("stderr") or math.nan, base.get("stderr") or math.nan)
    mark = "≈" if abs(difference) <= 2 * error else ""
    return Cell(signed(difference, 3), "" if math.isnan(error) else f"± {error:.3f}", marks=mark)


def check_same_windows(measured: Sequence[Subject]) -> None:
    """Raises InheritError unless all held-out losses are of the same windows."""
    first, *others = measured
    for other in others:
        for what, one, another in (
            ("data", *((s.loss or {}).get("data", {}).get("manifest_sha256") for s in (first, other))),
            ("max_seq_length", *((s.loss or {}).get("max_seq_length") for s in (first, other))),
            ("windows", *((s.loss or {}).get("windows") for s in (first, other))),
        ):
            if one != another:
                raise InheritError(
                    f"The held-out losses of {first.name} and {other.name} can't stand in one column: {what} of the "
                    f"first is {one}, of the second {another}. Run `inheritune evaluate --loss` on the same data with "
                    "the same --max_seq_length for both, or report on one of them."
                )


def domains_table(subjects: Sequence[Subject]) -> Table | None:
    """Held-out loss by domain; None where there is one domain only."""
    measured = [s for s in subjects if s.loss]
    names = list(dict.fromkeys(name for s in measured for name in (s.loss or {}).get("domains", {})))
    if len(names) < 2:
        return None
    rows = []
    for subject in measured:
        domains = (subject.loss or {}).get("domains", {})
        found = (domains.get(name, {}) for name in names)
        rows.append(Row(subject.name, tuple(loss_cell(d.get("mean"), d.get("stderr")) for d in found)))
    return Table(heads("model", *names), tuple(rows), ("Held-out loss in nats per token, ± one standard error.",))


def losses_table(subjects: Sequence[Subject], baselines: str) -> tuple[Table, str] | None:
    """Published losses of GPT-2 for runs of GPT-2 to stand beside, and their title."""
    wanted = any(s.is_gpt2 for s in subjects) if baselines == "auto" else "gpt2_losses" in baselines.split(",")
    if not wanted:
        return None
    table = published.losses("gpt2_losses")
    rows = tuple(
        Row(
            f"{run.size}, {run.start}",
            (Cell(str(run.blocks or "–")), Cell(f"{run.steps // 1000}K"), Cell(f"{run.loss:.4f}"), Cell(run.data)),
            is_ours=False,
        )
        for run in table.runs
    )
    ours = tuple(_loss_row(subject) for subject in subjects if subject.validation)
    titles = tuple(map(Cell, ("size and start", "blocks", "steps", "validation loss", "data")))
    notes = (
        f"In nats per token. Published: {table.source}; {table.note}.",
        "Losses on different data can't be compared.",
    )
    return Table(titles, rows + ours, notes), table.title


def _loss_row(subject: Subject) -> Row:
    steps, data = subject.receipt.get("steps"), subject.receipt.get("data") or {}
    cells = (
        Cell(str(subject.blocks or "–")),
        Cell(f"{steps:,}" if steps else "–"),
        Cell(f"{subject.validation[-1][1]:.4f}"),
        Cell(str(data.get("path") or "–")),
    )
    return Row(subject.name, cells, subject.start)
