"""Which blocks are kept, and what is learned from: every arm trained on the same text, into benchmarks/starts.md.

    python benchmarks/starts.py [--family smollm2 own] [--seconds 540] [--folder DIR] [--tiny]

Needs what benchmarks/starts_data.py wrote in the folder, and torch, lightning, litgpt and jsonargparse alone. Every arm
that has ended is a file in FOLDER/arms. The same command goes on with the arms that are missing, most telling ones
first, and starts none that its seconds do not allow; benchmarks/starts_tables.py makes tables of them. --tiny runs
every kind of arm on a CPU, on random tokens and a model of a few thousand parameters.
"""

import argparse
import json
import lzma
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import starts_data
import torch
import torch.nn.functional as F
from torch import Tensor

FOLDER = Path(__file__).parent / ".starts"
STEP_TOKENS = 32_768
WARM_UP, LEAST_RATE, WEIGHT_DECAY, BETAS, CLIP = 0.05, 0.1, 0.1, (0.9, 0.95), 1.0
OWN_STEPS = 1420  # what the model of our own is trained for before it is cut: once through the text
Block = int | tuple[int, ...]  # several: their weights' mean


@dataclass(frozen=True)
class Arm:
    """One training: from which blocks of which reference, on what loss, how fast and how long."""

    family: str
    kept: str
    blocks: tuple[Block, ...] | None  # None: random weights
    rate: float
    steps: int
    seed: int = 0
    weight: float = 0.0  # of the distillation loss
    teacher: str = "reference"
    through: tuple[int, ...] = ()  # cut in two: first to these blocks, trained for a quarter of the steps
    size: int = 0  # blocks of a random start

    @property
    def name(self) -> str:
        parts = [self.family, self.kept, f"{self.rate:g}", f"{self.steps}", f"seed{self.seed}"]
        if self.weight:
            parts.append(f"{self.teacher}{self.weight:g}")
        return "_".join(part.replace(" ", "").replace("+", "-") for part in parts)


def ends(first: int, last: int, total: int) -> tuple[Block, ...]:
    return (*range(first), *range(total - last, total))


DENSE = (0, 1, 2, 3, 4, 5, 7, 9, 12, 15, 18, 21, 24, 27, 29)


def smollm2(best: "Best") -> Iterator[Arm]:
    """30 blocks to 15 (half), 7 (a quarter), 10 (a third) and 20 (two thirds)."""
    whole, kinds, twelfth = 640, 160, 53  # steps: 21.0M, 5.2M and 1.7M tokens
    rates = (1.2e-3, 2.4e-3, 6e-4)

    def cut(first: int, last: int, rate: float, steps: int, **rest: Any) -> Arm:
        name = f"{first} + {last}" if last else f"first {first}"
        return Arm("smollm2", name, ends(first, last, 30), rate, steps, **rest)

    def again(arm: Arm, **changes: Any) -> Arm:
        return replace(arm, **changes)

    first = cut(15, 0, rates[0], whole)
    yield first
    half = [cut(a, 15 - a, rates[0], kinds) for a in (5, 6, 8, 4, 15)]
    half += [Arm("smollm2", "dense at the ends", DENSE, rates[0], kinds)]
    half += [Arm("smollm2", "every other", tuple(range(0, 30, 2)), rates[0], kinds), cut(3, 12, rates[0], kinds)]
    yield from half
    chosen = best(half)
    short = [again(chosen, steps=twelfth, rate=rate) for rate in rates]
    yield from short
    yield from (again(first, rate=rate) for rate in rates[1:])
    quarter = [cut(a, 7 - a, rates[0], kinds) for a in (2, 1, 3, 7)]
    yield from quarter
    tuned = [again(best(quarter), rate=rate) for rate in rates]
    yield from tuned
    seven = again(best(tuned), steps=whole)
    yield seven
    yield again(best(short), steps=whole)
    yield from (again(best(short), seed=seed) for seed in (1, 2))
    first = best([again(first, rate=rate) for rate in rates])
    yield from (again(arm, seed=seed) for seed in (1, 2) for arm in (first, seven))
    yield Arm("smollm2", "reference", tuple(range(30)), 3e-4, kinds)  # the corrected teacher
    yield from (again(chosen, weight=weight, teacher="corrected") for weight in (0.9, 0.6))
    yield again(chosen, weight=0.9)
    yield again(half[4], weight=0.9, teacher="corrected")
    yield Arm("smollm2", "random", None, rates[0], kinds, size=15)
    # first to 22 blocks, then to the same 15
    if chosen.kept == "5 + 10":
        yield again(chosen, kept="5 + 10 in two cuts", blocks=ends(5, 10, 22), through=(*range(7), *range(15, 30)))
    yield Arm("smollm2", "means of pairs", tuple((2 * i, 2 * i + 1) for i in range(15)), rates[0], kinds)
    yield from (cut(a, b, rates[0], kinds) for a, b in ((3, 7), (4, 6), (10, 0), (7, 13), (9, 11), (20, 0)))
    yield Arm("smollm2", "random", None, rates[0], whole, size=15)


def own(best: "Best") -> Iterator[Arm]:
    """16 blocks, trained here from scratch on the same text, to 8 and 4."""
    whole, kinds, rates = 320, 80, (2e-3, 4e-3, 1e-3)  # steps: 10.5M and 2.6M tokens

    def cut(first: int, last: int, rate: float, steps: int, **rest: Any) -> Arm:
        name = f"{first} + {last}" if last else f"first {first}"
        return Arm("own", name, ends(first, last, 16), rate, steps, **rest)

    half = [cut(a, 8 - a, rates[0], kinds) for a in (3, 4, 2, 6, 8)]
    yield from half
    chosen = best(half)
    first = [cut(8, 0, rate, whole) for rate in rates]
    yield from first
    yield from (replace(chosen, rate=rate) for rate in rates[1:])  # a quarter of the tokens
    yield from (replace(arm, seed=seed) for seed in (1, 2) for arm in (best(first), chosen))
    yield replace(chosen, steps=whole)
    yield from (cut(a, 4 - a, rates[0], whole) for a in (1, 2))
    yield Arm("own", "random", None, rates[0], whole, size=8)


Best = Callable[[list[Arm]], Arm]
ARMS: dict[str, Callable[[Best], Iterator[Arm]]] = {"smollm2": smollm2, "own": own}


class Study:
    """Texts on the device, references, and models whose blocks are compiled once for all arms."""

    def __init__(self, folder: Path, *, tiny: bool = False) -> None:
        self.folder, self.tiny = folder, tiny
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.length, self.windows, self.held_out = (32, 2, 4) if tiny else (2048, STEP_TOKENS // 2048, 64)
        torch.set_float32_matmul_precision("high")
        # a block is compiled once for each shape, for all blocks of all models
        torch._dynamo.config.automatic_dynamic_shapes = False
        torch._dynamo.config.recompile_limit = 64
        if tiny:
            draw = np.random.default_rng(0)
            texts = {name: draw.integers(0, 64, 4000) for name in ("train", "val", "new")}
        else:
            texts = {name: _tokens(folder / f"{name}.npy.xz") for name in ("train", "val", "new")}
        self.texts = {name: torch.from_numpy(ids.astype(np.int32)).to(self.device) for name, ids in texts.items()}
        self.references: dict[str, dict[str, Tensor]] = {}
        self.models: dict[tuple[str, int], torch.nn.Module] = {}
        self.cross_entropy = self.compiled(_cross_entropy)
        self.distillation = self.compiled(_distillation)
        self.began = time.perf_counter()

    def compiled(self, function: Any) -> Any:
        return function if self.tiny else torch.compile(function)

    def log(self, *said: object) -> None:
        print(f"[{time.perf_counter() - self.began:6.1f}]", *said, flush=True)

    def config(self, family: str, blocks: int) -> Any:
        from litgpt.config import Config

        if self.tiny:
            small = {"n_embd": 16, "n_head": 2, "n_query_groups": 1, "intermediate_size": 32, "padded_vocab_size": 64}
            return Config.from_name("SmolLM2-135M", n_layer=blocks, block_size=self.length, head_size=8, **small)
        shape = (
            {} if family == "smollm2" else {"n_embd": 192, "n_head": 3, "n_query_groups": 3, "intermediate_size": 512}
        )
        return Config.from_name("SmolLM2-135M", n_layer=blocks, block_size=self.length, **shape)

    def depth(self, family: str) -> int:
        return 30 if family == "smollm2" else 16

    def model(self, family: str, blocks: int) -> Any:
        """A tied model of so many blocks on the device, its blocks compiled; the same one at every call."""
        from litgpt.model import GPT

        if (family, blocks) not in self.models:
            with self.device:
                model = GPT(self.config(family, blocks))
            model.lm_head.weight = model.transformer.wte.weight
            model.max_seq_length = self.length
            if not self.tiny:
                for block in model.transformer.h:
                    block.compile()
            self.models[family, blocks] = model.to(self.device)
        return self.models[family, blocks]

    def reference(self, family: str) -> dict[str, Tensor]:
        """A family's whole weights: those that were packed, or trained here from scratch on the training text."""
        if family in self.references:
            return self.references[family]
        path = self.folder / f"{family}.pth"
        if self.tiny:
            found = {
                name: tensor.clone() for name, tensor in self.model(family, self.depth(family)).state_dict().items()
            }
        elif path.is_file():
            found = torch.load(path, weights_only=True)
        elif family == "smollm2":
            found = {name: torch.from_numpy(weight) for name, weight in starts_data.load_weights(self.folder).items()}
        else:
            arm = Arm(family, "reference", None, 3e-3, OWN_STEPS, size=self.depth(family))
            self.keep(arm, self.train(arm))
            found = {name: tensor.cpu() for name, tensor in self.model(family, self.depth(family)).state_dict().items()}
            torch.save(found, path)
        self.references[family] = {
            name: tensor.to(self.device) for name, tensor in found.items() if name != "lm_head.weight"
        }
        return self.references[family]

    def teacher(self, arm: Arm) -> Any:
        """The frozen model that an arm learns from, in bfloat16 on a GPU."""
        from litgpt.model import GPT

        key = (f"{arm.family} {arm.teacher}", 0)
        if key not in self.models:
            weights = self.reference(arm.family)
            if arm.teacher == "corrected":
                weights = torch.load(self.folder / f"{arm.family}_corrected.pth", weights_only=True)
            with self.device:
                model = GPT(self.config(arm.family, self.depth(arm.family)))
            model.lm_head.weight = model.transformer.wte.weight
            model.max_seq_length = self.length
            model.load_state_dict(weights, strict=False)
            model.eval().requires_grad_(False)
            if not self.tiny:
                model.to(torch.bfloat16)
                for block in model.transformer.h:
                    block.compile()
            self.models[key] = model
        return self.models[key]

    def batch(self, text: str, numbers: Iterator[int] | list[int]) -> Tensor:
        tokens, length = self.texts[text], self.length
        return torch.stack([tokens[i * length : i * length + length + 1] for i in numbers]).long()

    def amp(self) -> Any:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")

    def losses(self, model: Any, text: str) -> list[float]:
        """Cross-entropy of the held-out windows, nats per token, a number a window."""
        found: list[float] = []
        with torch.no_grad():
            for i in range(0, self.held_out, self.windows):
                batch = self.batch(text, list(range(i, min(i + self.windows, self.held_out))))
                with self.amp():
                    logits = model(batch[:, :-1])
                found += [F.cross_entropy(row.float(), ids[1:]).item() for row, ids in zip(logits, batch, strict=True)]
        return found

    def start(self, arm: Arm) -> Any:
        """The model of an arm with its weights in place."""
        torch.manual_seed(arm.seed)
        if arm.blocks is None:
            from lightning.fabric import Fabric
            from litgpt.pretrain import initialize_weights

            model = self.model(arm.family, arm.size)
            initialize_weights(Fabric(devices=1), model, n_layer=arm.size, n_embd=model.config.n_embd)
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    torch.nn.init.ones_(parameter)
            return model
        weights = self.reference(arm.family)
        if arm.through:
            first = replace(arm, blocks=arm.through, through=(), steps=arm.steps // 4)
            self.train(first)
            weights = {
                name: tensor.detach().clone()
                for name, tensor in self.model(arm.family, len(arm.through)).state_dict().items()
            }
        model = self.model(arm.family, len(arm.blocks))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(_kept(weights, name, arm.blocks))
        return model

    def train(self, arm: Arm) -> dict[str, Any]:
        """An arm's curve and its last losses, window by window."""
        model = self.start(arm)
        groups: list[list[Tensor]] = [[], []]
        for parameter in model.parameters():
            groups[parameter.ndim == 1].append(parameter)
        kinds = [{"params": groups[0], "weight_decay": WEIGHT_DECAY}, {"params": groups[1], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(kinds, lr=arm.rate, betas=BETAS, fused=self.device.type == "cuda")
        teacher = self.teacher(arm) if arm.weight else None
        total = (len(self.texts["train"]) - 1) // self.length
        order = np.random.default_rng(arm.seed).permutation(total)
        steps = arm.steps - (arm.steps // 4 if arm.through else 0)
        looks = {0, 5, 10, 20, 40, 80, 160, 320, 480, steps}
        curve, spent = [], 0.0
        for step in range(steps + 1):
            if step in looks:
                curve.append((step, float(np.mean(self.losses(model, "val")))))
            if step == steps:
                break
            began = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = arm.rate * factor(step, steps)
            at = step * self.windows % (total - self.windows)
            batch = self.batch("train", order[at : at + self.windows].tolist())
            self.backward(model, batch, teacher, arm.weight)
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if self.device.type == "cuda" and (step % 20 == 0 or step + 1 in looks):
                torch.cuda.synchronize()
            spent += time.perf_counter() - began
        if arm.kept == "reference" and arm.blocks:
            torch.save(
                {name: tensor.cpu() for name, tensor in model.state_dict().items()},
                self.folder / f"{arm.family}_corrected.pth",
            )
        last = {text: self.losses(model, text) for text in ("val", "new")}
        return {
            "curve": curve,
            "last": last["val"],
            "new": last["new"],
            "seconds": spent,
            "parameters": sum(p.numel() for p in model.parameters()),
        }

    def backward(self, model: Any, batch: Tensor, teacher: Any, weight: float) -> None:
        inputs, targets = batch[:, :-1].contiguous(), batch[:, 1:].reshape(-1)
        # the logits of half of the windows at a time: a teacher's lie beside them
        parts = 2 if teacher is not None and not self.tiny else 1
        for x, y in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
            with self.amp():
                logits = model(x).flatten(0, 1)
            if teacher is None:
                loss = self.cross_entropy(logits, y)
            else:
                with torch.no_grad():
                    answers = teacher(x).flatten(0, 1)
                loss = self.distillation(logits, answers, y, weight)
            (loss / parts).backward()

    def keep(self, arm: Arm, found: dict[str, Any]) -> None:
        path = self.folder / "arms" / f"{arm.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        step_tokens = self.windows * self.length
        path.with_suffix(".part").write_text(
            json.dumps({**asdict(arm), **found, "step_tokens": step_tokens, "device": kind})
        )
        path.with_suffix(".part").replace(path)
        curve = " ".join(f"{step}:{loss:.3f}" for step, loss in found["curve"])
        speed = arm.steps * step_tokens / max(found["seconds"], 1e-9) / 1e3
        self.log(f"{arm.name}: {speed:.0f}K tokens/s, {curve}, new {np.mean(found['new']):.3f}")

    def found(self, arm: Arm) -> dict[str, Any] | None:
        path = self.folder / "arms" / f"{arm.name}.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def best(self, arms: list[Arm]) -> Arm:
        """That with the lowest loss on held-out text, of those that have ended."""
        if self.tiny:
            arms = [replace(arm, steps=4) for arm in arms]
        losses = {arm: float(np.mean(found["last"])) for arm in arms if (found := self.found(arm))}
        return min(losses, key=losses.__getitem__, default=arms[0])

    def run(self, arms: Iterator[Arm], seconds: float) -> None:
        """Trains what is missing; starts no arm that would not end in time, by the speed of those before it."""
        pace: dict[tuple[int, bool], float] = {}
        for arm in arms:
            arm = replace(arm, steps=4) if self.tiny else arm
            if self.found(arm):
                continue
            key = (len(arm.blocks or range(arm.size)), bool(arm.weight))
            if time.perf_counter() - self.began + pace.get(key, 0.0) * arm.steps > seconds:
                self.log(f"{arm.name}: no time")
                continue
            try:
                found = self.train(arm)
                self.keep(arm, found)
                pace[key] = min(1.1 * found["seconds"] / arm.steps, pace.get(key, math.inf))
            except (RuntimeError, OSError) as error:  # the other arms are worth having
                self.log(f"{arm.name}: failed: {error}")


def _tokens(path: Path) -> np.ndarray:
    with lzma.open(path) as file:
        return np.load(file)  # type: ignore[no-any-return, arg-type]


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets)


def _distillation(logits: Tensor, answers: Tensor, targets: Tensor, weight: float) -> Tensor:
    """(1 − weight) · cross-entropy + weight · KL(teacher ‖ target), temperature 1."""
    log_p, log_q = logits.float().log_softmax(-1), answers.float().log_softmax(-1)
    divergence = (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    return (1 - weight) * F.nll_loss(log_p, targets) + weight * divergence


def _kept(weights: dict[str, Tensor], name: str, blocks: tuple[Block, ...]) -> Tensor:
    if not name.startswith("transformer.h."):
        return weights["transformer.wte.weight" if name == "lm_head.weight" else name]
    number, rest = name.removeprefix("transformer.h.").split(".", 1)
    block = blocks[int(number)]
    sources = block if isinstance(block, tuple) else (block,)
    return torch.stack([weights[f"transformer.h.{source}.{rest}"] for source in sources]).mean(0)


def factor(step: int, steps: int) -> float:
    """What the peak rate is multiplied with: a linear warm-up, then a cosine down to a tenth."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    study = Study(args.folder, tiny=args.tiny)
    for family in args.family:
        whole = study.reference(family)
        model = study.start(Arm(family, "reference", tuple(range(study.depth(family))), 0, 0))
        untouched = {text: float(np.mean(study.losses(model, text))) for text in ("val", "new")}
        (args.folder / f"{family}.json").write_text(json.dumps(untouched))
        study.log(f"{family}: {len(whole)} tensors, the whole reference, not trained any further: {untouched}")
        study.run(ARMS[family](study.best), args.seconds)
    if study.device.type == "cuda":
        study.log(f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
