"""The demo's end: what came out, as a table and as JSON. It reports what happened, not what should have."""

import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.files import write_json
from inheritune_lit.base.precision import fastest
from inheritune_lit.base.text_table import columns
from inheritune_lit.checkpoint.receipt import versions
from inheritune_lit.report.subjects import read_subjects
from inheritune_lit.report.training import verdicts
from inheritune_lit.runs.folder import read_run

if TYPE_CHECKING:
    from inheritune_lit.demo.stages import Paths

RESULTS = "results.json"


def compare(paths: "Paths") -> None:
    """Evaluates all models on the same frozen windows, and writes what it found.

    Raises:
        InheritError: a model or a log can't be read.
    """
    from inheritune_lit.checkpoint.model import load_model
    from inheritune_lit.evaluate import validation_loss, validation_windows

    runs = {name: read_run(run) for name, run in paths.runs.items()}
    recipe = runs["inherited"].recipe
    batch_size, length = recipe["train"]["micro_batch_size"], recipe["train"]["max_seq_length"]
    windows = validation_windows(paths.tokens, length, batch_size, recipe["eval"]["max_iters"])
    models: dict[str, tuple[str, Path, dict[str, Any]]] = {
        "reference": ("whole reference, not trained here", paths.reference, {})
    }
    names = {start: f"--layers {layers}" for start, layers in paths.kept.items()} | {"random": "random start"}
    for start, run in runs.items():
        if start in paths.targets:
            models[f"{start}_untrained"] = (f"{names[start]}, untrained", paths.targets[start], {})
        models[start] = (f"{names[start]}, trained", run.folder / "final", run.receipt)
    rows, losses = {}, {}
    for name, (label, folder, receipt) in models.items():
        print(f"  validation loss of {folder}", flush=True)
        model = load_model(folder)
        losses[name] = validation_loss(model, windows)
        rows[name] = {
            "label": label,
            "folder": str(folder),
            "blocks": model.config.n_layer,
            # tied weights are one tensor in memory, and count once
            "parameters": sum({p.data_ptr(): p.numel() for p in model.parameters()}.values()),
            "tokens": receipt.get("tokens", 0),
            "seconds": receipt.get("seconds", 0.0),
            "validation_loss": losses[name].mean,
            "standard_error": losses[name].stderr,
            "perplexity": losses[name].perplexity,
            "validation_loss_per_window": losses[name].per_window,
        }
    best, *others = runs
    differences = {f"{best}_minus_{other}": losses[best].minus(losses[other]) for other in others}
    results = {
        "models": rows,
        **{name: {"validation_loss": mean, "standard_error": error} for name, (mean, error) in differences.items()},
        "verdicts": verdicts(read_subjects(list(paths.runs.values()))),
        "settings": {
            "layers": paths.layers,
            "blocks": paths.blocks,
            "steps": paths.steps,
            "windows": sum(len(batch) for batch in windows),
            "tokens_per_window": length,
            "recipes": {name: str(run.folder / "recipe.yaml") for name, run in runs.items()},
        },
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
        | {"precision": fastest().as_json()},
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
    write_json(paths.out_dir / RESULTS, results)


def table(results: dict[str, Any]) -> str:
    """All models side by side, as plain text."""
    heads = ("model", "blocks", "parameters", "tokens", "seconds", "validation loss", "perplexity")
    rows = [
        (
            row["label"],
            str(row["blocks"]),
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['tokens']:,}" if row["tokens"] else "–",
            f"{row['seconds']:.0f}" if row["tokens"] else "–",
            f"{row['validation_loss']:.3f} ± {row['standard_error']:.3f}",
            _short(row["perplexity"]),
        )
        for row in results["models"].values()
    ]
    settings = results["settings"]
    differences = [
        f"{name.replace('_minus_', ' − ')}: {found['validation_loss']:+.3f} ± {found['standard_error']:.3f}"
        for name, found in results.items()
        if "_minus_" in name
    ]
    notes = (
        f"Validation loss in nats per token, ± its standard error, on {settings['windows']} windows of "
        f"{settings['tokens_per_window']} tokens of Hamlet,",
        "which no run here was trained on. SmolLM2 itself may well have been.",
        f"After training, on the same windows: {'; '.join(differences)} nats.",
        f"Trained in {results['machine']['precision']['why']}",
    )
    return "\n".join([*columns(heads, rows), "", *notes])


def _short(perplexity: float) -> str:
    return f"{perplexity:,.0f}" if 100 <= perplexity < 1e6 else f"{perplexity:.3g}"
