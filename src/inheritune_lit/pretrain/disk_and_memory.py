"""Whether a launch has the room that it will need: disk for what it leaves, memory on this machine's GPUs."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from inheritune_lit.base.units import gib
from inheritune_lit.base.yaml_document import Document
from inheritune_lit.pretrain.devices import gpu_names
from inheritune_lit.pretrain.options import Request
from inheritune_lit.pretrain.record import BEFORE
from inheritune_lit.recipes.check.findings import Finding

if TYPE_CHECKING:
    from inheritune_lit.plan.figures import Plan


def check_disk_and_memory(document: Document, run: Path, request: Request) -> list[Finding]:
    """Disk for all checkpoints that the run will leave, and memory on this machine's GPUs."""
    from inheritune_lit.plan import plan_recipe
    from inheritune_lit.plan.machines import gpu_key

    names = gpu_names()
    gpu = gpu_key(names[0]) if names else None
    plan = plan_recipe(request.recipe, gpu=gpu or "a6000", devices=request.devices, nodes=request.nodes)
    findings = _disk(plan, run, request, document.get("train.save_interval"))
    if gpu and not plan.fits:
        peak, largest = plan.memory(), plan.largest_micro_batch()
        text = (
            f"nvidia-smi would show about {gib(peak.total)} at the peak, {gib(peak.in_use)} of it in use "
            f"and the rest kept by PyTorch's allocator; a {names[0]} has {gib(plan.machine.memory)}."
            + (f" The teacher's weights are {gib(peak.teacher)} of it." if peak.teacher else "")
        )
        fix = f"Write {largest}." if largest else "More GPUs share the weights' and the optimizer's states."
        severity: Literal["error", "warning"] = "warning" if plan.fits_if_given_back else "error"
        findings.append(Finding(severity, "train.micro_batch_size", text, fix))
    return findings


def _disk(plan: "Plan", run: Path, request: Request, interval: int | None) -> list[Finding]:
    size, steps = plan.checkpoint, plan.steps
    saved = list(range(interval, steps + 1, interval)) if interval else []
    kept = len(saved)
    if request.keep_last is not None:  # one more is being written while the last ones are still there
        every = sum(step % request.keep_every == 0 for step in saved) if request.keep_every else 0
        kept = min(kept, request.keep_last + 1 + every)
    bare = plan.parameters.total * (2 if plan.precision == "bf16-true" else 4)
    copies = 1 + (kept if request.keep_last is not None else 0)
    needed = (kept + 1) * size + copies * bare
    place = next(f for f in (run.absolute(), *run.absolute().parents) if f.exists())
    free = shutil.disk_usage(place).free + there_already(run, restart=request.restart)
    temporary, findings = Path(tempfile.gettempdir()), []
    if plan.gpus == 1 and (room := shutil.disk_usage(temporary).free) < size:
        text = f"On one device litGPT writes each checkpoint, {gib(size)}, to {temporary} first, which has {gib(room)}."
        fix = f"Set TMPDIR to a folder on the disk of {run}, where a finished file is moved at once, too."
        findings.append(Finding("error", "out_dir", text, fix))
    if needed <= free:
        return findings
    text = (
        f"The run will leave {kept + 1} checkpoints of {gib(size)} and {copies} of {gib(bare)}, "
        f"{gib(needed)} in all; {place} has {gib(free)} for them."
    )
    fix = "Pass --keep_last 2, raise it, or choose another out_dir."
    return [*findings, Finding("error", "train.save_interval", text, fix)]


def there_already(run: Path, *, restart: bool) -> int:
    """Bytes that a run has saved of what it needs; what --restart sets aside stays beside it and counts for nothing."""
    files = [] if restart else [f for f in run.rglob("*.pth") if not f.relative_to(run).parts[0].startswith(BEFORE)]
    return sum(file.stat().st_size for file in files)
