"""What another lab needs to tell whether its run is this one, put together from a run and its receipts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from inheritune_lit.base.differences import differences
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.report.subjects import Subject, read_subjects
from inheritune_lit.reproduce import facts
from inheritune_lit.reproduce.bands import ALWAYS, MEASURED, band, by_chance, sources
from inheritune_lit.reproduce.document import lock_of, lock_text
from inheritune_lit.reproduce.inputs import inputs_of_run
from inheritune_lit.runs.folder import RUN_RECIPE, Run

MADE = ("git", "seconds", "tokens_per_second", "mfu", "tokens", "steps")


def write_lock(
    run: Path,
    others: Sequence[Path],
    recipe: Path | None,
    reference: str | None,
    licence: str | None,
    *,
    overwrite: bool,
) -> None:
    """Writes the lock beside a recipe; see `inheritune lock`.

    Raises:
        InheritError: a lock is there already; a run is of another recipe, or has not what it takes.
    """
    path = recipe or run / RUN_RECIPE
    if lock_of(path).exists() and not overwrite:
        raise InheritError(f"{lock_of(path)} exists already. Pass --overwrite to replace it.")
    subject, *more = read_subjects([run, *others])
    main = _run(subject)
    if lines := differences(facts.recipe_hashes(main.recipe), facts.recipe_hashes(read_document(path).content)):
        raise InheritError.listing(
            f"{run} is no run of {path}", lines, "Name the recipe that it ran, or a run of this recipe."
        )
    manifest = Manifest(Path(str(((main.recipe.get("data") or {}).get("init_args") or {}).get("data_path"))))
    content = locked(subject, [*map(_run, more)], manifest)
    content |= {"name": main.name if recipe is None else path.stem}
    content |= {"inputs": inputs_of_run(main, manifest, reference, licence)}
    lock_of(path).write_text(lock_text(content), encoding="utf-8")
    print(f"{summary(content)}\nWrote {lock_of(path)}")


def locked(subject: Subject, others: Sequence[Run], manifest: Manifest) -> dict[str, Any]:
    """What a lock says of a run, and of others of its recipe.

    Raises:
        InheritError: the run made no step; another is of another recipe.
    """
    main = _run(subject)
    exact = facts.exact(main.recipe, main.receipt, manifest)
    losses = facts.first_losses(main)
    if not losses:
        raise InheritError(
            f"{main.folder} has no losses of its first steps: it made none yet, or before this version. Launch it "
            "again."
        )
    same_seeds, other_seeds = [], []
    for other in others:
        if other.recipe.get("seed") == main.recipe.get("seed") and facts.recipe_hashes(other.recipe) == exact["recipe"]:
            same_seeds.append(other)
        elif not (lines := differences(_without_seeds(main.recipe), _without_seeds(other.recipe))):
            other_seeds.append(other)
        else:
            raise InheritError.listing(
                f"{other.folder} is a run of another recipe than {main.folder}", lines, "Name runs of one recipe."
            )
    first = {"untrained": main.receipt.get("validation_loss_untrained"), "losses": losses}
    return {
        "status": "run" if main.finished else "begun",
        "exact": exact,
        "first_steps": first | _spread(main, same_seeds, losses),
        "whole_run": {
            "runs": 1 + len(other_seeds),
            "validation": _validations([main, *other_seeds]),
            "curve": [[tokens, loss] for _, tokens, loss in main.curves["validation"]],
            "domains": facts.domains(subject),
            "scores": facts.scores(subject),
            "source": None,
        },
        "made": {
            "machine": _machine(main.receipt.get("hardware") or {}),
            **{key: main.receipt.get(key) for key in MADE},
        },
    }


def _machine(hardware: Mapping[str, Any]) -> str | None:
    if gpus := hardware.get("gpus"):
        return f"{hardware.get('world_size')} × {gpus[0]}"
    return f"{hardware['cores']} CPU cores" if hardware.get("cores") else None


def _run(subject: Subject) -> Run:
    if subject.run is None:
        raise InheritError(f"{subject.folder} is no run. Name the out_dir of an `inheritune pretrain`.")
    return subject.run


def _without_seeds(settings: Mapping[str, Any]) -> dict[str, str]:
    data = dict(settings.get("data") or {})
    data["init_args"] = {key: value for key, value in (data.get("init_args") or {}).items() if key != "seed"}
    return facts.recipe_hashes({**settings, "data": data, "seed": None})


def _spread(main: Run, runs: Sequence[Run], losses: Mapping[str, float]) -> dict[str, Any]:
    """Repeats and their deviation, what computing otherwise moved, and the bands of a run that computes alike."""
    numerics = facts.numerics(main)
    allowed = {name: {"measured": "benchmarks/reproduce.md", "losses": dict(of)} for name, of in MEASURED.items()}
    repeats, own = [losses], dict[str, dict[str, float]]()
    for other in runs:
        found = facts.first_losses(other)
        kinds = [name for name in sources(numerics, facts.numerics(other)) if name != ALWAYS]
        if not kinds:
            repeats.append(found)
        largest, sizes = 0.0, own.setdefault(kinds[0], {}) if len(kinds) == 1 else {}
        for step in losses:
            largest = max(largest, abs(found.get(step, losses[step]) - losses[step]), sizes.get(step, 0.0))
            sizes[step] = largest
    allowed |= {name: {"measured": "runs of this recipe", "losses": of} for name, of in own.items()}
    deviation = {step: by_chance([found[step] for found in repeats if step in found])[0] for step in losses}
    first = {"repeats": len(repeats), "deviation": deviation, "numerics": numerics, "allowed": allowed}
    return first | {"bands": {step: band(first, step, [ALWAYS]) for step in ("untrained", *losses)}}


def _validations(runs: Sequence[Run]) -> dict[str, Any]:
    found, rows = [facts.validations(run) for run in runs], {}
    for share, first in found[0].items():
        values = [of[share]["loss"] for of in found if share in of]
        luck = by_chance(values)[1] if len(values) > 1 else None
        rows[share] = {"tokens": first["tokens"], "loss": mean(values), "band": luck}
    return rows


def summary(content: Mapping[str, Any]) -> str:
    """What was locked, in a few lines."""

    def shown(loss: float, allowed: float | None) -> str:
        return f"{loss:.4f}" + (f" ± {allowed:.4f}" if allowed is not None else "")

    first, whole = content["first_steps"], content["whole_run"]
    steps = "  ".join(f"{step}: {shown(loss, first['bands'][step])}" for step, loss in first["losses"].items())
    shares = "  ".join(f"{share} %: {shown(of['loss'], of['band'])}" for share, of in whole["validation"].items())
    runs = f"{whole['runs']} run{'s' * (whole['runs'] > 1)}"
    return f"loss at step  {steps}\nvalidation    {shares or 'none'}  ({runs})"
