"""A run's folder, read: its recipe, its receipt, and its curves joined across resumes. Imports no torch."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.recipes.recipe import Recipe

RUN_RECEIPT = "run.json"
RUN_RECIPE = "recipe.yaml"
LAUNCH = "launch.json"
LOG = "pretrain.log"
MODEL = "model"
TRACE = "trace"  # the losses of the first steps, a file a rank
WEIGHTS_DIR = "weights"  # bare weights of single steps, each in a folder of the step's number
HYPERPARAMETERS = "hyperparameters.yaml"  # of plain `litgpt pretrain`, in each checkpoint of its run
FORMAT = 1

# Lines of litGPT's
STEP = re.compile(r"iter (\d+) step (\d+) \| loss train: (\S+), val: (\S+) \|")
VALIDATION = re.compile(r"(?:iter \d+: val loss|Final evaluation \| val loss:) ([^\s,]+)")

Curve = list[tuple[int, int, float]]
"""(optimizer step, tokens trained, loss in nats per token), ascending"""


@dataclass(frozen=True)
class Run:
    """A folder that `inheritune pretrain` wrote, finished or not."""

    folder: Path
    recipe: dict[str, Any]
    """As it ran"""
    receipt: dict[str, Any]
    """run.json; while the run is not finished, launch.json, which says how far its launches came"""

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def finished(self) -> bool:
        return self.receipt.get("kind") == "run"

    @property
    def ranks(self) -> tuple[int, ...]:
        """On how many devices its launches trained, ascending: litGPT logs the training loss of the first one alone."""
        launches = self.receipt.get("launches")
        return ranks_of(launches if isinstance(launches, list) else [])

    @property
    def tokens_per_step(self) -> int:
        tokens = Recipe.of(self.recipe).step_tokens
        if tokens is None:
            raise InheritError(
                f"{self.folder / RUN_RECIPE} states neither train.max_seq_length nor model_config.block_size: how many "
                "tokens a step has can't be said."
            )
        return tokens

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """{"training": …, "validation": …} out of litGPT's CSV logs; the untrained model's validation is step 0.

        A resumed run logs into a new file and does some steps again: they replace those of the file before. What is in
        no CSV log, as it was lost or another logger was used, is taken from what litGPT printed, with three digits.

        Raises:
            InheritError: a log is none of litGPT's.
        """
        curves = _read_printed(self.folder / LOG)
        if isinstance(untrained := self.receipt.get("validation_loss_untrained"), float):
            curves["validation"][0] = untrained
        logs = [log for log in self.folder.glob("logs/csv/version_*/metrics.csv") if _version(log) >= 0]
        for log in sorted(logs, key=_version):
            found = _read_log(log, self.recipe["train"]["max_tokens"], self.tokens_per_step)
            first = min((step for points in found.values() for step in points), default=0)
            for name, points in found.items():
                # what was printed says of a validation only that it came after the last step that was logged
                others = {s: loss for s, loss in curves[name].items() if not first <= s <= max(points, default=-1)}
                curves[name] = others | points
        return {
            name: [(step, step * self.tokens_per_step, loss) for step, loss in sorted(points.items())]
            for name, points in curves.items()
        }


def ranks_of(launches: Sequence[Any]) -> tuple[int, ...]:
    """The numbers of devices that a run's launches made steps on, ascending."""
    made = [launch for launch in launches if isinstance(launch, Mapping)]
    counts: list[Any] = [m.get("world_size") for m in made if m.get("to_step") != m.get("from_step")]
    return tuple(sorted({count for count in counts if _is_count(count)}))


def share_of_training(ranks: Sequence[int]) -> str:
    """Which part of each batch litGPT's training loss is of, in words; "" where it is all of it."""
    parts = " or ".join("all" if count == 1 else f"1/{count}" for count in ranks)
    return f"of {parts} of each batch" if max(ranks, default=1) > 1 else ""


def run_folder(checkpoint: Path) -> Path | None:
    """The folder of the run that saved a checkpoint, if one did. A recipe.yaml beside other folders is not theirs.

    Args:
        checkpoint: A checkpoint folder, or a link to one; only model/, final/, step-* and weights/* are a run's.
    """
    for folder in (checkpoint.absolute(), checkpoint.resolve()):
        run = folder.parent
        if run.name == WEIGHTS_DIR and (run.parent / RUN_RECIPE).is_file():
            return run.parent
        is_named = folder.name in (MODEL, "final") or folder.name.startswith("step-")
        signs = (folder.parent / RUN_RECIPE, folder.parent / RUN_RECEIPT, folder / HYPERPARAMETERS)
        if is_named and any(sign.is_file() for sign in signs):
            return folder.parent
    return None


def read_run(folder: Path) -> Run:
    """The run in a folder, finished or not.

    Raises:
        InheritError: it is no folder that `inheritune pretrain` wrote.
    """
    recipe = folder / RUN_RECIPE
    try:
        content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InheritError(
            f"{folder} is no run: can't read {recipe} ({error}). Name the out_dir of an `inheritune pretrain`."
        ) from error
    train = content.get("train") if isinstance(content, Mapping) else None
    if not isinstance(train, Mapping) or not all(
        _is_count(train.get(key)) for key in ("global_batch_size", "max_tokens")
    ):
        raise InheritError(
            f"{recipe} is no recipe: expected litGPT's settings, with train.max_tokens and train.global_batch_size."
        )
    receipt = folder / RUN_RECEIPT if (folder / RUN_RECEIPT).is_file() else folder / LAUNCH
    return Run(folder, dict(content), read_json(receipt, "run's receipt"))


def _read_printed(log: Path) -> dict[str, dict[int, float]]:
    """Optimizer step → loss, as litGPT printed them."""
    points: dict[str, dict[int, float]] = {"training": {}, "validation": {}}
    step = 0
    if log.is_file():
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := STEP.search(line):
                step = int(match[2])
                points["training"][step] = float(match[3])
            elif match := VALIDATION.search(line):
                points["validation"][step] = float(match[1])
    return points


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**63


def _version(log: Path) -> int:
    """3 for `version_3/metrics.csv`; -1 in a folder that Lightning did not name."""
    digits = log.parent.name.removeprefix("version_")
    return int(digits) if digits.isdecimal() else -1


def _read_log(log: Path, max_tokens: int, tokens_per_step: int) -> dict[str, dict[int, float]]:
    """Optimizer step → loss. litGPT's column `step` counts micro-iterations, from 0."""
    points: dict[str, dict[int, float]] = {"training": {}, "validation": {}}
    try:
        rows = _whole_rows(log)
        per_iteration = next((int(row["total_tokens"]) // int(row["iter"]) for row in rows if row["loss"]), None)
        for row in rows:
            if row["loss"]:
                points["training"][int(row["total_tokens"]) // tokens_per_step] = float(row["loss"])
            if row.get("val_loss"):
                # the last validation's row is numbered one higher than the last iteration
                tokens = min((int(row["step"]) + 1) * (per_iteration or tokens_per_step), max_tokens)
                points["validation"][tokens // tokens_per_step] = float(row["val_loss"])
    except (OSError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InheritError(
            f"Can't read the loss curves from {log} ({type(error).__name__}: {error}): expected litGPT's CSV log with "
            "step, iter, loss, total_tokens and val_loss."
        ) from error
    return points


def _whole_rows(log: Path) -> list[dict[str, str]]:
    """The rows but for one that a killed run did not write to its end."""
    with log.open(newline="", encoding="utf-8") as file:
        lines = list(takewhile(lambda line: line.endswith("\n"), file))
    return list(csv.DictReader(lines))


def results_dir(path: Path, what: str) -> Path:
    """Where results about a checkpoint go: beside a run's model, as what is in its folder is copied with it.

    Args:
        path: A run or a checkpoint folder.
        what: The results' folder: evaluation, analysis.
    """
    is_part = path.name in ("model", "final") and (path.parent / RUN_RECIPE).is_file()
    return (path.parent if is_part else path) / what
