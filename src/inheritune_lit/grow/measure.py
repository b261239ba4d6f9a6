"""A model's loss on every window of D_val, one by one, so that two models can be compared on the same windows."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, sha256_file, write_json_whole
from inheritune_lit.checkpoint.folder import WEIGHTS
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.data.manifest import MANIFEST
from inheritune_lit.evaluate import ValidationLoss, all_windows, validation_loss
from inheritune_lit.evaluate.loss import default_device

WINDOWS = "windows.json"


def about(model: str, data: str, max_seq_length: int) -> dict[str, Any]:
    """What losses are of: the weights' fingerprint, the manifest's SHA-256, and T, tokens a window has as input."""
    return {"model": model, "data": data, "max_seq_length": max_seq_length}


def measure(checkpoint: Path, data_path: Path, max_seq_length: int, batch_size: int, path: Path) -> ValidationLoss:
    """The loss on all of D_val, on a GPU if there is one; kept in `path`, and read from there if it is this model's.

    Args:
        checkpoint: litGPT checkpoint folder.
        data_path: What `inheritune prepare` wrote.
        max_seq_length: T, tokens a window has as input.
        batch_size: Windows at a time.
        path: The file of the losses.

    Raises:
        InheritError: the model is too short for T, or its loss is not finite.
    """
    import torch

    from inheritune_lit.checkpoint.model import load_model

    what = about(Weights(checkpoint / WEIGHTS).fingerprint(), sha256_file(data_path / MANIFEST), max_seq_length)
    try:
        return read_losses(path, what)
    except InheritError:  # none there, of another model, or damaged
        pass
    model = load_model(checkpoint).float()
    if max_seq_length > model.max_seq_length:
        raise InheritError(
            f"{checkpoint} takes {model.max_seq_length} tokens, but the recipe's max_seq_length is {max_seq_length}."
        )
    model.to(default_device())
    loss = validation_loss(model, all_windows(data_path, max_seq_length, batch_size))
    del model
    torch.cuda.empty_cache()  # the next training needs all of the GPU, and we live beside it
    if not math.isfinite(loss.mean):
        raise InheritError(
            f"The validation loss of {checkpoint} is {loss.mean}: its training has diverged, or its weights are "
            "damaged. Lower the recipe's learning rate and start over in another out_dir, or give another reference."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = {"mean": loss.mean, "per_window": loss.per_window}
    write_json_whole(path, {"format": 1, "kind": "window_losses", **what, **numbers})
    return loss


def read_losses(path: Path, what: Mapping[str, Any] = {}) -> ValidationLoss:
    """What `measure` has kept.

    Args:
        path: The file of the losses.
        what: What they have to be of, as `about` says it.

    Raises:
        InheritError: there are none, they are of something else, or they are no losses.
    """
    content = read_json(path, "window losses")
    losses = content.get("per_window")
    if not isinstance(losses, list) or not losses or not all(type(x) is float and math.isfinite(x) for x in losses):
        raise InheritError(f"{path} is damaged: expected per_window, a loss in nats for each window.")
    if not what.items() <= content.items():
        raise InheritError(f"The window losses {path} are of another model, or on other data.")
    return ValidationLoss(tuple(losses))
