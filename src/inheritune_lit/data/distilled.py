"""DistilledTokens: PackedTokens whose target learns from a teacher's logits too, inside plain `litgpt pretrain`.

Its loss stands in tokens.chunked_cross_entropy's place. What it returns is always litGPT's own cross-entropy, so that
curves compare; in training it has another gradient.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from litgpt.utils import chunked_cross_entropy as litgpt_cross_entropy
from torch import Tensor

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.paths import problem_of
from inheritune_lit.checkpoint.folder import checkpoint_folder
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.checkpoint.opening import open_weights
from inheritune_lit.data.encoding import open_tokenizer
from inheritune_lit.data.teacher import check_teacher
from inheritune_lit.data.tokens import PackedTokens, TrainLoader

CHUNK = 256  # tokens whose probabilities are held at a time, in float32: 50 MB for a vocabulary of 50,000


@dataclass(kw_only=True)
class DistilledTokens(PackedTokens):
    """Token shards that `inheritune prepare` wrote, and a frozen teacher to learn from, for `litgpt pretrain`.

    The gradient is that of (1 − weight)·CE + weight·temperature²·KL(teacher ‖ target); training and validation losses
    are plain cross-entropy, in nats. With weight 0 no teacher is loaded, and the run is PackedTokens' to the bit.
    A copy of the teacher is on each rank's device, outside of what litGPT compiles, shards and saves.
    """

    teacher_dir: Path
    """The teacher's checkpoint folder, litGPT's or Hugging Face's, with the tokenizer of the data"""
    weight: float
    """The teacher's share of the loss, 0 to 1; the labels have the rest"""
    temperature: float = 1.0
    """What both models' logits are divided by, 0.01 to 100"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (("weight", 0, 1), ("temperature", 0.01, 100)):
            if not low <= (value := getattr(self, name)) <= high:
                raise InheritError(f"data.init_args.{name} is {value}, expected {low} to {high}.")
        if problem := problem_of(str(self.teacher_dir)):
            raise InheritError(f"data.init_args.teacher_dir {str(self.teacher_dir)!r} {problem}. Write it out in full.")

    def connect(self, *args: Any, **options: Any) -> None:
        """As PackedTokens' connect; finds the teacher besides."""
        super().connect(*args, **options)
        if self.weight:
            self.find_teacher()

    def find_teacher(self) -> None:
        """Checks the teacher against the shards and the windows.

        Raises:
            InheritError: it is not whole, does not fit the windows, or has another tokenizer than the data.
        """
        self.folder = checkpoint_folder(self.teacher_dir)
        largest = max(split.max_token_id for split in self.manifest.splits.values())
        check_teacher(self.folder, self.max_seq_length, largest)
        open_weights(self.folder)
        theirs, ours = open_tokenizer(self.folder)[1], self.manifest.tokenizer
        if theirs["identity"] != ours["identity"]:
            raise InheritError(
                f"The teacher's tokenizer is another one than that of {self.data_path}: {self.folder / theirs['file']} "
                f"of {theirs['vocab_size']:,} tokens, identity {theirs['identity'][:16]}…, expected "
                f"{ours['vocab_size']:,} tokens, {ours['identity'][:16]}…. Take a teacher with the data's tokenizer."
            )

    def setup(self, *args: Any, **options: Any) -> None:
        """Reads the teacher, all bytes of it; it goes to the device with the first micro-batch."""
        super().setup(*args, **options)
        if self.weight:
            self.teacher = load_model(self.folder).requires_grad_(False)
            self.place: torch.device | None = None

    def train_dataloader(self) -> TrainLoader:
        loader = super().train_dataloader()
        if self.weight:
            loader.loss = self.loss
            teacher = open_weights(self.folder)[1].fingerprint()
            loader.identity |= {"teacher": teacher, "weight": self.weight, "temperature": self.temperature}
        return loader

    def loss(self, tokens: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy in nats per token, with the gradient of learning from the teacher.

        Args:
            tokens: (B, T + 1) those of the micro-batch.
            logits: (B, T, V) the target's, of all tokens but the last.
            targets: (B, T) what litGPT takes for the next tokens.

        Raises:
            InheritError: litGPT's targets are not the micro-batch's next tokens, so that the teacher's would not match.
        """
        tokens = tokens.long()
        if not torch.equal(targets, tokens[:, 1:]):  # waits for the device, as litGPT's running mean does anyway
            raise InheritError(
                "litGPT's targets are not the micro-batch's tokens, each moved by one: the teacher's logits would be "
                "those of other positions. Is this the version of litGPT that inheritune_lit asks for?"
            )
        if self.place != logits.device:
            self._move_teacher(logits.device)
        with torch.no_grad():
            value, taught = litgpt_cross_entropy(logits, targets), self.teacher(tokens[:, :-1]).flatten(0, 1)
            flat = logits.flatten(0, 1)
            gradient = gradient_of(flat, taught, targets.flatten(), self.weight, self.temperature)
        loss: Tensor = _WithGradient.apply(logits, value, gradient.view_as(logits))
        return loss

    def _move_teacher(self, device: torch.device) -> None:
        """In bfloat16; on a CPU in float32, always, as a resumed run has to go on with the same teacher to the bit."""
        self.teacher.to(device, torch.float32 if device.type == "cpu" else torch.bfloat16)
        self.teacher.cos, self.teacher.sin = self.teacher.rope_cache(device)  # positions stay float32, as in training
        self.place = device


def gradient_of(logits: Tensor, taught: Tensor, targets: Tensor, weight: float, temperature: float) -> Tensor:
    """The gradient of the mean over N tokens of (1 − weight)·CE + weight·temperature²·KL(teacher ‖ target).

    Each distribution is over all rows of its model's head, as litGPT's cross-entropy has it. Where the heads are padded
    to different sizes, rows of the teacher that the target lacks are cut off, and those that it lacks itself have
    probability 0.

    Args:
        logits: (N, V) the target's.
        taught: (N, any) the teacher's.
        targets: (N,) the next tokens.
        weight: The teacher's share.
        temperature: What logits are divided by.

    Returns:
        (N, V), of the logits' type.
    """
    gradient = torch.empty_like(logits)
    kind = torch.promote_types(logits.dtype, torch.float32)
    for start in range(0, len(targets), CHUNK):
        rows = slice(start, start + CHUNK)
        own, theirs = logits[rows].to(kind), taught[rows, : logits.size(1)].to(kind)
        soft = torch.softmax(own / temperature, dim=-1)
        soft[:, : theirs.size(1)] -= torch.softmax(theirs / temperature, dim=-1)
        hard = torch.softmax(own, dim=-1)
        hard.scatter_add_(1, targets[rows, None], hard.new_full((len(hard), 1), -1.0))
        soft.mul_(weight * temperature).add_(hard, alpha=1 - weight)
        gradient[rows] = soft.div_(len(targets))
    return gradient


class _WithGradient(torch.autograd.Function):
    """A value whose gradient was computed with it."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_(upstream[0]), None, None
