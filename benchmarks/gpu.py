"""One GPU in ten minutes: speed, memory, losses, resuming, surgery and analyze at full size, into benchmarks/gpu.md.

    python benchmarks/gpu.py [--sections speed resume …] [--folder DIR]

For one card of an H100's kind with 64 GB of disk. Every section is a process with a budget of seconds; what it has
measured by then is kept, and the same command goes on with what is missing (remove --folder to start over). Weights and
text are synthetic: the weights are cut by our own surgery. --tiny runs all of it on a CPU, small, in one process.
"""

import argparse
import importlib.metadata
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gpu_steps
import gpu_tables
import surgery as surgery_benchmark  # benchmarks/surgery.py

ROOT = Path(__file__).parents[1]
NEEDED = {"torch": "2.11", "lightning": "2.6", "litgpt": "0.5.13", "jsonargparse": "4.41", "inheritune_lit": "0"}
MARKER = "<!-- written by benchmarks/gpu.py from here on -->"
MEASURED = 4  # steps of each kind, after one that is not counted
LOSS_STEPS = 20


class Job:
    """Where everything is, and how large."""

    def __init__(self, folder: Path, tiny: bool) -> None:
        self.folder, self.tiny = folder, tiny
        if tiny:
            surgery_benchmark.MODEL = "pythia-14m"
        self.reference, self.start = folder / surgery_benchmark.MODEL, folder / "start"
        self.layers, self.micro_batches = (3, [1, 2]) if tiny else (13, [8, 2, 16, 4, 1])
        self.tokens = folder / "tokens"

    def recipe(self, name: str, source: str = "openllama3b_n13", start: Path | None = None, **train: Any) -> Path:
        """Writes a shipped recipe with these train settings, this data, and the model of `start`, if there is one."""
        import yaml

        recipe = yaml.safe_load((ROOT / f"recipes/{source}.yaml").read_text())
        recipe["data"]["init_args"] |= {"data_path": str(self.tokens), "epochs": 10**6}
        recipe |= {"devices": 1, "out_dir": str(self.folder / "runs" / name)}
        recipe |= {"initial_checkpoint_dir": None, "tokenizer_dir": None}
        if start:
            recipe |= {"initial_checkpoint_dir": str(start), "tokenizer_dir": str(start)}
            recipe["model_config"] = yaml.safe_load((start / "model_config.yaml").read_text())
        recipe["train"] |= train
        if self.tiny:
            recipe["precision"] = "32-true"
            recipe["train"] |= {"max_seq_length": 64, "global_batch_size": 4} | train
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.dump(recipe))
        return path

    def rows(self, section: str) -> dict[str, Any]:
        path = self.folder / f"results/{section}.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def keep(self, section: str, row: str, figures: Any) -> None:
        path = self.folder / f"results/{section}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps(self.rows(section) | {row: figures}))
        path.with_suffix(".part").replace(path)


def inputs(job: Job) -> None:
    """A synthetic reference with a tokenizer, and token shards: made once, not timed."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    if not (job.reference / "tokenizer_config.json").is_file():
        if job.tiny:
            write_tiny(job.reference)
        else:
            surgery_benchmark.make_source(job.reference)
        words = {word: i for i, word in enumerate([*(f"w{i}" for i in range(1000)), "<unk>", "<s>", "</s>"])}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(job.reference / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
        (job.reference / "tokenizer_config.json").write_text(json.dumps(settings))
    if not (job.tokens / "manifest.json").is_file():
        from inheritune_lit.prepare.command import prepare

        text, draw = job.folder / "text", random.Random(0)
        text.mkdir(exist_ok=True)
        for i in range(8):
            words = (f"w{min(int(draw.expovariate(0.02)), 999)}" for _ in range(5_000 if job.tiny else 100_000))
            (text / f"{i}{'val' * (i == 0)}.txt").write_text(" ".join(words))
        prepare(str(text), out_dir=job.tokens, tokenizer_dir=job.reference, val_share=0, val_glob="*val*", tasks=1)


def write_tiny(folder: Path) -> None:
    """A litGPT checkpoint with random weights, of the model that surgery's benchmark was told."""
    import torch
    from litgpt import GPT, Config
    from litgpt.utils import save_config

    folder.mkdir(parents=True)
    config = Config.from_name(surgery_benchmark.MODEL)
    torch.manual_seed(0)
    torch.save(GPT(config).bfloat16().state_dict(), folder / "lit_model.pth")
    save_config(config, folder)


def command(*arguments: object) -> float:
    """Seconds of a whole command of ours, its imports included; its output is shown if it fails."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return time.perf_counter() - begun


def cut(job: Job) -> None:
    """`python -m inheritune_lit.surgery`, beside dd of as many bytes; and a start of one block for `resume`."""
    for row, out, layers in (("main", job.start, job.layers), ("one block", job.folder / "one", 1)):
        if row not in job.rows("surgery"):
            seconds = command("inheritune_lit.surgery", job.reference, "--layers", layers, "--out_dir", out)
            size = (out / "lit_model.pth").stat().st_size
            dd = surgery_benchmark.command("dd", job.reference, job.folder / f"dd_{layers}", layers, size, None)
            job.keep("surgery", row, {"seconds": seconds, "bytes": size, "dd": surgery_benchmark.measured(dd)["wall"]})


def speed(job: Job, section: str = "speed") -> None:
    """Steps of the main recipe by micro-batch, on PackedTokens and on a tensor on the card in turn."""
    for micro_batch in job.micro_batches if section == "speed" else job.micro_batches[:1]:
        if str(micro_batch) not in job.rows(section):
            recipe = job.recipe(f"{section}_{micro_batch}", start=job.start, micro_batch_size=micro_batch)
            job.keep(section, str(micro_batch), steps_of(job, recipe, profiled=section == "profile"))


def gpt2(job: Job) -> None:
    for size in ("medium_k24", "large_k36"):
        if size not in job.rows("gpt2"):
            recipe = job.recipe(size, f"gpt2/{size}", start=job.start if job.tiny else None)
            job.keep("gpt2", size, steps_of(job, recipe))


def parsed(recipe: Path) -> Any:
    """The recipe as litGPT's own command has it."""
    from jsonargparse import ArgumentParser
    from litgpt.pretrain import setup

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(setup, fail_untyped=False)
    return parser.parse_args(["--config", str(recipe)])


def trainer(job: Job, recipe: Path, **options: Any) -> tuple[Any, Any, Any, Iterator[Any], Any]:
    """What `gpu_steps.take_step` takes, with PackedTokens' batches."""
    from litgpt.config import Config

    from inheritune_lit.data import PackedTokens

    settings = parsed(recipe)
    settings.precision = options.pop("precision", settings.precision)
    config, train = Config(**settings.model_config.as_dict()), settings.train
    fabric, model, optimizer = gpu_steps.set_up(config, settings, **options)
    if settings.initial_checkpoint_dir:
        fabric.load_raw(settings.initial_checkpoint_dir / "lit_model.pth", model)
    data = PackedTokens(job.tokens, epochs=10**6, num_workers=0 if job.tiny else 2)
    data.connect(batch_size=train.micro_batch_size, max_seq_length=model.max_seq_length)
    return fabric, model, optimizer, iter(fabric.setup_dataloaders(data.train_dataloader())), train


def steps_of(job: Job, recipe: Path, *, profiled: bool = False) -> dict[str, Any]:
    """Seconds a step with either kind of batches, the card's peak, and what `inheritune plan` says of the recipe."""
    import torch

    from inheritune_lit.plan import plan_recipe
    from inheritune_lit.plan.machines import gpu_key, peak_flops

    cuda = torch.cuda.is_available()
    torch._dynamo.reset()  # a second shape would be compiled for all shapes
    torch.set_float32_matmul_precision("high")  # as litGPT's command does
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    fabric, model, optimizer, packed, train = trainer(job, recipe)
    kinds = {"packed": packed, "on_card": gpu_steps.random_batches(fabric, model, train)}

    def step(kind: str) -> float:
        return gpu_steps.take_step(fabric, model, optimizer, train, kinds[kind])[0]

    first = step("packed")
    if profiled:
        return {"lines": profile(lambda: step("packed"))}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(1 if job.tiny else MEASURED):
        for kind, found in seconds.items():
            found.append(step(kind))
    device = torch.cuda.get_device_name() if cuda else "CPU"
    plan = plan_recipe(recipe, gpu=gpu_key(device) or "h100")
    free, total = torch.cuda.mem_get_info() if cuda else (0, 0)  # freed blocks stay the allocator's: this is the peak
    return {
        "first": first, "seconds": seconds, "peak_flops": peak_flops(device), "micro_batch": train.micro_batch_size,
        "tokens": train.global_batch_size * model.max_seq_length, "used": total - free,
        "in_use": torch.cuda.max_memory_allocated() if cuda else 0, "planned": plan.memory().as_json(),
        "flops_per_token": plan.flops_per_token,
    }  # fmt: skip


def profile(step: Callable[[], float]) -> list[tuple[str, float]]:
    """The ten kernels (on a CPU, operators) that take most of a step, and their shares of it."""
    import torch

    with torch.profiler.profile() as profiler:
        step()
    kind = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    times = sorted(((getattr(event, kind), event.key) for event in profiler.key_averages()), reverse=True)
    return [(name, spent / sum(spent for spent, _ in times)) for spent, name in times[:10]]


def losses(job: Job) -> None:
    """The same 20 steps in bf16-mixed and in float32, not compiled, on small batches."""
    import torch

    torch.set_float32_matmul_precision("highest")
    recipe = job.recipe("losses", start=job.start, global_batch_size=2, micro_batch_size=1)
    for precision in ("32-true", "bf16-mixed"):
        if precision not in job.rows("losses"):
            *parts, batches, train = trainer(job, recipe, precision=precision, compiled=False)
            job.keep("losses", precision, [gpu_steps.take_step(*parts, train, batches)[1] for _ in range(LOSS_STEPS)])


def resume(job: Job) -> None:
    """`inheritune pretrain` to its end; and again, killed after its first checkpoint and started once more."""
    import torch

    if "weights" in job.rows("resume"):
        return
    settings = {"global_batch_size": 4, "micro_batch_size": 2, "save_interval": 4, "lr_warmup_steps": 2}
    settings |= {"max_tokens": 12 * 4 * (64 if job.tiny else 2048)}
    seconds = {}
    for name in ("whole", "killed"):
        recipe = job.recipe(name, start=job.folder / "one", **settings)
        if name == "killed":
            launch = [sys.executable, "-m", "inheritune_lit", "pretrain", str(recipe)]
            process = subprocess.Popen(launch, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            first = job.folder / "runs/killed/step-00000004/lit_model.pth"
            while not first.is_file() and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
        seconds[name] = command("inheritune_lit", "pretrain", recipe)
    launches = len(json.loads((job.folder / "runs/killed/run.json").read_text())["launches"])
    whole, killed = (
        torch.load(job.folder / f"runs/{name}/final/lit_model.pth", weights_only=True, mmap=True)["model"]
        for name in ("whole", "killed")
    )
    equal = sum(torch.equal(tensor, killed[name]) for name, tensor in whole.items())
    most = max((tensor - killed[name]).abs().max().item() for name, tensor in whole.items())
    figures = {"seconds": seconds, "launches": launches, "tensors": len(whole), "equal": equal, "most": most}
    job.keep("resume", "weights", figures)


def analyze(job: Job) -> None:
    """`inheritune analyze` of the whole reference, on the card."""
    if "whole" not in job.rows("analyze"):
        arguments = (job.reference, "--data", job.tokens, "--windows", 2 if job.tiny else 32)
        out = job.folder / "analysis"
        job.keep("analyze", "whole", {"seconds": command("inheritune_lit", "analyze", *arguments, "--out_dir", out)})


EXPANDABLE, AUTOTUNE = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}, {"TORCHINDUCTOR_MAX_AUTOTUNE": "1"}
# what it does, seconds it may take, environment
SECTIONS: dict[str, tuple[Any, int, dict[str, str]]] = {
    "surgery": (cut, 50, {}),
    "speed": (speed, 200, {}),
    "profile": (lambda job: speed(job, "profile"), 45, {}),
    "resume": (resume, 120, {}),
    "losses": (losses, 35, {}),
    "analyze": (analyze, 35, {}),
    "gpt2": (gpt2, 70, {}),
    "expandable": (lambda job: speed(job, "expandable"), 60, EXPANDABLE),
    "autotune": (lambda job: speed(job, "autotune"), 120, AUTOTUNE),
}
DEFAULT = [name for name in SECTIONS if name not in ("expandable", "autotune")]  # these two are past ten minutes


def missing(tiny: bool) -> list[str]:
    """What this machine lacks, in words."""
    found = []
    for package, least in NEEDED.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} is not installed" + f": {least} or newer" * (least != "0"))
            continue
        if [int(part) for part in version.split("+")[0].split(".")[:2]] < [int(part) for part in least.split(".")[:2]]:
            found.append(f"{package} is {version}: {least} or newer")
    if not found and not tiny:
        import torch

        if not torch.cuda.is_available():
            found.append("torch sees no CUDA device")
    return found


def write(job: Job, out: Path) -> None:
    """The tables of everything measured so far, below the text that `out` has above the marker."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, a small model"
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in list(NEEDED)[:3])
    parts = [MARKER, f"## `python benchmarks/gpu.py`\n\n{device}; {versions}."]
    for name, (title, spoken) in gpu_tables.SECTIONS.items():
        if rows := job.rows(name):
            parts.append(f"### {title}\n\n{spoken(rows)}")
    above = out.read_text().split(MARKER)[0] if out.is_file() else ""
    out.write_text(above.rstrip() + "\n\n" * bool(above.strip()) + "\n\n".join(parts) + "\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="*", choices=SECTIONS, default=DEFAULT)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / ".gpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--tiny", action="store_true", help="all of it on a CPU, with a small model")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if lacking := missing(args.tiny):
        sys.exit("\n  ".join(["benchmarks/gpu.py needs more than this machine has:", *lacking]))
    args.folder.mkdir(parents=True, exist_ok=True)
    job = Job(args.folder, args.tiny)
    if args.section:
        SECTIONS[args.section][0](job)
        return
    inputs(job)
    for name in dict.fromkeys(["surgery", *args.sections]):  # all others start from what it wrote
        begun, (run, budget, environment) = time.perf_counter(), SECTIONS[name]
        failed = ""
        if args.tiny:
            run(job)
        else:
            one = [sys.executable, __file__, "--section", name, "--folder", str(args.folder)]
            process = subprocess.Popen(one, env=os.environ | environment, start_new_session=True)
            try:
                failed = f", failed with {code}" if (code := process.wait(budget)) else ""
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the commands that it runs
                failed = f", stopped after its {budget} s"
        print(f"{name}: {time.perf_counter() - begun:.0f} s{failed}", flush=True)
        write(job, args.out)


if __name__ == "__main__":
    main()
