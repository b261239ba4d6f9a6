"""The search: cuts compared untrained, a few of them trained in two rounds, and what that says."""

import shutil
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inheritune_lit.analyze import block_progress, validation_windows
from inheritune_lit.analyze.measures import Blocks, block_passes, choice_losses
from inheritune_lit.base.files import read_json, write_json_whole
from inheritune_lit.base.precision import in_fast_type
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.choose.candidates import Candidate, field, kinds, turns
from inheritune_lit.choose.trial import Trial
from inheritune_lit.evaluate import ValidationLoss, validation_loss
from inheritune_lit.evaluate.loss import usable_device

if TYPE_CHECKING:
    from litgpt.config import Config

UNTRAINED_WINDOWS = 8  # enough to order cuts before training, which is only a hint
Results = dict[Candidate, list[dict[str, Any]]]


def rounds(candidates: int, steps: int) -> list[tuple[int, int]]:
    """How many choices are trained, for how many steps: all for a quarter, the better half for all."""
    return [(candidates, steps // 4), (-(-candidates // 2), steps)]


class Untrained:
    """What is known before any training: every cut that is compared, its kind and its loss, and the whole model's."""

    def __init__(self, trial: Trial, keep: int, windows: int) -> None:
        device = usable_device()
        model = load_model(trial.reference)
        self.config: Config = model.config
        self.held_out, few = (
            validation_windows(trial.data, count, trial.batch.max_seq_length, model)[0]
            for count in (windows, min(windows, UNTRAINED_WINDOWS))
        )
        model = in_fast_type(model.to(device), device)
        depth = self.config.n_layer
        self.kinds = kinds(depth, keep, turns(model, few, depth - keep))
        with block_progress(block_passes(depth, self.kinds) * len(few)) as bar:
            self.losses: dict[Blocks, ValidationLoss] = choice_losses(model, few, self.kinds, bar.update)
        self.whole = validation_loss(model, self.held_out).mean


def search(trial: Trial, keep: int, folder: Path, made: dict[str, Any]) -> dict[str, Any]:
    """All that was found out, as choice.json has it.

    Args:
        trial: What the trainings share.
        keep: Blocks of a cut.
        folder: Where it works; a search that was interrupted there is continued if it was made of the same.
        made: What it is made of, the settings among it.

    Raises:
        InheritError: the data do not fit the reference, or a training failed.
    """
    began = time.perf_counter()
    known = Untrained(trial, keep, made["windows"])
    chosen = field(known.kinds, known.losses, made["candidates"])
    work = folder / "work"
    settings = work / "made.json"
    if not settings.is_file() or read_json(settings, "search") != made:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        write_json_whole(settings, made)
    results, left = _train(trial, chosen, made, work, known)
    shutil.rmtree(work)
    first, second = left[:2]
    ours, theirs = (ValidationLoss(tuple(results[c][-1]["per_window"])) for c in (first, second))
    lead, stderr = theirs.minus(ours)
    config = known.config
    return {
        "kind": "choice",
        "reference": {
            "name": config.name,
            "path": str(trial.reference),
            "n_layer": config.n_layer,
            "loss": known.whole,
        },
        "data": {"path": str(trial.data), "manifest_sha256": made["inputs"]["manifest"]},
        **{key: value for key, value in made.items() if key != "inputs"},
        "untrained": [
            {"kind": kind, "blocks": blocks, "loss": known.losses[blocks].mean, "stderr": known.losses[blocks].stderr}
            for blocks, kind in known.kinds.items()
        ],
        "untrained_windows": min(made["windows"], UNTRAINED_WINDOWS),
        "candidates": [
            {"kind": c.kind, "layers": c.layers, "blocks": c.blocks, "untrained": c.untrained.mean, "rounds": found}
            for c, found in sorted(results.items(), key=lambda item: (-len(item[1]), item[1][-1]["loss"]))
        ],
        "winner": {"layers": first.layers, "lead": lead, "stderr": stderr, "clear": lead > 2 * stderr}
        | {"runner_up": second.layers},
        "trained_tokens": sum(found["tokens"] for found in chain.from_iterable(results.values())),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "seconds": round(time.perf_counter() - began, 1),
    }


def _train(
    trial: Trial, chosen: Sequence[Candidate], made: dict[str, Any], work: Path, known: Untrained
) -> tuple[Results, Sequence[Candidate]]:
    """Each candidate's results, a round after the other; and those of the last round, the best first."""
    results: Results = {candidate: [] for candidate in chosen}
    left = chosen
    for number, steps in rounds(len(chosen), made["steps"]):
        left = left[:number]
        for candidate in left:
            found = trial.run(candidate, steps, work, known.held_out)
            results[candidate].append(found)
            print(f"  --layers {candidate.layers}: {found['loss']:.3f} after {steps} steps", flush=True)
        left = sorted(left, key=lambda candidate: results[candidate][-1]["loss"])
    return results, left
