"""A run beside a lock: row by row what was expected and what came, and what the difference probably means."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from inheritune_lit.base.text_table import columns
from inheritune_lit.data.trace import STEPS
from inheritune_lit.reproduce.bands import band, sources

EXACT, FIRST, WHOLE = "L0 exact", "L1 first steps", "L2 whole run"
CODES = {"same": 0, "differs": 1, "unknown": 2}
HEADS = ("layer", "what", "expected", "got", "band", "result")
EQUAL = ("reference", "tokenizer", "start", "teacher", "train", "val")
SIGMAS = 3  # standard errors that scores on the same questions may be apart


@dataclass(frozen=True)
class Row:
    """One thing that was compared."""

    layer: str
    what: str
    expected: Any
    got: Any
    band: float | None
    """Nats that it may differ by; None where it must be equal"""
    result: Literal["same", "differs", "unknown", "noted"]


@dataclass(frozen=True)
class Verdict:
    """All rows, and what follows from them."""

    name: str
    rows: tuple[Row, ...]
    reasons: tuple[str, ...]
    """Why, where something differs or is not known"""

    @property
    def result(self) -> str:
        """same, differs, or unknown: it could not be told."""
        results = {row.result for row in self.rows}
        return "differs" if "differs" in results else "unknown" if "unknown" in results or not results else "same"

    @property
    def sentence(self) -> str:
        """The verdict in a line."""
        failed = sorted({row.layer for row in self.rows if row.result == self.result})
        last = max((row.layer for row in self.rows), default=EXACT)
        return {
            "same": f"{self.name}: same run, as far as compared ({last}).",
            "differs": f"{self.name}: not the same run. What differs first: {failed[0]}." if failed else "",
            "unknown": f"{self.name}: could not tell. What is not known: {', '.join(failed) or 'everything'}.",
        }[self.result]

    @property
    def table(self) -> list[list[str]]:
        """The rows for people, below HEADS."""
        return [[row.layer, row.what, *map(_shown, (row.expected, row.got, row.band)), row.result] for row in self.rows]

    def as_json(self) -> dict[str, Any]:
        return {"kind": "verdict", "result": self.result, "sentence": self.sentence, "table": self.table} | asdict(self)

    def __str__(self) -> str:
        table = columns(HEADS, self.table, left=2)
        return "\n".join([*table, "", *self.reasons, *[""] * bool(self.reasons), self.sentence])


def compare(lock: Mapping[str, Any], found: Mapping[str, Any]) -> Verdict:
    """A run's facts beside a lock's.

    Args:
        lock: As read_lock gives it.
        found: The same keys, as far as they are known: exact, first_steps, whole_run. `why` says of what is not known
            how to come to know it.
    """
    rows = _exact(lock["exact"], found.get("exact") or {})
    if lock["status"] == "not run":
        rows.append(Row(FIRST, "the lock's run: not run", None, None, None, "unknown"))
    elif "first_steps" in found:
        rows += _first_steps(lock["first_steps"], found["first_steps"], lock["exact"]["start"] == "random")
    if "whole_run" in found:
        rows += _whole_run(lock["whole_run"], found["whole_run"])
    return Verdict(lock["name"], tuple(rows), (*reasons(rows), *found.get("why", [])))


def _exact(locked: Mapping[str, Any], found: Mapping[str, Any]) -> list[Row]:
    def row(what: str, expected: Any, got: Any) -> Row:
        equal = "unknown" if got in (None, []) else "same" if expected == got else "differs"
        return Row(EXACT, what, expected, got, None, "noted" if expected in (None, []) else equal)  # type: ignore[arg-type]

    blocks, own = locked["recipe"], found.get("recipe") or {}
    rows = [row(f"recipe: {name}", blocks.get(name), own.get(name)) for name in sorted({*blocks, *own})]
    rows = (
        [Row(EXACT, "recipe", len(blocks), len(own), None, "same")]
        if blocks == own
        else [r for r in rows if r.expected != r.got]
    )
    equal = {name: row(name, locked.get(name), found.get(name)) for name in EQUAL}
    if (equal["start"].result, equal["reference"].result) == ("same", "differs"):  # all that is kept of it is equal
        equal["reference"] = replace(equal["reference"], result="noted")
    rows += equal.values()
    batches, mine = locked["batches"], found.get("batches") or []
    apart = next((i for i, (a, b) in enumerate(zip(batches, mine, strict=False)) if a != b), None)
    if apart is None:
        rows.append(row(f"batches of {len(batches)} steps", batches, mine))
    else:
        rows.append(row(f"batch of step {apart + 1}", batches[apart], mine[apart]))
    for name, version in sorted(locked["versions"].items()):
        if (other := (found.get("versions") or {}).get(name)) not in (None, version):
            rows.append(Row(EXACT, f"version of {name}", version, other, None, "noted"))
    return [r for r in rows if (r.expected, r.got) != (None, None)]


def _first_steps(locked: Mapping[str, Any], found: Mapping[str, Any], is_random: bool) -> list[Row]:
    differing = sources(locked["numerics"], found["numerics"])
    if is_random and {"ranks", "device"} & {*differing}:  # for litGPT draws other weights there
        return [Row(FIRST, "losses from other random weights", None, None, None, "unknown")]
    values = {"untrained": locked["untrained"], **locked["losses"]}
    own = {"untrained": found.get("untrained"), **found["losses"]}
    names = {"untrained": "validation, untrained"} | {str(step): f"loss at step {step}" for step in STEPS}
    rows = [
        _near(FIRST, names[step], values[step], own.get(step), band(locked, step, differing))
        for step in names
        if values.get(step) is not None
    ]
    kinds = ", ".join(f"{name} {found['numerics'].get(name)}" for name in differing if name in found["numerics"])
    return rows + [Row(FIRST, "computed with other", "", kinds, None, "noted")] * bool(kinds)


def _whole_run(locked: Mapping[str, Any], found: Mapping[str, Any]) -> list[Row]:
    rows = []
    for share, expected in locked["validation"].items():
        got = found["validation"].get(share, {}).get("loss")
        rows.append(_near(WHOLE, f"validation at {share} %", expected["loss"], got, expected["band"]))
    for name, expected in locked["domains"].items():
        got = found["domains"].get(name, {}).get("mean")
        rows.append(_near(WHOLE, f"held-out {name}", expected["mean"], got, _final_band(locked)))
    for suite, tasks in locked["scores"].items():
        for task, expected in tasks.items():
            own = found["scores"].get(suite, {}).get(task, {})
            allowed = SIGMAS * ((expected.get("stderr") or 0) ** 2 + (own.get("stderr") or 0) ** 2) ** 0.5
            rows.append(_near(WHOLE, f"{suite}: {task}", expected["value"], own.get("value"), allowed or None))
    return rows


def _final_band(locked: Mapping[str, Any]) -> float | None:
    return (locked["validation"].get("100") or {}).get("band")


def _near(layer: str, what: str, expected: float, got: float | None, allowed: float | None) -> Row:
    if got is None or allowed is None:
        return Row(layer, what, expected, got, allowed, "unknown")
    return Row(layer, what, expected, got, allowed, "same" if abs(got - expected) <= allowed else "differs")


def reasons(rows: Sequence[Row]) -> list[str]:
    """What probably made them differ: the first layer that fails says most."""
    bad = [row.what for row in rows if row.result == "differs"]
    known = {row.what for row in rows if row.result == "same"}
    said = []
    blocks = [what.removeprefix("recipe: ") for what in bad if what.startswith("recipe: ")]
    if blocks:
        said.append(f"Another recipe: its {', '.join(blocks)} is not what the lock was made with.")
    if "reference" in bad and "start" in bad:
        said.append("Another reference: another revision of it, or another type of its weights.")
    elif "start" in bad:
        said.append(
            "Another start from the same reference: other blocks, another start or type, or another seed of it."
        )
    if "tokenizer" in bad:
        said.append("Another tokenizer, or another rule for its BOS: the shards can't be the same.")
    elif {"train", "val"} & {*bad}:
        said.append(
            "Other shards with the same tokenizer: other text, its files dealt or named otherwise, or a document moved."
        )
    elif any(what.startswith("batch") for what in bad):
        said.append("The same shards in another order, or in other windows: data seed, max_seq_length, global batch.")
    first = next((what for what in bad if what.startswith("loss at step")), None)
    exact = not any(row.result != "same" for row in rows if row.layer == EXACT and row.result != "noted")
    if first and exact:
        before = "Same recipe, start and batches; "
        if first == "loss at step 1":
            said.append(
                f"{before}the loss apart at step 1, before any update: the forward pass or its targets are others."
            )
        elif first == "loss at step 2":
            said.append(f"{before}loss at step 1 equal, apart from step 2 on: optimizer or learning rate.")
        else:
            step = first.removeprefix("loss at step ")
            said.append(
                f"{before}equal at first, apart at step {step}: learning rate or its schedule, the optimizer's betas, "
                "clipping, or the weights' type."
            )
    if any(row.what == "losses from other random weights" for row in rows):
        said.append(
            "litGPT draws a random start's weights otherwise on several ranks, and on a GPU: compare on as many CPUs "
            "or GPUs as the lock's run had."
        )
    if "validation, untrained" in bad and "loss at step 1" in known:
        said.append("Trained alike, validated otherwise: other validation windows, or another eval.max_iters.")
    if bad and not first and all(row.layer == WHOLE for row in rows if row.result == "differs"):
        said.append("It began as the same run and ended elsewhere: what only shows later, or another seed's luck.")
    return said


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return f"{len(value)} hashes"
    if isinstance(value, float):
        return f"{value:.5f}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"
    text = str(value)
    return text if len(text) <= 24 else f"{text[:16]}…"
