"""`inheritune analyze`: which layers a reference can spare, seen before training is paid for."""

import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import write_json_whole
from inheritune_lit.checkpoint.folder import find_checkpoint
from inheritune_lit.runs.folder import results_dir

if TYPE_CHECKING:
    import torch
    from litgpt.model import GPT

    from inheritune_lit.analyze.measures import Pair, PairLoss
    from inheritune_lit.evaluate import ValidationLoss

FORMAT = 2  # of analysis.json; 1 counted the columns m* otherwise
ATTENTION_SEQUENCES = 8  # eigenvalues of every head's matrix take most of the time


def analyze(
    checkpoint: Path,
    *,
    data: Path,
    out_dir: Path | None = None,
    keep: int | None = None,
    map: bool = False,
    windows: int = 32,
    max_seq_length: int | None = None,
    heads: bool = False,
    device: str = "auto",
) -> None:
    """What a model loses without some of its blocks, and how much each block does: a help for choosing --layers.

    For every n, the validation loss of the first n blocks with the model's own norm and head, not trained any further.
    With --keep or --map also of the first a and last b blocks. Per block the approximate rank and column mass of its
    attention ("lazy layers", arXiv 2404.08634 v2) and how far it turns and lengthens the residual stream. The loss
    before training is a hint, not a promise: what matters is the loss after it.

    Arguments:
        checkpoint: A litGPT checkpoint folder: a reference, what surgery wrote, or a trained model.
        data: Token shards of `inheritune prepare`; their validation split is used.
        out_dir: Where analysis.json, analysis.png and analysis.svg go; CHECKPOINT/analysis if not given.
        keep: Compare all ways to keep this many blocks as first a and last b, and name the best one's --layers.
        map: The same for every number of blocks. About k³/6 block passes a batch for a model of k blocks.
        windows: Validation windows to measure on, evenly spread over the split.
        max_seq_length: Tokens a window has; the model's own context, at most 512, if not given.
        heads: Attention rank and mass of every head in analysis.json, too.
        device: cpu, cuda, cuda:1 …; auto takes a GPU if there is one.
    """
    from inheritune_lit.analyze.figure import draw
    from inheritune_lit.analyze.table import table

    out_dir = Path(out_dir) if out_dir else results_dir(Path(checkpoint), "analysis")
    checkpoint, data = find_checkpoint(Path(checkpoint)), Path(data)
    settings = Settings(data, keep, map, windows, max_seq_length, heads)
    analysis = measure(checkpoint, settings, device)
    out_dir.mkdir(parents=True, exist_ok=True)
    draw(analysis, out_dir)
    write_json_whole(out_dir / "analysis.json", analysis)
    print(table(analysis))
    print(f"\nFigure: {out_dir / 'analysis.png'}; all numbers: {out_dir / 'analysis.json'}")


@dataclass(frozen=True)
class Settings:
    """What to measure, on what."""

    data: Path
    keep: int | None = None
    map: bool = False
    windows: int = 32
    max_seq_length: int | None = None
    heads: bool = False


def measure(checkpoint: Path, settings: Settings, device: str = "auto") -> dict[str, Any]:
    """All that `analyze` finds out, as analysis.json has it.

    Raises:
        InheritError: the checkpoint or the data can't be used, or the settings don't fit them.
    """
    import torch

    from inheritune_lit.analyze.measures import block_passes, block_statistics, pair_losses, pairs_of
    from inheritune_lit.base.precision import in_fast_type
    from inheritune_lit.checkpoint.model import load_model
    from inheritune_lit.checkpoint.receipt import versions
    from inheritune_lit.evaluate.loss import usable_device

    started = time.perf_counter()
    device = usable_device(None if device == "auto" else device)
    model = load_model(checkpoint)
    n_layer = model.config.n_layer
    _check(settings, n_layer, checkpoint)
    batches, length, manifest = _windows(settings, model)
    sizes = _sizes(model)
    model = in_fast_type(model.to(device), device)

    pairs = [(n, 0) for n in range(1, n_layer + 1)]
    kept = range(1, n_layer) if settings.map else [settings.keep] if settings.keep else []
    pairs += [pair for pair in pairs_of(n_layer, kept) if pair not in set(pairs)]
    windows = torch.cat(batches)
    sequences = windows[_spread(ATTENTION_SEQUENCES, len(windows)), None]
    with _progress(block_passes(n_layer, pairs) * len(batches) + n_layer * len(sequences)) as bar:
        losses = pair_losses(model, batches, pairs, bar.update)
        blocks = block_statistics(model, sequences, bar.update)
    return {
        "format": FORMAT,
        "kind": "analysis",
        "model": _identity(checkpoint, model),
        "data": {"path": str(settings.data), "manifest_sha256": manifest},
        "windows": len(windows),
        "max_seq_length": length,
        "attention_sequences": len(sequences),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "depths": _depths(losses, sizes),
        **_choices(losses, n_layer, kept, settings.keep),
        "blocks": [{"block": i, **found.summary(heads=settings.heads)} for i, found in enumerate(blocks)],
        "seconds": round(time.perf_counter() - started, 1),
        "versions": versions(),
    }


def _identity(checkpoint: Path, model: "GPT") -> dict[str, Any]:
    from inheritune_lit.checkpoint.folder import WEIGHTS
    from inheritune_lit.checkpoint.weights import Weights

    config, fingerprint = model.config, Weights(checkpoint / WEIGHTS).fingerprint()
    place = {"name": config.name, "path": str(checkpoint), "fingerprint": fingerprint}
    return {**place, "n_layer": config.n_layer, "n_head": config.n_head}


def _check(settings: Settings, n_layer: int, checkpoint: Path) -> None:
    if settings.keep is not None and not 1 <= settings.keep <= n_layer:
        raise InheritError(f"--keep {settings.keep}: expected 1 to {n_layer}, the blocks that {checkpoint} has.")
    if settings.windows < 2:
        raise InheritError(f"--windows {settings.windows}: expected at least 2, for a standard error.")


def _spread(count: int, total: int) -> list[int]:
    """Up to `count` of the numbers below `total`, evenly spread."""
    count = min(count, total)
    return [i * total // count for i in range(count)]


def _depths(losses: "Mapping[Pair, PairLoss]", sizes: Mapping[int, tuple[int, int]]) -> list[dict[str, Any]]:
    """Of the first n blocks, for every n: their losses and their size."""
    found = []
    for n, (parameters, size) in sizes.items():
        loss = losses[n, 0]
        rescaled = {"loss_rescaled": loss.rescaled.mean if loss.rescaled else None, "scale": loss.scale}
        found.append({"n": n, **_loss(loss.own), **rescaled, "parameters": parameters, "bytes": size})
    return found


def _choices(
    losses: "Mapping[Pair, PairLoss]", n_layer: int, kept: Collection[int], keep: int | None
) -> dict[str, Any]:
    """The ways to keep these numbers of blocks, and the best of those that keep `keep`."""
    rows: dict[Pair, dict[str, Any]] = {
        (a, b): {"first": a, "last": b, "layers": layers_argument(a, b, n_layer), **_loss(loss.own)}
        for (a, b), loss in losses.items()
    }
    best = None
    if keep is not None:
        lowest = min((row for pair, row in rows.items() if sum(pair) == keep), key=lambda row: row["loss"])
        best = {"n": keep, **lowest, "first_n_loss": rows[keep, 0]["loss"]}
    return {"pairs": [row for pair, row in rows.items() if sum(pair) in kept], "keep": best}


def layers_argument(first: int, last: int, n_layer: int) -> str:
    """What `inheritune surgery --layers` takes for the first and last blocks of a model."""
    if last == 0 or first + last == n_layer:
        return str(first + last)
    parts = [(0, first - 1)] * (first > 0) + [(n_layer - last, n_layer - 1)]
    return ",".join(f"{start}-{stop}" for start, stop in parts)


def _loss(loss: "ValidationLoss") -> dict[str, float]:
    return {"loss": loss.mean, "stderr": loss.stderr}


def _sizes(model: "GPT") -> dict[int, tuple[int, int]]:
    """Number of blocks → parameters and bytes of a model of the first n; tied tensors are one in memory."""
    blocks = [list(block.parameters()) for block in model.transformer.h]
    inside = {parameter.data_ptr() for block in blocks for parameter in block}
    tensors = {p.data_ptr(): p for p in model.parameters() if p.data_ptr() not in inside}
    sizes = {}
    for n, block in enumerate(blocks, 1):
        tensors |= {p.data_ptr(): p for p in block}
        sizes[n] = sum(t.numel() for t in tensors.values()), sum(t.nbytes for t in tensors.values())
    return sizes


def _windows(settings: Settings, model: "GPT") -> "tuple[list[torch.Tensor], int, str]":
    """Windows spread evenly over the validation split, in batches of up to 2,048 tokens; their T; the data's hash."""
    from inheritune_lit.base.files import sha256_file
    from inheritune_lit.data.manifest import MANIFEST, Manifest
    from inheritune_lit.data.order import Windows

    length = settings.max_seq_length or min(512, model.config.block_size)
    if length > model.config.block_size:
        raise InheritError(
            f"--max_seq_length {length}: {model.config.name} has positions for {model.config.block_size} tokens."
        )
    manifest = Manifest(settings.data)
    manifest.check_files(("val",))
    split = Windows(manifest, "val", length)
    if len(split) < 2:
        raise InheritError(
            f"The validation split of {settings.data} has {len(split)} windows of {length} tokens, expected at least "
            "2, for a standard error. Pass a smaller --max_seq_length, or prepare more held-out text."
        )
    numbers = iter(_spread(settings.windows, len(split)))
    batches = []
    while batch := list(islice(numbers, max(1, 2048 // length))):
        batches.append(split.__getitems__(batch))
    if batches[0].max() >= model.config.padded_vocab_size:
        raise InheritError(
            f"{settings.data} holds token ids that {model.config.name} does not know: another tokenizer."
        )
    return batches, length, sha256_file(settings.data / MANIFEST)


def _progress(blocks: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=blocks, desc="  blocks run", unit="block", disable=not sys.stderr.isatty() or None)
