"""From candidates to the sample: shards with the chosen documents only, and those repeated that are to be."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep

from inheritune_lit.data.encoding import Encoder
from inheritune_lit.prepare.executor import advance
from inheritune_lit.prepare.sampling import SPACE, Cut
from inheritune_lit.prepare.shards import ShardSet, hash_file, index_file, read_record, write_record

BLOCK = 2**14  # documents copied at once


class ShardCutter(PipelineStep):
    """Writes what is chosen of the candidates of task `rank`, and the record of it.

    Args:
        candidates: Folder with DOMAIN/SPLIT/RANK.ds, *.ds.index, *.ds.hash and records/, by ShardWriter.
        out_dir: Folder of the shards.
        records_dir: Folder of the records.
        encoder: Knows the type of the token ids.
        cuts: What is taken of each domain. A validation document below the same bound is taken once.
    """

    type = "✂️ - CUTTER"
    name = "Token shards"

    def __init__(
        self, candidates: Path, out_dir: Path, records_dir: Path, encoder: Encoder, cuts: Mapping[str, Cut]
    ) -> None:
        super().__init__()
        self.candidates, self.out_dir, self.records_dir = candidates, out_dir, records_dir
        self.encoder, self.cuts = encoder, cuts

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Copies; the record is written last and made durable, before datatrove's completion marker."""
        record = read_record(self.candidates / "records", rank)
        shards = ShardSet(self.out_dir, rank, self.encoder)
        for shard in record["shards"]:
            cut = self.cuts[shard["domain"]]
            bounds = cut.copies * [SPACE] + [cut.bound]
            for bound in bounds if shard["split"] == "train" else [max(bounds)]:
                self._copy(self.candidates / shard["path"], bound, shards, (shard["domain"], shard["split"]))
        write_record(self.records_dir, rank, record | {"shards": shards.close()})

    def _copy(self, shard: Path, bound: int, shards: ShardSet, place: tuple[str, str]) -> None:
        """Appends the documents whose hash is below `bound` to the shard of that domain and split."""
        hashes, ends = np.fromfile(hash_file(shard), "<u8"), np.fromfile(index_file(shard), "<u8").astype(np.int64)
        dtype = np.dtype(self.encoder.dtype).newbyteorder("<")
        chosen = hashes <= np.uint64(bound - 1) if bound else np.zeros(len(hashes), bool)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        for block in range(0, len(hashes), BLOCK):
            part = slice(block, block + BLOCK)
            if not chosen[part].any():
                continue
            first, last = starts[part][0], ends[part][-1]
            tokens = np.fromfile(shard, dtype, count=last - first, offset=first * dtype.itemsize)
            lengths = (ends - starts)[part]
            kept = tokens[np.repeat(chosen[part], lengths)]
            shards[place].write(kept, np.cumsum(lengths[chosen[part]]).tolist(), [])
            advance(input_bytes=kept.nbytes)
