"""`inheritune pretrain`: preflight, training, summary."""

import shlex
import sys
from pathlib import Path
from typing import Any, Literal

from inheritune_lit.base.errors import InheritError
from inheritune_lit.pretrain.bar import Bar
from inheritune_lit.pretrain.launch import Options
from inheritune_lit.pretrain.preflight import preflight
from inheritune_lit.pretrain.request import Request
from inheritune_lit.pretrain.training import train
from inheritune_lit.runs.folder import MODEL, RUN_RECEIPT, ranks_of, share_of_training


def pretrain(
    recipe: Path,
    *,
    out_dir: Path | None = None,
    dry_run: bool = False,
    restart: bool = False,
    verify: Literal["sizes", "full"] = "sizes",
    devices: int | None = None,
    nodes: int | None = None,
    keep_last: int | None = None,
    keep_every: int | None = None,
    max_spike: float = 3.0,
    max_minutes_lost: float = 30.0,
    save_on_signal: bool = False,
    launcher: str = "",
    grace: float = 300.0,
) -> None:
    """Run a `litgpt pretrain` recipe: checked before it starts, resumed where it was, watched to its end.

    Given again, the same command goes on from the newest checkpoint that is whole. `litgpt pretrain --config RECIPE`
    trains the same model; this does around it what litGPT does not.

    Args:
        recipe: The YAML file.
        out_dir: The run's folder; the recipe's own if left out.
        dry_run: Check everything, and start nothing.
        restart: Begin anew. What is in OUT_DIR is moved into a folder inside it.
        verify: Check files by their sizes and directories, or by every byte.
        devices: GPUs of a node; the recipe's own if left out.
        nodes: Nodes, likewise.
        keep_last: How many of the newest checkpoints to keep, each with a copy of its weights alone in OUT_DIR/weights;
            all if left out.
        keep_every: With keep_last, keep each checkpoint whose step this divides, too.
        max_spike: Stop when a step's loss is so many nats above the median of the recent ones, or not finite.
        max_minutes_lost: Say so when a kill would lose more than this, and how often to save.
        save_on_signal: At SIGTERM, save at the end of the step before stopping.
        launcher: What stands before Python, such as "srun --kill-on-bad-exit=1".
        grace: Seconds that the training has to stop by itself after SIGTERM.
    """
    from inheritune_lit.base.yaml_document import read_document
    from inheritune_lit.recipes.check.findings import report

    counts = {"keep_last": keep_last, "keep_every": keep_every, "devices": devices, "nodes": nodes}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise InheritError(f"--{name} {value}: expected 1 or more.")
    if keep_every is not None and keep_last is None:
        raise InheritError(
            "--keep_every says what to keep beside the newest: pass --keep_last, too. Without it all stay."
        )
    try:
        before_python = tuple(shlex.split(launcher))
    except ValueError as error:
        raise InheritError(f"--launcher {launcher!r} is no command: {error}.") from error
    run = Path(out_dir or str(read_document(recipe).get("out_dir") or "out/pretrain"))
    request = Request(run, devices, nodes, verify, keep_last, keep_every, restart, dry_run, before_python)
    findings, document = preflight(recipe, request)
    print(report(recipe, findings, document), flush=True)
    if any(finding.severity == "error" for finding in findings):
        print("\nNothing was started.")
        sys.exit(1)
    if dry_run:
        return
    settings = document.content | {k: v for k, v in {"devices": devices, "num_nodes": nodes}.items() if v is not None}
    options = Options(
        max_spike=max_spike,
        save_on_signal=save_on_signal,
        launcher=before_python,
        grace=grace,
        keep_last=keep_last,
        keep_every=keep_every,
    )
    with Bar(max_minutes_lost, document.get("train.save_interval")) as bar:
        receipt = train(
            settings, run, restart=restart, on_progress=bar, on_wait=bar.wait, recipe_file=recipe, options=options
        )
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
