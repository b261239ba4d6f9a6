"""One candidate, trained for a short while by `inheritune pretrain`'s own function, and measured on held-out text."""

import shutil
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import pretrain
from inheritune_lit.base.files import read_json, write_json_whole
from inheritune_lit.base.precision import fastest
from inheritune_lit.checkpoint.folder import MODEL_CONFIG
from inheritune_lit.choose.candidates import Candidate
from inheritune_lit.evaluate import ValidationLoss
from inheritune_lit.pretrain.bar import Bar

if TYPE_CHECKING:
    import torch

SEED = 42


@dataclass(frozen=True)
class Batch:
    """Windows of an optimizer step: 1,024 tokens on a CPU, 32,768 on an accelerator."""

    max_seq_length: int
    global_batch_size: int
    micro_batch_size: int

    @classmethod
    def here(cls, max_seq_length: int | None, block_size: int) -> "Batch":
        """What this machine gets through in minutes."""
        import torch

        if torch.accelerator.is_available():
            length = max_seq_length or min(1024, block_size)
            return cls(length, max(2, 2**15 // length // 2 * 2), 2)  # not compiled, it needs more memory than a run
        length = max_seq_length or min(256, block_size)
        windows = max(1, 1024 // length)
        return cls(length, windows, windows)

    @property
    def tokens(self) -> int:
        """Of an optimizer step."""
        return self.global_batch_size * self.max_seq_length


@dataclass(frozen=True)
class Trial:
    """What all short trainings share."""

    reference: Path
    data: Path
    batch: Batch
    learning_rate: float
    tied: bool

    def recipe(self, start: Path, steps: int) -> dict[str, Any]:
        """The `litgpt pretrain` recipe of one of them, from the checkpoint in `start`."""
        import yaml

        from inheritune_lit.data.manifest import Manifest

        model_config = yaml.safe_load((start / MODEL_CONFIG).read_text(encoding="utf-8"))
        windows = max(1, Manifest(self.data).splits["train"].windows(self.batch.max_seq_length))
        needed = steps * self.batch.global_batch_size
        init_args = {"data_path": str(self.data), "epochs": -(-needed // windows), "seed": SEED, "num_workers": 0}
        adamw = {"lr": self.learning_rate, "weight_decay": 0.1, "betas": [0.9, 0.95]}
        return {
            "model_name": model_config["name"],
            "model_config": model_config,
            "initial_checkpoint_dir": str(start),
            "tokenizer_dir": str(start),
            "precision": fastest().precision,
            "devices": 1,
            "seed": SEED,
            "data": {"class_path": "inheritune_lit.data.PackedTokens", "init_args": init_args},
            "train": {
                "max_tokens": steps * self.batch.tokens,
                "max_seq_length": self.batch.max_seq_length,
                "global_batch_size": self.batch.global_batch_size,
                "micro_batch_size": self.batch.micro_batch_size,
                "lr_warmup_steps": max(1, steps // 20),
                "min_lr": self.learning_rate / 10,
                "max_norm": 1.0,
                "tie_embeddings": self.tied,
                "save_interval": None,
                "log_interval": 1,
            },
            "eval": {"interval": steps + 1, "initial_validation": False, "final_validation": False},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": adamw},
            "logger_name": "csv",
        }

    def run(self, candidate: Candidate, steps: int, work: Path, held_out: "list[torch.Tensor]") -> dict[str, Any]:
        """Loss after so many steps, kept in `work`: what an interrupted search has measured is not measured again.

        The weights are deleted when the loss is known.

        Args:
            candidate: What is trained.
            steps: Of the optimizer; the learning rate's schedule spans them.
            work: The folder for results and, while it trains, for the start and the run.
            held_out: Windows of token ids, (B, T + 1).

        Raises:
            InheritError: surgery or training failed.
        """
        name = f"{candidate.layers.replace(',', '_').replace(':', '.')}-{steps}"
        path = work / f"{name}.json"
        if path.is_file():
            return read_json(path, "result")
        began = time.perf_counter()
        start, run = work / f"{name}-start", work / name
        self._cut(candidate, start)
        with Bar(f"--layers {candidate.layers}") as bar:
            environment = {"TORCHDYNAMO_DISABLE": "1"}  # compiling takes longer than these steps
            pretrain.train(self.recipe(start, steps), run, on_progress=bar, environment=environment)
        loss = measured(run / "final", held_out)
        seconds = round(time.perf_counter() - began, 1)
        found: dict[str, Any] = {"steps": steps, "tokens": steps * self.batch.tokens, "seconds": seconds}
        found |= {"loss": loss.mean, "stderr": loss.stderr, "per_window": loss.per_window}
        write_json_whole(path, found)
        for folder in (run, start):
            shutil.rmtree(folder)
        return found

    def _cut(self, candidate: Candidate, start: Path) -> None:
        from inheritune_lit.surgery.command import surgery

        with redirect_stdout(StringIO()):  # its report would be repeated for each
            surgery(self.reference, layers=candidate.layers, out_dir=start)


def measured(checkpoint: Path, held_out: "list[torch.Tensor]") -> ValidationLoss:
    """A checkpoint's loss on these windows, on the device and in the type that are quickest here."""
    from inheritune_lit.base.precision import in_fast_type
    from inheritune_lit.checkpoint.model import load_model
    from inheritune_lit.evaluate import validation_loss
    from inheritune_lit.evaluate.loss import usable_device

    device = usable_device()
    return validation_loss(in_fast_type(load_model(checkpoint).to(device), device), held_out)


def flops_per_second() -> float:
    """What training makes of this machine, roughly: half of a float32 product's speed, or the plan's lower share."""
    import torch

    from inheritune_lit.plan.machines import MFU_LOW, peak_flops

    if torch.cuda.is_available():
        return MFU_LOW * (peak_flops(torch.cuda.get_device_name()) or 1e14)
    x = torch.ones(1024, 1024)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        x @ x
        times.append(time.perf_counter() - began)
    return 0.5 * 2 * 1024**3 / min(times)
