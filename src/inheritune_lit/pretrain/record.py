"""What a run folder says about itself: the frozen recipe, what the run started from, and where it was launched."""

import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inheritune_lit.base.differences import differences
from inheritune_lit.base.errors import InheritError, InUse
from inheritune_lit.base.files import read_json, sha256_file, write_json_whole
from inheritune_lit.base.folders import locked
from inheritune_lit.checkpoint.folder import RECEIPT, WEIGHTS, checkpoint_folder
from inheritune_lit.checkpoint.opening import open_weights
from inheritune_lit.checkpoint.receipt import versions
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.data.manifest import MANIFEST
from inheritune_lit.pretrain.devices import gpu_names
from inheritune_lit.recipes.recipe import TEACHER, Recipe
from inheritune_lit.runs.folder import FORMAT, LAUNCH, RUN_RECEIPT, RUN_RECIPE, ranks_of

BEFORE = ".before-"  # the folders of runs that --restart set aside
BEGUN = (f".{RUN_RECIPE}", f".{LAUNCH}")  # what a launch leaves that was killed, or had no room, before its record
ORPHAN = 15  # seconds that a training whose launcher was killed may take to die, its data workers last

# What may change from one launch of a run to the next: none of it changes what is trained on, or how. What the folders
# hold is compared, not where they lie.
MAY_CHANGE = (
    *("out_dir", "devices", "num_nodes", "resume", "logger_name", "log", "tokenizer_dir", "initial_checkpoint_dir"),
    *("train.micro_batch_size", "train.save_interval", "train.log_interval"),
    *("data.init_args.data_path", "data.init_args.num_workers", TEACHER),
)


@contextmanager
def run_lock(run: Path, wait: float = ORPHAN) -> Iterator[int]:
    """The run folder's lock, made with it; its descriptor. A training whose launcher was killed may hold it a while.

    Raises:
        InheritError: another launch has it.
    """
    deadline = time.monotonic() + wait
    with ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(locked(run))
                break
            except InUse:
                if time.monotonic() > deadline:
                    raise InheritError(
                        f"{run} is in use: another launch, or a training that one left, is writing it now. Wait for "
                        "it, or stop it."
                    ) from None
            time.sleep(0.2)
        yield lock


def identity_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without what may change from launch to launch."""

    def without(mapping: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {
            key: without(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
            for key, value in mapping.items()
            if f"{prefix}{key}" not in MAY_CHANGE
        }

    return without(recipe, "")


def parents(recipe: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a run comes from: `start`, `data`, and the `teacher` where there is one, by what they hold.

    Args:
        recipe: litGPT's settings.
        before: What an earlier launch recorded; it counts for folders that are not there any more.

    Raises:
        InheritError: the initial checkpoint or the teacher can't be read.
    """
    start: dict[str, Any] = {"fingerprint": "random", "inheritance": None}
    if initial := recipe.get("initial_checkpoint_dir"):
        folder = checkpoint_folder(initial)
        if before and not folder.is_dir():
            start = before["start"]
        else:
            receipt = folder / RECEIPT
            start = {
                "fingerprint": Weights(folder / WEIGHTS).fingerprint(),
                "inheritance": read_json(receipt, "receipt") if receipt.is_file() else None,
            }
    path = ((recipe.get("data") or {}).get("init_args") or {}).get("data_path")
    manifest = Path(str(path)) / MANIFEST if path else None
    digest = sha256_file(manifest) if manifest and manifest.is_file() else None
    found: dict[str, Any] = {"start": start, "data": {"path": str(path) if path else None, "manifest_sha256": digest}}
    if teacher := Recipe.of(recipe).teacher:
        found["teacher"] = before.get("teacher") if before and not teacher.is_dir() else _teacher(teacher)
    return found


def _teacher(folder: Path) -> dict[str, Any]:
    config, weights = open_weights(folder)
    found = {"name": config.name, "n_layer": config.n_layer, "path": str(folder)}
    return {**found, "fingerprint": weights.fingerprint()}


def check_same(run: Path, before: Mapping[str, Any], recipe: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Whether a run folder's recipe and parents are those that are asked for now.

    Raises:
        InheritError: naming each difference.
    """
    lines = differences(identity_of(before["recipe"]), identity_of(recipe))
    for name, old, new in (
        ("start", before["start"]["fingerprint"], now["start"]["fingerprint"]),
        ("data", before["data"]["manifest_sha256"], now["data"]["manifest_sha256"]),
        ("teacher", *((record.get("teacher") or {}).get("fingerprint") for record in (before, now))),
    ):
        if old != new:
            lines.append(f"{name}: {_short(old)} before, {_short(new)} now")
    if lines:
        raise InheritError.listing(
            f"{run} is the run of another recipe, start, data or teacher",
            lines,
            "Choose another out_dir for this one, or pass --restart to start from scratch.",
        )


def check_tied(run: Path, before: Mapping[str, Any], recipe: Mapping[str, Any], devices: int) -> None:
    """Whether a run with tied embeddings can go on: FSDP unties them, and what it saves is of another model.

    Raises:
        InheritError: the run trained on one device and would now on several, or the other way round.
    """
    counts = ranks_of(before["launches"])
    if recipe["train"].get("tie_embeddings") and any((count == 1) != (devices == 1) for count in counts):
        raise InheritError(
            f"{run} has train.tie_embeddings and trained on {counts[-1]} device{'s' * (counts[-1] > 1)}, this would go "
            f"on with {devices}: on more than one FSDP unties the embeddings, which makes another model of it. Go on "
            f"with {'one device' if counts[-1] == 1 else 'more than one'}, or start from scratch with --restart."
        )


def _short(digest: str | None) -> str:
    return f"{digest[:16]}…" if digest and len(digest) > 16 else str(digest)


def environment_of(recipe_file: Path | None) -> dict[str, Any]:
    """Package versions, the commit of the recipe's repository, and the GPUs."""
    return {
        "versions": versions() | {"python": platform.python_version(), "lightning": version("lightning")},
        "git": _commit(recipe_file.resolve().parent) if recipe_file else None,
        "gpus": gpu_names(),
    }


def _commit(folder: Path) -> str | None:
    """The commit that is checked out there, with + if tracked files were changed since."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def read_record(run: Path) -> dict[str, Any] | None:
    """What the next launch of a run is compared with: run.json, or launch.json while it is not finished; None if new.

    Raises:
        InheritError: the record is damaged, or there is none in a folder that holds something else.
    """
    path = next((run / name for name in (RUN_RECEIPT, LAUNCH) if (run / name).is_file()), None)
    if path is None:
        if any(not entry.name.startswith(BEFORE) and entry.name not in BEGUN for entry in run.iterdir()):
            raise InheritError(
                f"{run} holds something that `inheritune pretrain` did not write ({LAUNCH} is missing). Choose another "
                "out_dir, or move it away."
            )
        return None
    record = read_json(path, "run's record")
    whole = all(isinstance(record.get(name), dict) for name in ("recipe", "start", "data")) and isinstance(
        record.get("launches"), list
    )
    if not whole or "fingerprint" not in record["start"] or "manifest_sha256" not in record["data"]:
        raise InheritError(
            f"{path} is damaged: expected the recipe, start, data and launches of a run. Restore it, or start "
            "from scratch with --restart."
        )
    return record


def begin(
    run: Path, recipe: Mapping[str, Any], before: Mapping[str, Any] | None, now: Mapping[str, Any], devices: int
) -> dict[str, Any]:
    """Writes the recipe that the training runs from, and the record of the launch.

    Args:
        run: The run's folder.
        recipe: litGPT's settings.
        before: What earlier launches recorded.
        now: What the run comes from and where it is launched: `parents` and `environment_of`.
        devices: How many take part.

    Returns:
        The record.

    Raises:
        InheritError: the run has tied embeddings, and can't go on with so many devices.
    """
    import yaml

    if before:
        check_tied(run, before, recipe, devices)
    first = before or {"launches": []}
    for launch in first["launches"][-1:]:
        if lines := differences(launch.get("versions", now["versions"]), now["versions"]):
            print(f"Resuming with other software than the launch before: {'; '.join(lines)}.", flush=True)
    record = {**first, "recipe": recipe, **now}
    part = run / f".{RUN_RECIPE}"
    header = "# Frozen by `inheritune pretrain`: what this run is trained from. launch.json says from where.\n"
    part.write_text(header + yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True), encoding="utf-8")
    write_json_whole(run / LAUNCH, {"format": FORMAT, "kind": "launch", **record})
    part.rename(run / RUN_RECIPE)  # after the record: a recipe.yaml without one is the user's, and stays
    return record


def set_aside(run: Path) -> None:
    """Moves all that an earlier run left into a folder inside `run`, for --restart: nothing is deleted."""
    # the highest, not how many there are: the user may have deleted one
    numbers = [int(n) for entry in run.glob(f"{BEFORE}*") if (n := entry.name.removeprefix(BEFORE)).isdecimal()]
    aside = run / f"{BEFORE}{max(numbers, default=0) + 1}"
    entries = [entry for entry in run.iterdir() if not entry.name.startswith(BEFORE)]
    if entries:
        aside.mkdir()
        for entry in entries:
            entry.rename(aside / entry.name)
        print(f"The run that was there is in {aside} now: delete it when you do not want it any more.")
