"""PackedTokens: litGPT's data module over token shards, in one order for any number of ranks and workers.

A split's stream is all its shards, one after the other. It is cut into windows of T + 1 tokens that overlap by one, so
that every token is a target once an epoch; only the first token and a tail shorter than a window are none. Epoch e is a
permutation of the windows given by (seed, e), and the global order is one epoch after the other. An optimizer step
takes the next G windows of it, G the global batch: rank r of R has every R-th.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litgpt.data import DataModule
from litgpt.tokenizer import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from inheritune_lit.commit import InheritError
from inheritune_lit.data.encoding import identity, vocabulary_size
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.gpt2.model import place

# litGPT's parser imports this module for a recipe's data, before it builds the model
place()


class Windows(Dataset[Tensor]):
    """A split's stream of tokens, cut into windows of T + 1 that overlap by one.

    Args:
        manifest: Of the folder of shards.
        split: train or val.
        max_seq_length: T, tokens a window has as input.

    Raises:
        InheritError: the split has not enough tokens for one window.
    """

    def __init__(self, manifest: Manifest, split: str, max_seq_length: int) -> None:
        self.max_seq_length = max_seq_length
        self.stream = manifest.splits[split]
        self._dtype = np.dtype(manifest.dtype).newbyteorder("<")
        self._paths = [manifest.folder / shard.path for shard in self.stream.shards]
        self._ends = np.cumsum([shard.tokens for shard in self.stream.shards], dtype=np.int64)
        self._vocab_size = manifest.tokenizer["vocab_size"]
        if len(self) < 1:
            raise InheritError(
                f"{manifest.folder}: the split {split!r} has {self.stream.tokens:,} tokens, fewer than one window of "
                f"{max_seq_length + 1:,}. Prepare more text, hold out more of it (val_share), or lower "
                "train.max_seq_length."
            )

    def __len__(self) -> int:
        return max(0, (self.stream.tokens - 1) // self.max_seq_length)

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        """Windows by their numbers, (B, T + 1), int64: what DataLoader's fetcher asks for a whole batch with.

        Raises:
            InheritError: a token id is none of the tokenizer's: the shard is damaged.
        """
        batch = np.empty((len(indices), self.max_seq_length + 1), dtype=np.int64)
        for window, index in zip(batch, indices, strict=True):
            self._read(index * self.max_seq_length, window)
        if batch.max() >= self._vocab_size:
            row, column = np.argwhere(batch >= self._vocab_size)[0]
            position = indices[row] * self.max_seq_length + int(column)
            raise InheritError(
                f"{self._paths[self._shard_at(position)]} is damaged: token id {batch[row, column]} at token "
                f"{position:,} of the stream, but the vocabulary ends at {self._vocab_size - 1}. Copy the folder again "
                "or prepare it again."
            )
        return torch.from_numpy(batch)

    def _read(self, start: int, window: np.ndarray) -> None:
        """Fills `window` with the tokens from `start` on, out of one shard or several."""
        shard, filled = self._shard_at(start), 0
        while filled < len(window):
            tokens = self._shards[shard]
            offset = start + filled - (int(self._ends[shard]) - len(tokens))
            part = tokens[offset : offset + len(window) - filled]
            window[filled : filled + len(part)] = part
            filled += len(part)
            shard += 1

    def _shard_at(self, position: int) -> int:
        return int(np.searchsorted(self._ends, position, side="right"))

    @cached_property
    def _shards(self) -> "list[np.ndarray]":
        """The shards, mapped: bytes are read when they are used. An empty file can't be mapped."""
        return [self._mapped(path, shard.tokens) for path, shard in zip(self._paths, self.stream.shards, strict=True)]

    def _mapped(self, path: Path, tokens: int) -> np.ndarray:
        if not tokens:
            return np.empty(0, self._dtype)
        try:  # of this length and no other: a worker may map it long after it was checked
            return np.memmap(path, dtype=self._dtype, mode="r", shape=(tokens,))
        except (OSError, ValueError) as error:
            raise InheritError(f"{path} has changed since training began: {error}. Copy the folder again.") from error

    def __getstate__(self) -> dict[str, Any]:
        # a spawned worker maps the shards itself: pickled, a map would be all its tokens
        return {name: value for name, value in self.__dict__.items() if name != "_shards"}


def epoch_order(windows: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of the windows 0 … `windows` - 1 that is an epoch: the same for ever and everywhere.

    NumPy keeps the output of its legacy generator frozen (NEP 19); that of its new one and of torch.randperm may change
    with a version, and with it what a recipe trains on.
    """
    order = np.arange(windows, dtype=np.uint32 if windows <= 2**32 else np.uint64)  # 100 MB for 50B tokens at T = 2048
    np.random.RandomState([seed, epoch]).shuffle(order)
    return order


class GlobalOrder(DistributedSampler[int]):
    """The window numbers that one rank reads: every R-th of the global order, from global sample `start` on.

    It is a DistributedSampler because Fabric replaces any other sampler when there are several ranks.

    Args:
        windows: The data set.
        seed: Of the order; None is the order of the text.
        epochs: How many epochs follow one another.
        batch_size: Windows in a micro-batch. What does not fill one on every rank is left out.
        rank: This rank.
        ranks: How many there are.
    """

    def __init__(
        self, windows: Windows, *, seed: int | None, epochs: int, batch_size: int, rank: int = 0, ranks: int = 1
    ) -> None:
        super().__init__(windows, num_replicas=ranks, rank=rank, shuffle=seed is not None)
        self.windows, self.order_seed, self.total = len(windows), seed, epochs * len(windows)
        self.micro_batch = batch_size * ranks
        """Windows that all ranks take together at a time"""
        self.start = 0

    def __len__(self) -> int:
        return (self.total - self.start) // self.micro_batch * self.micro_batch // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        current, order = -1, np.empty(0)
        for i in range(len(self)):
            epoch, position = divmod(self.start + i * self.num_replicas + self.rank, self.windows)
            if self.order_seed is None:
                yield position
                continue
            if epoch != current:
                current, order = epoch, epoch_order(self.windows, self.order_seed, epoch)
            yield int(order[position])

    def set_epoch(self, epoch: int) -> None:
        """Fabric calls it with the number of passes over the loader, which says nothing about our epochs."""


class TrainLoader(DataLoader[Tensor]):
    """All epochs in one pass, from where `load_state_dict` says; its state is the number of global samples consumed.

    litGPT would start the loader anew for every epoch, and after a resume cycle its tail only (litgpt issue 1712).
    """

    def __init__(self, order: GlobalOrder, windows: Windows, **options: Any) -> None:
        super().__init__(windows, sampler=order, **options)
        self.order, self.windows = order, windows
        self.consumed = 0
        self._identity = {
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
        return {"consumed": self.consumed, **self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on after the samples that the checkpoint's run has consumed; with any number of ranks and micro-batch.

        Raises:
            InheritError: the checkpoint's run read other data, or in another order.
        """
        lines = [
            f"{name}: {state.get(name)!r} in the checkpoint, {now!r} now"
            for name, now in self._identity.items()
            if state.get(name) != now
        ]
        if lines:
            raise InheritError(
                "\n  ".join(["The run to resume was trained on other data or in another order:", *lines])
                + "\nResume with the data, data seed and max_seq_length it had, or start a new run from its weights."
            )
        self.consumed = self.order.start = state["consumed"]


class MicroBatch:
    """A micro-batch as litGPT uses it, `batch[:, a:b]`; it counts as consumed when it is first looked into.

    litGPT fetches one more than it trains on before it sees that its token budget is spent. So the last checkpoint of a
    run must not count it, and the one after the end of the data, which holds no tokens, is an error only if it is used.
    """

    def __init__(self, loader: TrainLoader, tokens: Tensor | None, end: int) -> None:
        self._loader, self._tokens, self._end = loader, tokens, end

    def to(self, device: torch.device) -> "MicroBatch":
        if self._tokens is not None:
            self._tokens = self._tokens.to(device, non_blocking=True)
        return self

    def __getitem__(self, key: Any) -> Tensor:
        if self._tokens is None:
            windows, total = self._loader.windows, self._loader.order.total
            epochs = total // len(windows)
            raise InheritError(
                f"The training data are used up: {epochs} epoch{'s' * (epochs > 1)} over {len(windows):,} windows of "
                f"{windows.max_seq_length:,} tokens, {self._end:,} of these {total:,} trained on. Raise "
                f"data.init_args.epochs, or lower train.max_tokens to {self._end * windows.max_seq_length}."
            )
        self._loader.consumed = self._end
        return self._tokens[key]


def _as_it_is(batch: Any) -> Any:
    return batch


@dataclass
class PackedTokens(DataModule):
    """Token shards that `inheritune prepare` wrote, for `litgpt pretrain`.

    The batches of every optimizer step depend on the shards, the seed, max_seq_length and global_batch_size alone: not
    on the number of ranks, of workers or the micro-batch. A resumed run goes on with the next sample.
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
                    f"{found[:16]}…. Point tokenizer_dir at the model's own folder, or prepare the data with it."
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
