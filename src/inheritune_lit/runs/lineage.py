"""Where a checkpoint comes from, as far as the files around it tell; what they do not tell is None."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inheritune_lit.base.files import read_json, sha256_file
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.checkpoint.folder import RECEIPT, WEIGHTS
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.data.manifest import MANIFEST, Manifest
from inheritune_lit.recipes.recipe import Recipe
from inheritune_lit.runs.folder import HYPERPARAMETERS, RUN_RECEIPT, RUN_RECIPE, run_folder


@dataclass(frozen=True)
class Lineage:
    """What is known of a checkpoint's making."""

    name: str
    """Of the run, or of the checkpoint's folder if it belongs to none"""
    run: Mapping[str, Any] | None
    """The run's receipt, run.json"""
    recipe: Mapping[str, Any] | None
    """The settings that `litgpt pretrain` ran with"""
    steps: int | None
    """Optimizer steps this very checkpoint has seen"""
    start: Mapping[str, Any] | None
    """The receipt of the checkpoint that training began with, or of this one if it was never trained"""
    random: bool
    """Whether training began with random weights"""
    manifest: Manifest | None
    """What it was trained on, if the folder of shards is still there and is the same"""
    evaluations: tuple[Mapping[str, Any], ...]
    """Results of these very weights"""

    @property
    def trained(self) -> bool:
        return self.recipe is not None

    @property
    def tokens(self) -> int | None:
        """Tokens this very checkpoint has seen."""
        step = Recipe.of(self.recipe).step_tokens if self.recipe else None
        return self.steps * step if self.steps is not None and step else None


def read_lineage(checkpoint: Path) -> Lineage:
    """Reads the receipts and settings in a checkpoint's folder and in its run's.

    Raises:
        InheritError: one of them is there and can't be read.
    """
    folder = run_folder(checkpoint)
    run = read_json(folder / RUN_RECEIPT, "run's receipt") if folder and (folder / RUN_RECEIPT).is_file() else None
    recipe = trained_with(checkpoint)
    receipt = read_json(checkpoint / RECEIPT, "receipt") if (checkpoint / RECEIPT).is_file() else None
    start, random = _start(recipe, receipt, run)
    fingerprint = Weights(checkpoint / WEIGHTS).fingerprint()
    # [!.]: not what an evaluation that was killed left half written
    found = {
        path: read_json(path, "results")
        for place in (folder or checkpoint, checkpoint)
        for path in sorted(place.glob("evaluation/[!.]*.json"))
    }
    return Lineage(
        name=(folder or checkpoint.resolve()).name,
        run=run,
        recipe=recipe,
        steps=_steps(checkpoint, recipe, run),
        start=start,
        random=random,
        manifest=_manifest(recipe, run),
        evaluations=tuple(r for r in found.values() if (r.get("model") or {}).get("fingerprint") == fingerprint),
    )


def trained_with(checkpoint: Path) -> dict[str, Any] | None:
    """The settings that a checkpoint was trained with: its run's recipe, or what plain `litgpt pretrain` leaves in it.

    Raises:
        InheritError: they are there and can't be read.
    """
    run = run_folder(checkpoint)
    places = (*([run / RUN_RECIPE] if run else []), checkpoint / HYPERPARAMETERS)
    return next((read_document(path).content for path in places if path.is_file()), None)


def _start(recipe: Any, receipt: Any, run: Any) -> tuple[Mapping[str, Any] | None, bool]:
    if receipt is not None and receipt.get("kind") != "run":
        return receipt, False
    recorded = (receipt or run or {}).get("start")
    if isinstance(recorded, dict):  # what the run wrote down counts, not what lies in that folder today
        return recorded.get("inheritance"), recorded.get("fingerprint") == "random"
    initial = (recipe or {}).get("initial_checkpoint_dir")
    if initial and (Path(initial) / RECEIPT).is_file():
        return read_json(Path(initial) / RECEIPT, "receipt"), False
    return None, recipe is not None and not initial


def _steps(checkpoint: Path, recipe: Any, run: Any) -> int | None:
    name = checkpoint.resolve().name
    step = name.removeprefix("step-")
    if step.isdecimal() and (step != name or run_folder(checkpoint)):  # step-00000008 or, of a run, weights/00000008
        return int(step)
    if run is not None and run.get("steps") is not None:
        return int(run["steps"])
    return Recipe.of(recipe).steps if recipe else None


def _manifest(recipe: Any, run: Any) -> Manifest | None:
    path = (((recipe or {}).get("data") or {}).get("init_args") or {}).get("data_path")
    if not path or not (Path(path) / MANIFEST).is_file():
        return None
    known = (run or {}).get("data")
    known = known.get("manifest_sha256") if isinstance(known, dict) else None
    if known is not None and known != sha256_file(Path(path) / MANIFEST):
        return None  # prepared again since
    return Manifest(Path(path))
