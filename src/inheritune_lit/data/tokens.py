"""PackedTokens: litGPT's data module over token shards, in the global order of `order.py`, and its exact resume."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import litgpt.pretrain
import torch
from litgpt.data import DataModule
from litgpt.tokenizer import Tokenizer
from litgpt.utils import chunked_cross_entropy as litgpt_cross_entropy
from torch import Tensor
from torch.utils.data import DataLoader

from inheritune_lit.base.differences import differences
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.paths import problem_of
from inheritune_lit.data import BEGINS, TELL
from inheritune_lit.data.encoding import identity, vocabulary_size
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.data.order import GlobalOrder, Windows
from inheritune_lit.data.tokenizer import install_in_litgpt as install_tokenizer
from inheritune_lit.data.trace import Trace
from inheritune_lit.gpt2.install import install_in_litgpt as place_gpt2

# litGPT's parser imports this module for a recipe's data, before it opens the tokenizer and builds the model
install_tokenizer()
place_gpt2()


class TrainLoader(DataLoader[Tensor]):
    """All epochs in one pass, from where `load_state_dict` says; its state is the number of global samples consumed.

    litGPT would start the loader anew for every epoch, and after a resume cycle its tail only (litgpt issue 1712).
    """

    def __init__(self, order: GlobalOrder, windows: Windows, **options: Any) -> None:
        super().__init__(windows, sampler=order, **options)
        self.order, self.windows = order, windows
        self.consumed = 0
        self.to_tell = 2 if os.environ.get(TELL) and order.rank == 0 else 0
        self.trace = Trace(order.rank, order.num_replicas)
        self.loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
        """Of a micro-batch's tokens, logits and targets, where it is not litGPT's cross-entropy"""
        self.identity: dict[str, Any] = {
            "seed": order.order_seed,
            "max_seq_length": windows.max_seq_length,
            "tokens": windows.stream.tokens,
            "sha256": windows.stream.sha256,
        }

    def __len__(self) -> int:
        """Micro-batches of all epochs, wherever it goes on: litGPT takes train.lr_warmup_fraction of it."""
        return self.order.total // self.order.micro_batch

    def __iter__(self) -> Iterator["MicroBatch"]:  # type: ignore[override]
        end = self.order.start = self.consumed
        for tokens in super().__iter__():
            end += self.order.micro_batch
            yield MicroBatch(self, tokens, end)
        yield MicroBatch(self, None, end)

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed, **self.identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on after the samples that the checkpoint's run has consumed; with any number of ranks and micro-batch.

        Raises:
            InheritError: the checkpoint's run read other data, or in another order, or had another teacher.
        """
        before = {name: value for name, value in state.items() if name != "consumed"}
        if lines := differences(before, self.identity):
            raise InheritError.listing(
                "The run to resume was trained on other data, in another order or by another teacher",
                lines,
                "Resume with the data settings and max_seq_length it had, or start a new run from its weights.",
            )
        self.consumed = self.order.start = state["consumed"]


class MicroBatch:
    """A micro-batch as litGPT uses it, `batch[:, a:b]`; it counts as consumed when it is first looked into.

    litGPT fetches one more than it trains on before it sees that its token budget is spent. So the last checkpoint of a
    run must not count it, and the one after the end of the data, which holds no tokens, is an error only if it is used.
    """

    latest: ClassVar["MicroBatch | None"] = None
    """The one that was looked into last, which litGPT trains on now"""

    def __init__(self, loader: TrainLoader, tokens: Tensor | None, end: int) -> None:
        self.loader, self.tokens, self._end = loader, tokens, end

    def to(self, device: torch.device) -> "MicroBatch":
        if self.tokens is not None:
            self.tokens = self.tokens.to(device, non_blocking=True)
        return self

    def __getitem__(self, key: Any) -> Tensor:
        if self.tokens is None:
            windows, total = self.loader.windows, self.loader.order.total
            epochs = total // len(windows)
            raise InheritError(
                f"The training data are used up: {epochs} epoch{'s' * (epochs > 1)} over {len(windows):,} windows of "
                f"{windows.max_seq_length:,} tokens, {self._end:,} of these {total:,} trained on. Raise "
                f"data.init_args.epochs, or lower train.max_tokens to {self._end * windows.max_seq_length}."
            )
        if self.loader.to_tell and self.loader.consumed != self._end:  # litGPT looks into each twice
            print(BEGINS.format(3 - self.loader.to_tell), flush=True)
            self.loader.to_tell -= 1
        self.loader.consumed, MicroBatch.latest = self._end, self
        return self.tokens[key]


def chunked_cross_entropy(logits: Any, targets: Tensor, *args: Any, **options: Any) -> Tensor:
    """litGPT's function of this name, but for micro-batches whose loader has a loss of its own; the first are noted.

    Validation computes no gradients, and litGPT's count of FLOPs, on the meta device, has no micro-batch.
    """
    batch = MicroBatch.latest
    if not torch.is_grad_enabled() or targets.is_meta or batch is None:
        return litgpt_cross_entropy(logits, targets, *args, **options)
    assert batch.tokens is not None  # else looking into it would have been an error
    loader, own = batch.loader, batch.loader.loss
    loss = own(batch.tokens, logits, targets) if own else litgpt_cross_entropy(logits, targets, *args, **options)
    loader.trace.note(loader.consumed, loader.order.micro_batch, loss.detach())
    return loss


litgpt.pretrain.chunked_cross_entropy = chunked_cross_entropy


def _as_it_is(batch: Any) -> Any:
    return batch


@dataclass
class PackedTokens(DataModule):
    """Token shards that `inheritune prepare` wrote, for `litgpt pretrain`.

    The batches of every optimizer step depend on the shards, the seed, max_seq_length and global_batch_size alone: not
    on the number of ranks, of workers or the micro-batch. A resumed run continues with the next sample.
    """

    data_path: Path
    """The folder that `inheritune prepare` wrote"""
    epochs: int = 1
    """How often training may go over the data; running out of them before train.max_tokens is an error"""
    seed: int = 42
    """The seed of the order, 0 to 4294967295"""
    num_workers: int = 2
    """Processes that read ahead, for each rank; 0 reads in the training process"""

    batch_size: int = field(init=False, repr=False, default=1)
    max_seq_length: int = field(init=False, repr=False, default=2048)

    def __post_init__(self) -> None:
        super().__init__()
        for name, low, high in (("epochs", 1, 2**31), ("seed", 0, 2**32 - 1), ("num_workers", 0, 2**10)):
            if not low <= (value := getattr(self, name)) <= high:
                raise InheritError(f"data.init_args.{name} is {value}, expected {low} to {high}.")
        if problem := problem_of(str(self.data_path)):
            raise InheritError(f"data.init_args.data_path {str(self.data_path)!r} {problem}. Write it out in full.")

    def connect(
        self,
        tokenizer: Tokenizer | None = None,
        batch_size: int = 1,
        max_seq_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Takes litGPT's settings and checks the shards against them, before any training.

        Args:
            tokenizer: That of the model; None, when a recipe has no tokenizer_dir, leaves it unchecked.
            batch_size: Windows in a micro-batch.
            max_seq_length: T, tokens a window has as input.

        Raises:
            InheritError: the shards are missing or not whole, are of another tokenizer, or have token ids beyond it.
        """
        self.batch_size = batch_size
        self.max_seq_length = max_seq_length or self.max_seq_length
        self.manifest = Manifest(Path(self.data_path))
        self.manifest.check_files()
        known = self.manifest.tokenizer
        size = known["vocab_size"]
        if tokenizer is not None:
            size = vocabulary_size(tokenizer)
            if (found := identity(tokenizer)) != known["identity"]:
                raise InheritError(
                    f"{self.data_path} was tokenized with another tokenizer than tokenizer_dir's: {known.get('file')} "
                    f"of {known['vocab_size']:,} tokens, identity {known['identity'][:16]}…, got {size:,} tokens, "
                    f"{found[:16]}…. Point tokenizer_dir at the model's own folder, or prepare the data "
                    "with it."
                )
        for split, stream in self.manifest.splits.items():
            if stream.max_token_id >= size:
                raise InheritError(
                    f"{self.data_path}: the split {split!r} has the token id {stream.max_token_id}, the vocabulary "
                    f"ends at {size - 1}. Prepare the data again with the model's tokenizer."
                )

    def train_dataloader(self) -> TrainLoader:
        ranks, rank = 1, 0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        windows = Windows(self.manifest, "train", self.max_seq_length)
        order = GlobalOrder(
            windows, seed=self.seed, epochs=self.epochs, batch_size=self.batch_size, rank=rank, ranks=ranks
        )
        return TrainLoader(order, windows, **self._options())

    def val_dataloader(self) -> DataLoader[Tensor]:
        """The held-out windows in the order of the text, the same on every rank: litGPT reports rank 0's loss only."""
        windows = Windows(self.manifest, "val", self.max_seq_length)
        # a smaller last micro-batch would count as much as a whole one in litGPT's mean
        order = GlobalOrder(windows, seed=None, epochs=1, batch_size=min(self.batch_size, len(windows)))
        return DataLoader(windows, sampler=order, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "collate_fn": _as_it_is,
            "pin_memory": torch.cuda.is_available(),
        }
