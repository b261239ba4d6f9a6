"""The folder that a run starts from: bare weights, and not what `litgpt pretrain` saves as it goes."""

import pickletools
import zipfile
from pathlib import Path

from inheritune_lit.checkpoint.folder import WEIGHTS
from inheritune_lit.checkpoint.weights import Weights, not_whole
from inheritune_lit.recipes.check.findings import Finding, error


def no_start(key: str, folder: Path) -> list[Finding]:
    """What of a folder litGPT can't start from: no weights, or those of a run, with its optimizer beside them.

    Raises:
        InheritError: the weights are hostile or damaged.
    """
    if not (folder / WEIGHTS).is_file():
        inside = [place for place in (folder / "model", *sorted(folder.iterdir())) if (place / WEIGHTS).is_file()]
        fix = f"Write {inside[0]}." if inside else "Write it again with `inheritune surgery`, or convert it for litGPT."
        return [error(key, f"{folder} holds no {WEIGHTS}.", fix)]
    if not _is_wrapped(folder / WEIGHTS):
        return []
    Weights(folder / WEIGHTS)  # what is hostile or damaged is told as that
    text = f"{folder / WEIGHTS} holds a run's state: model, optimizer and counters. litGPT starts from bare weights."
    fix = f"`inheritune surgery {folder} --layers ::1 --out_dir NEW_DIR` writes these alone."
    step = folder.parent / "weights" / folder.name.removeprefix("step-")  # as --keep_last leaves it
    ended = folder.parent / "model"
    if folder.name != "final" and (step / WEIGHTS).is_file():
        fix = f"Write {step}, a copy of the weights alone; or {fix}"
    elif (ended / WEIGHTS).is_file():
        fix = f"Write {ended}, the weights at the run's end; or {fix}"
    return [error(key, text, fix)]


def _is_wrapped(path: Path) -> bool:
    """Whether a checkpoint file holds `{"model": …}`, as `litgpt pretrain` saves it.

    litGPT itself starts from bare weights only. Tells by the strings of its pickle, of which nothing is run; no torch.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            return any(argument == "model" for _, argument, _ in pickletools.genops(archive.read(name)))
    except Exception as problem:  # whatever a damaged archive or pickle causes; StopIteration without a pickle
        raise not_whole(path, problem, f"{path} is not a whole PyTorch checkpoint ({problem}).") from problem
