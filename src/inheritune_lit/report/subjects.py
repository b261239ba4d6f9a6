"""What a report is about: the folders that it is given, read. No torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.recipes.recipe import Recipe
from inheritune_lit.runs.folder import RUN_RECEIPT, RUN_RECIPE, Run, read_run

RANDOM = "random"
NEEDED = {
    "evaluation": ("suite", "tasks"),
    "validation_loss": ("data", "max_seq_length", "windows", "mean", "perplexity"),
}


@dataclass(frozen=True)
class Subject:
    """A run, or a model that was only evaluated: with all that was found beside it."""

    name: str
    folder: Path
    run: Run | None
    """None for a model without a receipt of its training"""
    evaluations: Mapping[str, Mapping[str, Any]]
    """By the name of their suite"""
    loss: Mapping[str, Any] | None
    """evaluation/loss.json"""
    analysis: Mapping[str, Any] | None
    """analysis/analysis.json"""
    figures: tuple[Path, ...]
    """Of analysis/"""
    verdict: Mapping[str, Any] | None = None
    """verdict.json of `inheritune reproduce`"""

    @property
    def receipt(self) -> Mapping[str, Any]:
        return self.run.receipt if self.run else {}

    @property
    def is_random(self) -> bool:
        """Whether the run started from random weights only, and had the labels only: what others are compared with."""
        return self._has_random_weights and not self._taught

    @property
    def start(self) -> str:
        """What the run started from, and its teacher if it had one, in a few words."""
        if self.run is None:
            return "no run on record"
        weights = str(self.run.recipe.get("initial_checkpoint_dir") or "unknown")
        if self._has_random_weights:
            weights = "random"
        elif inheritance := self._inheritance:
            source = (inheritance.get("source") or {}).get("name") or "an unnamed source"
            weights = f"{str(inheritance.get('start') or 'inherit').replace('inherit', 'inherited')} from {source}"
        return weights + self._taught

    @property
    def _has_random_weights(self) -> bool:
        return self._inheritance.get("start") == RANDOM or self._start.get("fingerprint") == RANDOM

    @property
    def _taught(self) -> str:
        recipe = Recipe.of(self.run.recipe if self.run else {})
        if recipe.teacher is None:
            return ""
        name = (self.receipt.get("teacher") or {}).get("name") or recipe.teacher
        return f"; distilled from {name}, weight {recipe.data['weight']}, T {recipe.data.get('temperature', 1.0)}"

    @property
    def blocks(self) -> int | None:
        n_layer = self._model.get("n_layer")
        return int(n_layer) if n_layer else None

    @property
    def is_gpt2(self) -> bool:
        return (self._model.get("hf_config") or {}).get("model_type") == "gpt2"

    @cached_property
    def validation(self) -> list[tuple[int, float]]:
        """(tokens, loss) of the run's own validations"""
        return [(tokens, loss) for _, tokens, loss in self.run.curves["validation"]] if self.run else []

    @property
    def is_finite(self) -> bool:
        """Whether the last of its validations is a number."""
        return bool(self.validation) and math.isfinite(self.validation[-1][1])

    @property
    def device_hours(self) -> tuple[str, float] | None:
        """GPU-hours or hours, and how many the whole run took."""
        seconds, devices = self.receipt.get("seconds"), self.receipt.get("hardware") or {}
        if not seconds:
            return None
        gpus = devices.get("gpus") or []
        count = int(devices.get("world_size") or max(len(gpus), 1))
        return ("GPU-hours", seconds * count / 3600) if gpus else ("hours", seconds / 3600)

    @property
    def _model(self) -> Mapping[str, Any]:
        return (self.run.recipe.get("model_config") or {}) if self.run else {}

    @property
    def _start(self) -> Mapping[str, Any]:
        start = self.receipt.get("start")
        return start if isinstance(start, Mapping) else {}

    @property
    def _inheritance(self) -> Mapping[str, Any]:
        return self._start.get("inheritance") or {}


def read_subjects(folders: Sequence[Path]) -> list[Subject]:
    """Reads the folders, and names them so that no two have one name.

    Raises:
        InheritError: a folder is missing, has neither a run nor an evaluation nor an analysis, or a damaged one.
    """
    subjects = [_read(Path(folder)) for folder in folders]
    paths = [subject.folder.resolve() for subject in subjects]
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise InheritError(f"{', '.join(twice)} is named twice. Name each run once.")
    names = [path.name for path in paths]
    parts = 2
    while len(set(names)) < len(names):  # the same name in different folders: as much of the path as tells them apart
        names = [
            "/".join(path.parts[-parts:]) if names.count(n) > 1 else n for path, n in zip(paths, names, strict=True)
        ]
        parts += 1
    return [replace(subject, name=name) for subject, name in zip(subjects, names, strict=True)]


def _read(folder: Path) -> Subject:
    if not folder.is_dir():
        raise InheritError(
            f"No folder {folder}. Name the out_dir of an `inheritune pretrain`, or a checkpoint with evaluation/."
        )
    # [!.]: not what an evaluation that was killed left half written
    results = [_read_results(path) for path in sorted((folder / "evaluation").glob("[!.]*.json"))]
    evaluations = {str(r["suite"]): r for r in results if r.get("kind") == "evaluation"}
    loss = next((r for r in results if r.get("kind") == "validation_loss"), None)
    figures = sorted((folder / "analysis").glob("*.svg")) or sorted((folder / "analysis").glob("*.png"))
    numbers = folder / "analysis/analysis.json"
    analysis = read_json(numbers, "analysis", ("blocks",)) if numbers.is_file() else None
    run = read_run(folder) if (folder / RUN_RECIPE).is_file() else None
    if run and run.finished:
        read_json(folder / RUN_RECEIPT, "run's receipt", ("tokens",))
    verdict = folder / "verdict.json"
    judged = read_json(verdict, "verdict", ("sentence", "table", "reasons")) if verdict.is_file() else None
    if run is None and not (results or figures or analysis):
        raise InheritError(
            f"{folder} has neither {RUN_RECIPE} nor evaluation/ nor analysis/: there is nothing to report. Name the "
            "out_dir of an `inheritune pretrain`, or a folder that `inheritune evaluate` was run on, as plain "
            "`litgpt pretrain` leaves no record to draw curves from."
        )
    return Subject(folder.name, folder, run, evaluations, loss, analysis, tuple(figures), judged)


def _read_results(path: Path) -> dict[str, Any]:
    kind = str(read_json(path, "evaluation").get("kind"))
    return read_json(path, "evaluation", NEEDED.get(kind, ()))


def is_one_training_loss(subjects: Sequence[Subject]) -> bool:
    """Whether the runs' training losses are of the same part of each batch: litGPT logs that of the first device."""
    return len({count for subject in subjects if subject.run for count in subject.run.ranks}) <= 1


def missing(subjects: Sequence[Subject]) -> list[str]:
    """What the report can't show, and the command that would make it."""
    lines = []
    for subject in subjects:
        run, folder = subject.run, subject.folder
        if run and not run.finished:
            lines.append(f"{subject.name} is not finished: its curves end where it is now.")
        elif run and not subject.validation:
            lines.append(f"{subject.name} has no validation loss in its logs (eval.interval of its recipe).")
        elif subject.validation and not subject.is_finite:
            lines.append(f"{subject.name} ended with a validation loss of {subject.validation[-1][1]}: it diverged.")
        if subject.loss is None:
            lines.append(f"{subject.name}: no loss on held-out tokens: inheritune evaluate {folder} --loss DATA_DIR")
        if not subject.evaluations:
            lines.append(f"{subject.name}: no scores: inheritune evaluate {folder} --suite low_data")
        if subject.analysis is None:
            lines.append(f"{subject.name}: no analysis of its layers: inheritune analyze {folder} --data DATA_DIR")
    if any(s.run for s in subjects) and not any(s.is_random for s in subjects):
        lines.append("No run with a random start is here, which the others would have to be compared with.")
    return lines
