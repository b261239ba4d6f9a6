"""growth.json, the ledger: what is done, what it was made from, and why n grew. Rewritten after every stage."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from inheritune_lit.base.differences import differences
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, write_json_whole
from inheritune_lit.checkpoint.receipt import versions
from inheritune_lit.evaluate import ValidationLoss
from inheritune_lit.pretrain.record import identity_of

LEDGER = "growth.json"
FORMAT = 2
State = Literal["new", "begun", "done"]

# What a stage that is done has, and what one that was trained here has besides
RESULTS: dict[str, tuple[type, ...]] = {
    **{"blocks": (int,), "start": (str,), "parents": (dict,), "fingerprint": (str,)},
    **{"validation_loss": (float,), "stderr": (float, NoneType), "per_window": (list,)},
}
TRAINED: dict[str, tuple[type, ...]] = {"parameters": (int,), "steps": (int,), "seconds": (float, int)}


class Ledger:
    """The ledger of one out_dir, on disk after every change.

    Args:
        out_dir: The growth's folder.
        identity: The settings that all stages depend on.

    Raises:
        InheritError: the folder holds a growth of other settings, or something else.
    """

    def __init__(self, out_dir: Path, identity: Mapping[str, Any]) -> None:
        self.path = out_dir / LEDGER
        if self.path.exists():
            self.content = read_json(self.path, "growth's ledger")
            if (self.content.get("format"), self.content.get("kind")) != (FORMAT, "growth"):
                raise InheritError(f"{self.path} is not a ledger of this version (format {FORMAT}). Move it away.")
            if key := _damaged(self.content):
                raise InheritError(
                    f"{self.path} is damaged: {key} is missing, or not what a growth writes. Restore the file."
                )
            _refuse(f"{out_dir} holds a growth of other settings", self.content["settings"], identity)
            return
        self.content = {
            "format": FORMAT,
            "kind": "growth",
            "outcome": None,
            "stages": {},
            "settings": dict(identity),
            "versions": versions(),
        }

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        stages: dict[str, dict[str, Any]] = self.content["stages"]
        return stages

    def begin(self, name: str, what: Mapping[str, Any], recipe: Mapping[str, Any], parents: Mapping[str, str]) -> State:
        """Notes that a stage begins, or goes on; returns what the ledger said of it so far.

        Args:
            name: The stage's.
            what: What to say of it: blocks, start, steps, parameters.
            recipe: Its `litgpt pretrain` recipe.
            parents: What it is made from, by name: fingerprints and hashes.

        Raises:
            InheritError: it was begun with another recipe or other parents.
        """
        now = {**what, "recipe_sha256": digest(identity_of(recipe)), "parents": dict(parents)}
        if name in self.stages:
            before = {key: self.stages[name].get(key) for key in now}
            _refuse(f"The stage {name} in {self.path.parent} was made otherwise", before, now)
            return "done" if self.stages[name]["state"] == "done" else "begun"
        self.stages[name] = {"state": "begun", **now}
        self.write()
        return "new"

    def finish(self, name: str, results: Mapping[str, Any]) -> None:
        self.stages[name] |= {"state": "done", **results}
        self.write()

    def loss(self, name: str) -> ValidationLoss:
        """That of a stage that is done, window by window."""
        return ValidationLoss(tuple(self.stages[name]["per_window"]))

    def decide(self, name: str, decision: Mapping[str, Any]) -> None:
        self.stages[name]["decision"] = dict(decision)
        self.write()

    def conclude(self, outcome: str) -> None:
        self.content["outcome"] = outcome
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json_whole(self.path, self.content)


def _damaged(content: Mapping[str, Any]) -> str | None:
    """The first key without which the ledger can't be gone on with; None if it is whole."""
    for key in ("settings", "stages"):
        if not isinstance(content.get(key), dict):
            return key
    for name, stage in content["stages"].items():
        if not isinstance(stage, dict) or stage.get("state") not in ("begun", "done"):
            return f"stages.{name}.state"
        needed = RESULTS if stage.get("start") == "given" else RESULTS | TRAINED
        for key, kinds in needed.items() if stage["state"] == "done" else ():
            value = stage.get(key, ...)  # null is a value
            if type(value) not in kinds or (type(value) is float and not math.isfinite(value)):
                return f"stages.{name}.{key}"
        losses = stage["per_window"] if stage["state"] == "done" else [0.0]
        if not losses or not all(type(loss) is float and math.isfinite(loss) for loss in losses):
            return f"stages.{name}.per_window"
        if not isinstance(stage.get("decision", {}), dict):
            return f"stages.{name}.decision"
    return None


def digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _refuse(problem: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if lines := differences(before, json.loads(json.dumps(now))):  # as JSON has it: lists for tuples
        raise InheritError(
            "\n  ".join([f"{problem}:", *lines])
            + "\nGive what it was made with again, or choose another out_dir: stages of both can't be mixed."
        )
