"""What `inheritune reproduce` sees: planted and honest differences, each a real run of 30 steps of litgpt pretrain.

    python benchmarks/reproduce.py INPUTS OUT_DIR              # runs what is not there yet, then prints the tables
    python benchmarks/reproduce.py INPUTS OUT_DIR --tables     # prints the tables alone

INPUTS holds what the demos start from: reference/, text/ and growth/tokenizer/ (demo/ after `make demo` and `make
grow-demo`). Two models: the demo's reference cut to 4 blocks, and a GPT-2 of 4 blocks and width 128 from random
weights, on a text whose epoch is 12 steps long. Every seed has an undisturbed run, which its others are compared with.
A run is a fork of a process that has imported litGPT, so that it takes its steps' time and little more.
"""

import argparse
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # compiled runs switch it on

import yaml

from inheritune_lit.base.commands import inheritune
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.data import order, trace
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.reproduce import facts
from inheritune_lit.reproduce.bands import LEAST
from inheritune_lit.reproduce.compare import EXACT, compare
from inheritune_lit.runs.folder import STEP

STEPS, EPOCH, SAVED = 30, 12, 10
PLAYS = ("rape_of_lucrece.txt", "sonnets.txt", "hamlet.txt")  # the last is held out
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Arm:
    """A run that differs from the undisturbed one in one thing."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Dotted keys of the recipe"""
    plant: str = ""
    """What is changed in code; the name of a function below"""
    data: str = "tokens"
    start: str = "start"
    environment: dict[str, str] = field(default_factory=dict)
    """Of a new process, where a fork would be too late"""


LR, BETAS = "optimizer.init_args.lr", "optimizer.init_args.betas"
PLANTED = {
    "another data seed": Arm({"data.init_args.seed": "+1"}),
    "two documents swapped": Arm(data="swapped"),
    "one block other than said": Arm(start="other_block"),
    "final norm left out": Arm(plant="no_final_norm"),
    "targets shifted by one": Arm(plant="shifted_targets"),
    "dropout 0.1": Arm(plant="dropout"),
    "learning rate × 1.05": Arm({LR: 1.05}),
    "learning rate × 0.95": Arm({LR: 0.95}),
    "learning rate × 1.1": Arm({LR: 1.1}),
    "learning rate × 0.9": Arm({LR: 0.9}),
    "learning rate × 1.5": Arm({LR: 1.5}),
    "learning rate × 0.5": Arm({LR: 0.5}),
    "warm-up doubled": Arm({"train.lr_warmup_steps": 2.0}),
    "weight decay 0": Arm({"optimizer.init_args.weight_decay": 0.0}),
    "β2 0.999": Arm({BETAS: [0.9, 0.999]}),
    "no gradient clipping": Arm({"train.max_norm": None}),
    "bf16-true": Arm({"precision": "bf16-true"}),
    "batch halved": Arm({"train.global_batch_size": 0.5, "train.micro_batch_size": 0.5}),
    "an epoch's order repeated": Arm(plant="same_order"),
}
HONEST = {
    "again": Arm(),
    "micro-batch 1": Arm({"train.micro_batch_size": "=1"}),
    "micro-batch 2": Arm({"train.micro_batch_size": "=2"}),
    "one thread more": Arm(plant="threads"),
    "another kind of CPU": Arm(
        environment={"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
    ),
    "resumed after a kill": Arm({"train.save_interval": f"={SAVED}"}, plant="killed"),
    "compiled": Arm(environment={"TORCHDYNAMO_DISABLE": "0"}),
    "two FSDP ranks": Arm({"devices": "=2", "train.micro_batch_size": 0.5}, start="drawn"),
    "bf16-mixed": Arm({"precision": "bf16-mixed"}),
}


# What is planted in code, in the process that trains


def no_final_norm() -> None:
    import torch

    _built(lambda model: setattr(model.transformer, "ln_f", torch.nn.Identity()))


def dropout() -> None:
    import torch

    def add(model: Any) -> None:
        for block in model.transformer.h:
            block.register_forward_hook(
                lambda block, inputs, out: torch.nn.functional.dropout(out, 0.1, block.training)
            )

    _built(add)


def _built(change: Callable[[Any], None]) -> None:
    import litgpt.pretrain

    before = litgpt.pretrain.fit

    def fit(**arguments: Any) -> None:
        model = arguments["state"]["model"]
        while hasattr(model, "_forward_module") or hasattr(model, "_orig_mod"):
            model = getattr(model, "_orig_mod", None) or model._forward_module
        change(model)
        before(**arguments)

    litgpt.pretrain.fit = functools.wraps(before)(fit)


def shifted_targets() -> None:
    import litgpt.pretrain

    before = litgpt.pretrain.chunked_cross_entropy
    litgpt.pretrain.chunked_cross_entropy = lambda logits, targets, *a, **o: before(
        logits, targets.roll(1, -1), *a, **o
    )


def same_order() -> None:
    before = order.epoch_order
    order.epoch_order = lambda windows, seed, epoch: before(windows, seed, 0)


def threads() -> None:
    import torch

    torch.set_num_threads(torch.get_num_threads() + 1)


def killed() -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == SAVED + 4:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_post_hook(count)


# Inputs


@dataclass(frozen=True)
class Model:
    name: str
    tokenizer: Path
    batch: int
    length: int
    """Tokens of a window"""
    lr: float
    reference: Path | None
    folder: Path

    def has(self, arm: str) -> bool:
        """FSDP would untie the one's embeddings, the other has random blocks, and what is the recipe's is no arm."""
        absent = "two FSDP ranks" if self.reference else "one block other than said"
        return arm not in (absent, f"micro-batch {self.batch}")

    def make_inputs(self, text: Path) -> None:
        """Shards, the same with two documents swapped, and the starts; each is left where it is there."""
        per_token = 3.6 if self.reference else 2.0  # characters
        size = int(EPOCH * self.batch * self.length * per_token / 6)
        for data in ("tokens", "swapped"):
            if (self.folder / data).is_dir():
                continue
            documents = self.folder / f"{data}_text"
            documents.mkdir(parents=True, exist_ok=True)
            pieces = [(text / PLAYS[i % 2]).read_text(encoding="utf-8")[i * size :][:size] for i in range(7)]
            if data == "swapped":
                pieces[1], pieces[2] = pieces[2], pieces[1]
            for number, piece in enumerate(pieces):
                (documents / f"part{number}.txt").write_text(piece, encoding="utf-8")
            held_out = (text / PLAYS[2]).read_text(encoding="utf-8")[2000:][: 3 * size]
            (documents / "hamlet.txt").write_text(held_out, encoding="utf-8")
            inheritune(
                *("prepare", documents, "--out_dir", self.folder / data, "--tokenizer_dir", self.tokenizer),
                *("--val_share", 0.0, "--val_glob", "*hamlet*"),
            )
        if self.reference:
            for start, layers in {"start": "0-1,28-29", "other_block": "0-1,27,29"}.items():
                if not (self.folder / start).is_dir():
                    inheritune("surgery", self.reference, "--layers", layers, "--out_dir", self.folder / start)

    def drawn(self, config: dict[str, Any], seed: int) -> Path:
        """A checkpoint of the random weights that a run with this seed begins with."""
        shape, folder = self.folder / "shape", self.folder / f"drawn{seed}"
        if not folder.is_dir():
            shutil.copytree(self.tokenizer, shape, dirs_exist_ok=True)
            (shape / "model_config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
            options = ["--layers", config["n_layer"], "--start", "random", "--seed", seed]
            inheritune("surgery", shape, *options, "--out_dir", folder)
        return folder

    def recipe(self, arm: Arm, seed: int, out_dir: Path) -> dict[str, Any]:
        demo = ROOT / ("recipes/demo.yaml" if self.reference else "recipes/gpt2/demo_k8.yaml")
        recipe: dict[str, Any] = yaml.safe_load(demo.read_text(encoding="utf-8"))
        start = self.folder / arm.start if self.reference else None
        if start:
            recipe["model_config"] = yaml.safe_load((start / "model_config.yaml").read_text(encoding="utf-8"))
        else:
            recipe["model_config"] |= {"n_layer": 4}
            if arm.start == "drawn":  # what one CPU draws, as two ranks would draw other weights
                start = self.drawn(recipe["model_config"], seed)
        recipe |= {"initial_checkpoint_dir": start and str(start), "out_dir": str(out_dir), "seed": seed}
        recipe |= {"tokenizer_dir": str(start or self.tokenizer), "precision": "32-true"}
        data = recipe["data"]["init_args"]
        data |= {"data_path": str(self.folder / arm.data), "seed": seed, "epochs": 4}
        recipe["train"] |= {"max_tokens": STEPS * self.batch * self.length, "max_seq_length": self.length}
        recipe["train"] |= {"global_batch_size": self.batch, "micro_batch_size": self.batch, "lr_warmup_steps": 5}
        recipe["train"] |= {"min_lr": self.lr / 10, "save_interval": None, "log_interval": 1, "max_norm": 1.0}
        recipe["eval"] |= {"interval": 1000, "initial_validation": True}
        recipe["optimizer"]["init_args"] |= {"lr": self.lr, "weight_decay": 0.1, "betas": [0.9, 0.95]}
        for key, value in arm.settings.items():
            place = recipe
            *path, last = key.split(".")
            for part in path:
                place = place[part]
            if isinstance(value, str) and value[0] in "+=":
                place[last] = int(value[1:]) + (place[last] if value[0] == "+" else 0)
            elif isinstance(value, float) and value:
                place[last] = type(place[last])(place[last] * value)
            else:
                place[last] = value
        recipe["eval"]["max_iters"] = self.batch // recipe["train"]["micro_batch_size"]  # the same windows
        recipe["train"]["max_tokens"] = STEPS * recipe["train"]["global_batch_size"] * self.length
        return recipe


# Runs


def run(model: Model, name: str, arm: Arm, seed: int) -> Path:
    """The folder of a run, made if it is not there."""
    folder = model.folder / "runs" / f"{name.replace(' ', '_')}-{seed}"
    if (folder / "done.json").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    recipe = model.recipe(arm, seed, folder / "out")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    began = time.perf_counter()
    command = ["pretrain", "--config", str(path)]
    traced = {trace.VARIABLE: f"{STEPS * recipe['train']['global_batch_size']}:{(folder / 'trace').absolute()}"}
    code = _train(command, folder, arm, traced)
    if arm.plant == "killed":
        assert code == -signal.SIGKILL, f"{folder} was to be killed, and ended with {code}"
        checkpoint = folder / f"out/step-{SAVED:08d}/lit_model.pth"
        more = ["--resume", str(checkpoint), "--initial_checkpoint_dir", "null"]
        code = _train([*command, *more], folder, Arm(), traced)
    shutil.rmtree(folder / "out" / "final", ignore_errors=True)
    for checkpoint in (folder / "out").glob("step-*"):
        shutil.rmtree(checkpoint)
    losses = trace.step_losses(folder / "trace", recipe["train"]["global_batch_size"])
    done = {"code": code, "seconds": time.perf_counter() - began, "steps": len(losses)}
    (folder / "done.json").write_text(json.dumps(done), encoding="utf-8")
    print(f"{model.name}: {name}, seed {seed}: exit {code}, {len(losses)} steps, {done['seconds']:.0f} s", flush=True)
    return folder


def _train(command: list[str], folder: Path, arm: Arm, variables: dict[str, str]) -> int:
    """The exit code of `litgpt pretrain`: in a fork, or in a new process where the environment or ranks ask for one."""
    two_ranks = arm.settings.get("devices") == "=2"
    if arm.environment or two_ranks:
        places = [str(ROOT / "tests/helpers/fsdp")] * two_ranks + sys.path
        environment = {
            **os.environ,
            **variables,
            **arm.environment,
            "PYTHONPATH": os.pathsep.join(filter(None, places)),
        }
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            python = [sys.executable, "-m", "litgpt", *command]
            return subprocess.run(python, stdout=log, stderr=log, env=environment, check=False).returncode
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        log_file = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log_file, 1)
        os.dup2(log_file, 2)
        os.environ |= variables
        import litgpt.__main__
        import torch

        import inheritune_lit.data.tokens  # noqa: F401  # before what is planted, as a recipe's parser would

        torch.set_num_threads(1)
        if arm.plant:
            globals()[arm.plant]()
        sys.argv = ["litgpt", *command]
        litgpt.__main__.main()
        code = 0
    except BaseException:  # the fork must not go on with what its parent does
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


# Tables

KNOWN = 2  # seeds whose honest runs say how far such runs may differ; those of the others are judged by it
SOURCES = {
    **{"again": "machine", "one thread more": "machine", "another kind of CPU": "machine"},
    **{"micro-batch 1": "accumulation", "micro-batch 2": "accumulation", "resumed after a kill": "resumed"},
    **{"compiled": "compiled", "two FSDP ranks": "ranks", "bf16-mixed": "precision"},
}


def facts_of(model: Model, name: str, arm: Arm, seed: int) -> dict[str, Any] | None:
    """What a run is made from and how it went; None if it is not there."""
    folder = model.folder / "runs" / f"{name.replace(' ', '_')}-{seed}"
    if not (folder / "done.json").is_file():
        return None
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    start = recipe["initial_checkpoint_dir"]
    drawn = arm.start == "drawn" or not start
    fingerprint = "random" if drawn else Weights(Path(start) / "lit_model.pth").fingerprint()
    manifest = Manifest(model.folder / arm.data)
    with as_planted(arm.plant):
        exact = facts.exact(recipe, {"start": {"fingerprint": fingerprint}}, manifest)
    losses = trace.step_losses(folder / "trace", recipe["train"]["global_batch_size"])
    printed = STEP.search((folder / "log.txt").read_text(encoding="utf-8", errors="replace"))
    return {
        "exact": exact,
        "first_steps": {
            "untrained": float(printed[4]) if printed else None,
            "losses": {str(step): losses[step] for step in trace.STEPS if step in losses},
            "numerics": {
                "precision": recipe["precision"],
                "compiled": name == "compiled",
                "ranks": recipe["devices"],  # of a start that was drawn before
                "accumulation": recipe["train"]["global_batch_size"]
                // (recipe["devices"] * recipe["train"]["micro_batch_size"]),
                "device": "CPU",
                "resumed": name == "resumed after a kill",
            },
        },
    }


@contextmanager
def as_planted(plant: str) -> Iterator[None]:
    """The planted order of windows, where that is what was planted: L0 hashes what the changed code reads."""
    before = order.epoch_order
    try:
        if plant == "same_order":
            same_order()
        yield
    finally:
        order.epoch_order = before


def tables(models: list[Model], seeds: int) -> str:
    found = {
        (model.name, name, seed): facts_of(model, name, arm, seed)
        for model in models
        for name, arm in {"undisturbed": Arm(), **PLANTED, **HONEST}.items()
        for seed in range(seeds)
    }
    steps = [str(step) for step in trace.STEPS]

    def apart(model: str, name: str, seed: int) -> dict[str, float] | None:
        run, base = found[model, name, seed], found[model, "undisturbed", seed]
        if not run or not base:
            return None
        one, other = run["first_steps"]["losses"], base["first_steps"]["losses"]
        return {step: abs(one[step] - other[step]) for step in steps if step in one}

    measured = {source: dict.fromkeys(steps, 0.0) for source in SOURCES.values()}
    for name, source in SOURCES.items():
        for model in models:
            for seed in range(min(KNOWN, seeds)):
                for i, step in enumerate(steps):
                    sizes = apart(model.name, name, seed) or {}
                    largest = max([sizes.get(s, 0.0) for s in steps[: i + 1]], default=0.0)
                    measured[source][step] = max(measured[source][step], largest)
    allowed = {
        source: {"measured": "", "losses": {step: max(size, LEAST) for step, size in sizes.items()}}
        for source, sizes in measured.items()
    }

    def judged(model: str, name: str, seed: int) -> Any:
        run, base = found[model, name, seed], found[model, "undisturbed", seed]
        if not run or not base:
            return None
        first = {**base["first_steps"], "repeats": 1, "deviation": {}, "allowed": allowed}
        lock = {"name": name, "status": "run", **base, "first_steps": first}
        if name == "two FSDP ranks":  # from the very weights that the other drew
            lock, run = ({**one, "exact": {**one["exact"], "start": "drawn"}} for one in (lock, run))
        return compare(lock, run)

    lines = ["Largest differences of the honest runs, in nats (seeds 0 and 1, both models):", ""]
    lines += ["| source | " + " | ".join(f"step {step}" for step in steps) + " |", "|---" * (len(steps) + 1) + "|"]
    for source, sizes in measured.items():
        lines.append(f"| {source} | " + " | ".join(f"{sizes[step]:.1e}" for step in steps) + " |")
    for title, arms in (("Planted", PLANTED), ("Honest", HONEST)):
        for model in models:
            heads = ["runs", "seen by L0, at", "seen by L1", "first step", "apart at step 30"]
            lines += ["", f"{title}, {model.name}:", "", f"| difference | {' | '.join(heads)} |", "|---" * 6 + "|"]
            for name in arms:
                verdicts = {seed: judged(model.name, name, seed) for seed in range(seeds)}
                verdicts = {seed: verdict for seed, verdict in verdicts.items() if verdict}
                if arms is HONEST:  # the others made the bands
                    verdicts = {seed: verdict for seed, verdict in verdicts.items() if seed >= KNOWN}
                if verdicts:
                    lines.append(_row(name, verdicts, {seed: apart(model.name, name, seed) or {} for seed in verdicts}))
    return "\n".join(lines)


def _row(name: str, verdicts: dict[int, Any], sizes: dict[int, dict[str, float]]) -> str:
    exact, first, steps = 0, 0, []
    what: dict[str, None] = {}
    for verdict in verdicts.values():
        bad = [row for row in verdict.rows if row.result == "differs"]
        zero = [row.what for row in bad if row.layer == EXACT]
        one = [row.what.removeprefix("loss at step ") for row in bad if row.layer != EXACT]
        exact, first = exact + bool(zero), first + bool(one)
        what |= dict.fromkeys(re.sub(r"\d+", "N", word) for word in zero)
        steps += [int(word) for word in one if word.isdecimal()][:1]
    last = [size["30"] for size in sizes.values() if "30" in size]
    count = len(verdicts)
    cells = [str(count), f"{exact}: {', '.join(what)}" if exact else "0", str(first)]
    cells += ["–" if not steps else f"{min(steps)}–{max(steps)}" if len({*steps}) > 1 else str(steps[0])]
    cells += [f"{min(last):.1e}–{max(last):.1e}" if last else "–"]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=["gpt2", "smollm2"])
    parser.add_argument("--arms", nargs="*", help="of these names alone")
    parser.add_argument("--tables", action="store_true")
    given = parser.parse_args()
    inputs, out_dir = given.inputs.absolute(), given.out_dir.absolute()
    models = [
        Model("gpt2", inputs / "growth/tokenizer", 8, 64, 1e-3, None, out_dir / "gpt2"),
        Model("smollm2", inputs / "reference", 2, 32, 5e-4, inputs / "reference", out_dir / "smollm2"),
    ]
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(out_dir / "inductor")
    for model in models:
        if given.tables or model.name not in given.models:
            continue
        import litgpt.__main__  # noqa: F401  # once, for all forks

        model.make_inputs(inputs / "text")
        for seed in range(given.seeds):
            for name, arm in {"undisturbed": Arm(), **PLANTED, **HONEST}.items():
                if not (given.arms and name not in given.arms) and model.has(name):
                    run(model, name, arm, seed)
    print(tables(models, given.seeds))


if __name__ == "__main__":
    main()
