"""`inheritune pretrain`: preflight, training, summary."""

import sys
from functools import wraps
from pathlib import Path
from typing import Any

from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.pretrain.bar import Bar
from inheritune_lit.pretrain.launch import train
from inheritune_lit.pretrain.options import Request
from inheritune_lit.pretrain.preflight import preflight
from inheritune_lit.recipes.check.findings import report
from inheritune_lit.runs.folder import MODEL, RUN_RECEIPT, ranks_of, share_of_training


@wraps(Request)
def pretrain(*args: Any, **options: Any) -> None:
    request = Request(*args, **options)
    document = read_document(request.recipe)
    run = Path(request.out_dir or str(document.get("out_dir") or "out/pretrain"))
    findings = preflight(document, run, request)
    print(report(request.recipe, findings, document), flush=True)
    if any(finding.severity == "error" for finding in findings):
        print("\nNothing was started.")
        sys.exit(1)
    if request.dry_run:
        return
    given = {"devices": request.devices, "num_nodes": request.nodes}
    settings = document.content | {name: value for name, value in given.items() if value is not None}
    with Bar(minutes=request.max_minutes_lost, save_interval=document.get("train.save_interval")) as bar:
        receipt = train(settings, run, on_progress=bar, recipe_file=request.recipe, options=request)
    print(summary(run, receipt))


def summary(run: Path, receipt: dict[str, Any]) -> str:
    """What came out, in a few lines."""
    losses = receipt["losses"]
    rate, mfu, hardware = receipt["tokens_per_second"], receipt["mfu"], receipt["hardware"]
    gpus = f"{hardware['world_size']} × {hardware['gpus'][0]}" if hardware["gpus"] else f"{hardware['cores']} CPU cores"
    share = share_of_training(ranks_of(receipt["launches"]))
    notes = {"training": f" ({share})" if share else ""}
    rows = {
        "run": f"{run} ({len(receipt['launches'])} launch{'es' * (len(receipt['launches']) > 1)})",
        "model": f"{run / MODEL}, {receipt['parameters']:,} parameters: for surgery, generation, growth, export",
        "tokens": f"{receipt['tokens']:,} in {receipt['steps']:,} steps, {receipt['seconds'] / 3600:.2f} h",
        "loss": " ".join(
            f"{name} {loss:.3f}{notes.get(name, '')}" for name, loss in losses.items() if loss is not None
        ),
        "speed": ("not known" if rate is None else f"{rate:,.0f} tokens/s on {gpus}")
        + ("" if mfu is None else f", {mfu:.1%} of the peak FLOP/s (MFU)"),
        "receipt": str(run / RUN_RECEIPT),
    }
    return "\n".join(f"{name:<8} {value}" for name, value in rows.items())
