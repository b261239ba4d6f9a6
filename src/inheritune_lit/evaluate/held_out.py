"""Validation loss of a checkpoint over all held-out tokens of a folder of shards, and per domain."""

import math
from pathlib import Path
from typing import Any

from tqdm import tqdm

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file
from inheritune_lit.checkpoint.folder import load_config
from inheritune_lit.data.manifest import MANIFEST, Manifest
from inheritune_lit.evaluate.loss import ValidationLoss, all_windows, usable_device, validation_loss

FORMAT = 1
LOGITS_BYTES = 2**30  # of a batch, in float32


def domain_windows(manifest: Manifest, max_seq_length: int) -> dict[str, range]:
    """Which windows of the validation stream lie wholly in each domain.

    The stream is the domains one after the other; a window across a border belongs to none, and a domain shorter than
    a window has none.
    """
    windows, start = {}, 0
    for entry in manifest.content["splits"]["val"]:
        end = start + entry["tokens"]
        # window i holds the tokens i·T … i·T + T
        first, last = math.ceil(start / max_seq_length), (end - 1) // max_seq_length
        windows[entry["domain"]] = range(first, max(first, last))
        start = end
    return windows


def held_out_loss(
    checkpoint: Path,
    data_dir: Path,
    *,
    max_seq_length: int | None = None,
    device: str | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """The content of loss.json.

    Args:
        checkpoint: A checkpoint folder, litGPT's or Hugging Face's.
        data_dir: What `inheritune prepare` wrote.
        max_seq_length: T, tokens a window has as input; by default all that the model takes.
        device: cpu, cuda, …; None takes a GPU if there is one.
        batch_size: Windows at a time; by default what keeps the logits below 1 GiB.

    Raises:
        InheritError: there is no such device; the data are not for this model's tokenizer, or have no window of that
            length.
    """
    from inheritune_lit.checkpoint.model import load_model
    from inheritune_lit.data.tokenizer import Tokenizer
    from inheritune_lit.data.tokens import PackedTokens

    device = usable_device(device)
    config = load_config(checkpoint)
    length = max_seq_length or config.block_size
    if length > config.block_size:
        raise InheritError(f"max_seq_length is {length}, {checkpoint} takes {config.block_size} tokens at most.")
    data = PackedTokens(data_dir)
    data.connect(Tokenizer(checkpoint), max_seq_length=length)
    count = data.manifest.splits["val"].windows(length)
    batch_size = batch_size or max(1, LOGITS_BYTES // (4 * length * (config.padded_vocab_size or 1)))
    model = load_model(checkpoint).float().to(device)

    batches = all_windows(data_dir, length, batch_size)
    loss = validation_loss(model, tqdm(batches, "validation loss", math.ceil(count / batch_size), unit="batch"))
    domains = {
        name: ValidationLoss(loss.per_window[numbers.start : numbers.stop])
        for name, numbers in domain_windows(data.manifest, length).items()
        if numbers
    }
    return {
        "format": FORMAT,
        "kind": "validation_loss",
        "data": {"path": str(data_dir), "manifest_sha256": sha256_file(data_dir / MANIFEST)},
        "max_seq_length": length,
        "tokens": len(loss.per_window) * length,
        **_numbers(loss),
        "domains": {name: _numbers(domain) for name, domain in domains.items()},
        "per_window": loss.per_window,  # two models' losses are best compared window by window
    }


def _numbers(loss: ValidationLoss) -> dict[str, Any]:
    return {
        "windows": len(loss.per_window),
        "mean": loss.mean,
        "stderr": None if math.isnan(loss.stderr) else loss.stderr,
        "perplexity": loss.perplexity,
    }
