"""A model's loss on every window of D_val, one by one, so that two models can be compared on the same windows."""

from pathlib import Path

from inheritune_lit.checkpoint import WEIGHTS
from inheritune_lit.commit import InheritError, read_json, sha256_file, write_json_whole
from inheritune_lit.data.manifest import MANIFEST
from inheritune_lit.evaluate import ValidationLoss, all_windows, validation_loss
from inheritune_lit.evaluate.loss import default_device
from inheritune_lit.weights import Weights

WINDOWS = "windows.json"


def measure(checkpoint: Path, data_path: Path, max_seq_length: int, batch_size: int, path: Path) -> ValidationLoss:
    """The loss on all of D_val, on a GPU if there is one; kept in `path`, and read from there if it is this model's.

    Args:
        checkpoint: litGPT checkpoint folder.
        data_path: What `inheritune prepare` wrote.
        max_seq_length: T, tokens a window has as input.
        batch_size: Windows at a time.
        path: The file of the losses.
    """
    import torch

    from inheritune_lit.verify import load_model

    what = {
        "model": Weights(checkpoint / WEIGHTS).fingerprint(),
        "data": sha256_file(data_path / MANIFEST),
        "max_seq_length": max_seq_length,
    }
    if path.is_file() and what.items() <= read_json(path, "window losses").items():
        return read_losses(path)
    model = load_model(checkpoint).float()
    if max_seq_length > model.max_seq_length:
        raise InheritError(
            f"{checkpoint} takes {model.max_seq_length} tokens, but the recipe's max_seq_length is {max_seq_length}."
        )
    model.to(default_device())
    loss = validation_loss(model, all_windows(data_path, max_seq_length, batch_size))
    del model
    torch.cuda.empty_cache()  # the next training needs all of the GPU, and we live beside it
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = {"mean": loss.mean, "perplexity": loss.perplexity, "per_window": loss.per_window}
    write_json_whole(path, {"format": 1, "kind": "window_losses", **what, **numbers})
    return loss


def read_losses(path: Path) -> ValidationLoss:
    return ValidationLoss(tuple(read_json(path, "window losses")["per_window"]))
