"""`inheritune analyze`: which blocks a reference can spare, seen before training is paid for."""

import sys
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file, write_json
from inheritune_lit.base.folders import refuse_to_replace, staging
from inheritune_lit.checkpoint.folder import find_checkpoint
from inheritune_lit.checkpoint.opening import open_weights
from inheritune_lit.checkpoint.receipt import inputs_of, is_done, write_receipt
from inheritune_lit.data.manifest import MANIFEST, Manifest
from inheritune_lit.runs.folder import results_dir

if TYPE_CHECKING:
    import torch
    from litgpt.model import GPT

    from inheritune_lit.evaluate import ValidationLoss

FORMAT = 4  # of analysis.json; 1 counted the columns m* otherwise, 2 had the loss of a rescaled norm, 3 the best ends
ATTENTION_SEQUENCES = 8  # eigenvalues of every head's matrix take most of the time


def analyze(
    checkpoint: Path,
    *,
    data: Path,
    out_dir: Path | None = None,
    windows: int = 32,
    max_seq_length: int | None = None,
    heads: bool = False,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """What a model loses without some of its blocks, and how much each block does: a help for choosing --layers.

    For every n, the validation loss of the first n blocks with the model's own norm and head, not trained any further.
    Per block the approximate rank and column mass of its attention ("lazy layers", arXiv 2404.08634 v2) and how far it
    turns and lengthens the residual stream. Which blocks to keep, `inheritune choose` finds out. Given again with the
    same checkpoint, data and settings, the command finds its result whole and leaves it.

    Args:
        checkpoint: A checkpoint folder, litGPT's or Hugging Face's: a reference, what surgery wrote, a trained model.
        data: Token shards of `inheritune prepare`; their validation split is used.
        out_dir: The folder for analysis.json, analysis.png and analysis.svg; CHECKPOINT/analysis if not given.
        windows: Validation windows to measure on, evenly spread over the split.
        max_seq_length: Tokens a window has; the model's own context, at most 512, if not given.
        heads: Attention rank and mass of every head in analysis.json, too.
        device: cpu, cuda, cuda:1 …; auto takes a GPU if there is one.
        overwrite: Replace OUT_DIR if it exists.
    """
    from inheritune_lit.analyze.figure import draw
    from inheritune_lit.analyze.table import table

    out_dir = Path(out_dir) if out_dir else results_dir(Path(checkpoint), "analysis")
    checkpoint, data = find_checkpoint(Path(checkpoint)), Path(data)
    settings = Settings(data, windows, max_seq_length, heads)
    inputs = inputs_of(checkpoint, open_weights(checkpoint)[1].fingerprint())
    inputs["manifest"] = sha256_file(data / MANIFEST) if (data / MANIFEST).is_file() else None
    made = {"analysis_format": FORMAT, **asdict(settings), "data": None, "inputs": inputs}
    refuse_to_replace(out_dir, checkpoint, data)
    if not overwrite and is_done(out_dir, "analysis", made):
        return
    with staging(out_dir, overwrite=overwrite) as folder:
        analysis = measure(checkpoint, settings, device)
        draw(analysis, folder)
        write_json(folder / "analysis.json", analysis)
        write_receipt(folder, "analysis", made)
    print(table(analysis))
    print(f"\nFigure: {out_dir / 'analysis.png'}; all numbers: {out_dir / 'analysis.json'}")


@dataclass(frozen=True)
class Settings:
    """What to measure, on what."""

    data: Path
    windows: int = 32
    max_seq_length: int | None = None
    heads: bool = False


def measure(checkpoint: Path, settings: Settings, device: str = "auto") -> dict[str, Any]:
    """All that `analyze` finds out, as analysis.json has it.

    Raises:
        InheritError: the checkpoint or the data can't be used, or the settings don't fit them.
    """
    import torch

    from inheritune_lit.analyze import measures
    from inheritune_lit.base.precision import in_fast_type
    from inheritune_lit.checkpoint.model import load_model
    from inheritune_lit.evaluate.loss import usable_device

    started = time.perf_counter()
    device = usable_device(None if device == "auto" else device)
    model = load_model(checkpoint)
    config, n_layer = model.config, model.config.n_layer
    if settings.windows < 2:
        raise InheritError(f"--windows {settings.windows}: expected at least 2, for a standard error.")
    batches, length = validation_windows(settings.data, settings.windows, settings.max_seq_length, model)
    sizes = _sizes(model)
    model = in_fast_type(model.to(device), device)

    depths = [tuple(range(n)) for n in range(1, n_layer + 1)]
    windows = torch.cat(batches)
    sequences = windows[_spread(ATTENTION_SEQUENCES, len(windows)), None]
    with block_progress(measures.block_passes(n_layer, depths) * len(batches) + n_layer * len(sequences)) as bar:
        losses = measures.choice_losses(model, batches, depths, bar.update)
        blocks = measures.block_statistics(model, sequences, bar.update)
    return {
        "format": FORMAT,
        "kind": "analysis",
        "model": {
            **{"name": config.name, "path": str(checkpoint), "n_layer": n_layer, "n_head": config.n_head},
            "fingerprint": open_weights(checkpoint)[1].fingerprint(),
        },
        "data": {"path": str(settings.data), "manifest_sha256": sha256_file(settings.data / MANIFEST)},
        "windows": len(windows),
        "max_seq_length": length,
        "attention_sequences": len(sequences),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "depths": [{"n": len(chosen), **_loss(losses[chosen]), **sizes[len(chosen)]} for chosen in depths],
        "blocks": [{"block": i, **measures.summary(found, heads=settings.heads)} for i, found in enumerate(blocks)],
        "seconds": round(time.perf_counter() - started, 1),
    }


def _spread(count: int, total: int) -> list[int]:
    """Up to `count` of the numbers below `total`, evenly spread."""
    count = min(count, total)
    return [i * total // count for i in range(count)]


def _loss(loss: "ValidationLoss") -> dict[str, float]:
    return {"loss": loss.mean, "stderr": loss.stderr}


def _sizes(model: "GPT") -> dict[int, dict[str, int]]:
    """Number of blocks → parameters and bytes of a model of the first n; tied tensors are one in memory."""
    blocks = [list(block.parameters()) for block in model.transformer.h]
    inside = {parameter.data_ptr() for block in blocks for parameter in block}
    tensors = {p.data_ptr(): p for p in model.parameters() if p.data_ptr() not in inside}
    sizes = {}
    for n, block in enumerate(blocks, 1):
        tensors |= {p.data_ptr(): p for p in block}
        sizes[n] = {
            "parameters": sum(t.numel() for t in tensors.values()),
            "bytes": sum(t.nbytes for t in tensors.values()),
        }
    return sizes


def validation_windows(
    data: Path, count: int, max_seq_length: int | None, model: "GPT"
) -> "tuple[list[torch.Tensor], int]":
    """Windows (B, T + 1) spread evenly over the validation split, in batches of up to 2,048 tokens; their T.

    Raises:
        InheritError: the split is too short, its tokens are not the model's, or the model has no T positions.
    """
    from inheritune_lit.data.order import Windows

    length = max_seq_length or min(512, model.config.block_size)
    if length > model.config.block_size:
        raise InheritError(
            f"--max_seq_length {length}: {model.config.name} has positions for {model.config.block_size} tokens."
        )
    manifest = Manifest(data)
    manifest.check_files(("val",))
    split = Windows(manifest, "val", length)
    if len(split) < 2:
        raise InheritError(
            f"The validation split of {data} has {len(split)} windows of {length} tokens, expected at least 2, for a "
            "standard error. Pass a smaller --max_seq_length, or prepare more held-out text."
        )
    numbers = iter(_spread(count, len(split)))
    batches = []
    while batch := list(islice(numbers, max(1, 2048 // length))):
        batches.append(split.__getitems__(batch))
    if batches[0].max() >= model.config.padded_vocab_size:
        raise InheritError(f"{data} holds token ids that {model.config.name} does not know: another tokenizer.")
    return batches, length


def block_progress(blocks: int) -> Any:
    """A bar over so many block passes, on a terminal only."""
    from tqdm import tqdm

    return tqdm(total=blocks, desc="  blocks run", unit="block", disable=not sys.stderr.isatty() or None)
