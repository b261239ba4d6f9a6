"""A stream of tokens as windows, and the order in which they are trained on, for any number of ranks and workers.

A split's stream is all its shards, one after the other. It is cut into windows of T + 1 tokens that overlap by one, so
that every token is a target once an epoch; only the first token and a tail shorter than a window are none. Epoch e is a
permutation of the windows given by (seed, e), and the global order is one epoch after the other. An optimizer step
takes the next G windows of it, G the global batch: rank r of R has every R-th.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from inheritune_lit.base.errors import InheritError
from inheritune_lit.data.manifest import Manifest


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
        self._dtype = np.dtype(manifest.stored)
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
        return self.stream.windows(self.max_seq_length)

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
