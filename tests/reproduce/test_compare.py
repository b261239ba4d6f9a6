"""What is compared, how far it may differ, and what a difference is taken for."""

import json
import math
from typing import Any

import pytest

from inheritune_lit.reproduce.bands import MARGIN, MEASURED, band, by_chance, quantile, sources
from inheritune_lit.reproduce.compare import CODES, compare
from inheritune_lit.reproduce.locking import summary

STEPS = ("1", "2", "5", "10", "20", "30")
NUMERICS = {"precision": "32-true", "compiled": False, "ranks": 1, "accumulation": 1, "device": "CPU", "resumed": False}


def allowed(size: float) -> dict[str, Any]:
    return {"measured": "here", "losses": dict.fromkeys(STEPS, size)}


def locked() -> dict[str, Any]:
    exact = {"reference": "r" * 64, "start": "s" * 64, "teacher": None, "tokenizer": "t", "train": "a", "val": "b"}
    return {
        "name": "x",
        "status": "run",
        "exact": exact
        | {"recipe": {"train": "1", "optimizer": "2"}, "batches": ["b1", "b2"], "versions": {"torch": "1"}},
        "first_steps": {
            "untrained": 5.0,
            "losses": {step: 5 - int(step) / 30 for step in STEPS},
            "bands": dict.fromkeys(STEPS, 0.03),
            "repeats": 1,
            "deviation": dict.fromkeys(STEPS, 0.0),
            "numerics": NUMERICS,
            "allowed": {"machine": allowed(1e-4), "precision": allowed(0.01)},
        },
        "whole_run": {
            "runs": 3,
            "validation": {
                "50": {"tokens": 1, "loss": 4.5, "band": 0.1},
                "100": {"tokens": 2, "loss": 4.0, "band": 0.1},
            },
            "domains": {"web": {"mean": 4.1, "stderr": 0.2, "windows": 9}},
            "scores": {"low": {"piqa": {"metric": "acc", "num_fewshot": 0, "value": 0.6, "stderr": 0.01}}},
        },
    }


def found() -> dict[str, Any]:
    """The same run."""
    lock = locked()
    whole = {name: lock["whole_run"][name] for name in ("validation", "domains", "scores")}
    return {"exact": lock["exact"], "first_steps": lock["first_steps"], "whole_run": whole}


def test_the_same_is_the_same() -> None:
    verdict = compare(locked(), found())
    assert (verdict.result, verdict.reasons, CODES[verdict.result]) == ("same", (), 0)
    assert "x: same run" in str(verdict)
    assert json.loads(json.dumps(verdict.as_json()))["result"] == "same"


@pytest.mark.parametrize(
    ("where", "value", "first", "reason"),
    [
        ("exact.recipe.optimizer", "9", "L0 exact", "Another recipe: its optimizer"),
        ("exact.start", "z", "L0 exact", "Another start from the same reference"),
        ("exact.tokenizer", "z", "L0 exact", "Another tokenizer"),
        ("exact.train", "z", "L0 exact", "Other shards with the same tokenizer"),
        ("exact.batches", ["b1", "b3"], "L0 exact", "in another order"),
        ("first_steps.losses.1", 5.1, "L1 first steps", "the forward pass or its targets"),
        ("first_steps.losses.2", 5.1, "L1 first steps", "apart from step 2 on: optimizer or learning rate"),
        ("first_steps.losses.20", 4.0, "L1 first steps", "apart at step 20"),
        ("first_steps.untrained", 5.1, "L1 first steps", "validated otherwise"),
        ("whole_run.validation.100.loss", 4.2, "L2 whole run", "ended elsewhere"),
        ("whole_run.scores.low.piqa.value", 0.65, "L2 whole run", "ended elsewhere"),
    ],
)
def test_what_differs_is_named_with_its_layer(where: str, value: object, first: str, reason: str) -> None:
    own = json.loads(json.dumps(found()))
    *path, last = where.split(".")
    place = own
    for part in path:
        place = place[part]
    assert place[last] != value
    place[last] = value
    verdict = compare(locked(), own)
    assert verdict.result == "differs"
    assert f"What differs first: {first}" in verdict.sentence
    assert reason in " ".join(verdict.reasons)


def test_another_form_of_the_reference_with_an_equal_start_is_noted() -> None:
    own = found()
    own["exact"] = {**own["exact"], "reference": "q", "versions": {"torch": "2"}}
    verdict = compare(locked(), own)
    assert verdict.result == "same"
    assert {row.what for row in verdict.rows if row.result == "noted"} == {"reference", "version of torch"}


def test_what_is_not_known_is_not_the_same() -> None:
    own = found()
    own["exact"] = {**own["exact"], "train": None, "batches": []}
    verdict = compare(locked(), own | {"why": ["Put the text there."]})
    assert (verdict.result, CODES[verdict.result]) == ("unknown", 2)
    assert "Put the text there." in str(verdict)


def test_only_what_was_computed_otherwise_widens_the_band() -> None:
    first, mixed = locked()["first_steps"], {**NUMERICS, "precision": "bf16-mixed"}
    assert band(first, "5", sources(NUMERICS, NUMERICS)) == pytest.approx(MARGIN * 1e-4)
    assert band(first, "5", sources(NUMERICS, mixed)) == pytest.approx(MARGIN * 0.01)
    assert band(first, "5") == pytest.approx(MARGIN * 0.01), "the widest, as the lock shows it"
    own = found()
    own["first_steps"] = {**own["first_steps"], "losses": {step: 5.01 - int(step) / 30 for step in STEPS}}
    assert compare(locked(), own).result == "differs"
    own["first_steps"] |= {"numerics": mixed}
    assert compare(locked(), own).result == "same"
    unmeasured = {**NUMERICS, "resumed": True}
    own["first_steps"] |= {"numerics": unmeasured}
    assert compare(locked(), own).result == "unknown", "nobody measured what a resumed run may differ by"


def test_a_random_start_is_another_one_on_other_devices() -> None:
    lock, own = locked(), found()
    lock["exact"]["start"] = "random"
    own["exact"] = lock["exact"]
    assert compare(lock, own).result == "same"
    own["first_steps"] = {**own["first_steps"], "numerics": {**NUMERICS, "ranks": 2}}
    verdict = compare(lock, own)
    assert verdict.result == "unknown"
    assert "draws a random start's weights otherwise" in str(verdict)


def test_the_band_of_several_runs_is_students() -> None:
    deviation, allowed_ = by_chance([1.0, 1.1, 1.3])
    assert allowed_ == pytest.approx(4.302653 * deviation * math.sqrt(1 + 1 / 3))
    assert quantile(7) == pytest.approx(2.364624)
    first = locked()["first_steps"] | {"repeats": 3, "deviation": dict.fromkeys(STEPS, 0.1)}
    assert band(first, "1", ["machine"]) == pytest.approx(4.302653 * 0.1 * math.sqrt(1 + 1 / 3))


def test_what_was_measured_grows_with_the_steps() -> None:
    assert {"machine", "precision", "compiled", "ranks", "accumulation", "resumed", "device"} == MEASURED.keys()
    for sizes in MEASURED.values():
        assert [*sizes] == [*STEPS]
        assert [*sizes.values()] == sorted(sizes.values())


def test_the_summary_has_every_loss() -> None:
    text = summary(locked())
    assert "30: 4.0000 ± 0.0300" in text
    assert "100 %: 4.0000 ± 0.1000  (3 runs)" in text
