"""Documents → token shards: the last step of the pipeline, which splits, tokenizes and writes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.io import get_datafolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.tokens.tokenizer import TokenizedFile

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.file_system import sync
from inheritune_lit.base.files import read_json, sha256_file, write_json
from inheritune_lit.data.encoding import Encoded, Encoder
from inheritune_lit.prepare.executor import advance
from inheritune_lit.prepare.listing import SourceFile
from inheritune_lit.prepare.sampling import SPACE, sample_hash, split_of
from inheritune_lit.prepare.sources import EMPTY

BATCH_CHARACTERS = 2**20  # encoded at once: enough for every thread, little enough for memory
BATCH_DOCUMENTS = 1000
COPY_DOCUMENTS = 2**14  # copied at once


class ShardWriter(PipelineStep):
    """Writes the documents of task `rank` to DOMAIN/SPLIT/RANK.ds, and what it wrote to records/RANK.json.

    Args:
        out_dir: Folder of the shards.
        records_dir: Folder of the records, JSON.
        input_dir: Folder of the files.
        files: All files; task r of R has files[r::R].
        encoder: Text → ids.
        split: seed and val_share of split_of(), which files that are held out do not ask.
        rates: If given, the share of each domain's documents that is written, each with its sample_hash().
    """

    type = "✍️ - WRITER"
    name = "Token shards"

    def __init__(
        self,
        out_dir: Path,
        records_dir: Path,
        input_dir: str,
        files: list[SourceFile],
        encoder: Encoder,
        split: dict[str, Any],
        rates: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.out_dir, self.records_dir, self.input_dir = out_dir, records_dir, input_dir
        self.files, self.encoder, self.split, self.rates = files, encoder, split, rates

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> None:
        """Consumes the documents; the record is written last and made durable, before datatrove's completion marker."""
        files = {file.path: file for file in self.files[rank::world_size]}
        shards = ShardSet(self.out_dir, rank, self.encoder, hashes=self.rates is not None)
        bad: list[dict[str, Any]] = []
        special: Counter[str] = Counter()
        good = 0
        for batch in _batches(data or []):
            chosen: list[tuple[tuple[str, str], int, str]] = []
            for document in batch:
                if "problem" in document.metadata:
                    bad.append(document.metadata)
                    continue
                good += 1
                file, number = files[document.metadata["file"]], sample_hash(document.text, self.split["seed"])
                if self.rates is None or number < self.rates[file.domain] * SPACE:
                    split = "val" if file.held_out else split_of(document.text, **self.split)
                    chosen.append(((file.domain, split), number, document.text))
            with self.track_time(unit="batch"):
                encoded = self.encoder.encode([text for _, _, text in chosen])
            shards.write([place for place, _, _ in chosen], encoded, [number for _, number, _ in chosen])
            special += encoded.special
            self.stat_update("tokens", value=len(encoded.ids), unit="batch")
            advance(tokens=len(encoded.ids))
        empty = {entry["file"] for entry in bad if entry["problem"] == EMPTY}
        quarantine = [entry for entry in bad if entry["problem"] != EMPTY]
        record = {
            "files": [self._file_record(file, file.path in empty) for file in files.values()],
            "documents": good + len(quarantine),
            "quarantine": quarantine,
            "special_tokens": special,
            "shards": shards.close(),
        }
        self.records_dir.mkdir(parents=True, exist_ok=True)
        write_json(self.records_dir / f"{rank:05d}.json", record)

    def _file_record(self, file: SourceFile, empty: bool) -> dict[str, Any]:
        folder = get_datafolder(self.input_dir)
        info = folder.info(file.path)
        if info["size"] != file.size:
            raise InheritError(
                f"{folder.resolve_paths(file.path)} changed while it was read: {file.size} bytes before, "
                f"{info['size']} now. Start over."
            )
        # a hub tells the hash of a file; reading it again to compute one would mean to download it twice
        known = (info.get("lfs") or {}).get("sha256") or info.get("blob_id")
        sha256 = sha256_file(Path(folder.path) / file.path) if folder.is_local() else known
        return {"path": file.path, "size": file.size, "sha256": sha256} | ({"empty": True} if empty else {})


class ShardSet:
    """The shards that one task writes, one for each domain and split that it has documents of.

    With `hashes`, each document's sample_hash() goes to a file *.ds.hash beside the shard, little-endian uint64.
    """

    def __init__(self, folder: Path, rank: int, encoder: Encoder, *, hashes: bool = False) -> None:
        self._folder, self._rank, self._encoder, self._hashes = folder, rank, encoder, hashes
        self._shards: dict[tuple[str, str], _Shard] = {}

    def __getitem__(self, place: tuple[str, str]) -> "_Shard":
        if place not in self._shards:
            domain, split = place
            self._shards[place] = _Shard(self._folder, f"{domain}/{split}/{self._rank:05d}.ds", self._encoder)
        return self._shards[place]

    def write(self, places: Sequence[tuple[str, str]], encoded: Encoded, numbers: Sequence[int]) -> None:
        """Appends documents, each to its place, (domain, split); `numbers` are their sample_hash()."""
        for place in dict.fromkeys(places):
            mine = np.array([found == place for found in places])
            ids = encoded.ids if mine.all() else encoded.ids[np.repeat(mine, encoded.lengths)]
            ends = np.cumsum(encoded.lengths[mine]).tolist()
            self[place].write(ids, ends, np.array(numbers, np.uint64)[mine] if self._hashes else None)

    def copy(self, shard: Path, bound: int, place: tuple[str, str]) -> None:
        """Appends those documents of another shard whose sample_hash() is below `bound`."""
        hashes, ends = read_candidates(shard)
        # a bound may be 2^64, more than a hash can be compared with
        chosen = hashes <= np.uint64(bound - 1) if bound else np.zeros(len(hashes), bool)
        starts = np.concatenate([[0], ends[:-1]])
        dtype = np.dtype(self._encoder.dtype).newbyteorder("<")
        for block in range(0, len(chosen), COPY_DOCUMENTS):
            part = slice(block, block + COPY_DOCUMENTS)
            if chosen[part].any():
                first, last = starts[part][0], ends[part][-1]
                tokens = np.fromfile(shard, dtype, count=last - first, offset=first * dtype.itemsize)
                lengths = (ends - starts)[part]
                kept = tokens[np.repeat(chosen[part], lengths)]
                self[place].write(kept, np.cumsum(lengths[chosen[part]]).tolist())

    def close(self) -> list[dict[str, Any]]:
        """Closes and makes durable; returns what there is to know of each shard."""
        if self._hashes:
            for shard in self._shards.values():
                np.concatenate(shard.numbers).astype("<u8").tofile(f"{shard.path}.hash")
        return [{"domain": domain, "split": split, **shard.close()} for (domain, split), shard in self._shards.items()]


def read_candidates(shard: Path) -> tuple[np.ndarray, np.ndarray]:
    """The sample_hash() of each document of a shard, uint64, and where it ends, in tokens, int64."""
    return np.fromfile(f"{shard}.hash", "<u8"), np.fromfile(f"{shard}.index", "<u8").astype(np.int64)


class _Shard:
    """A datatrove TokenizedFile that counts, and refuses ids that the tokenizer does not have."""

    def __init__(self, folder: Path, path: str, encoder: Encoder) -> None:
        self.path, self._name, self._encoder = folder / path, path, encoder
        self._dtype = np.dtype(encoder.dtype).newbyteorder("<")
        self._file = TokenizedFile(str(folder), path, token_size=self._dtype.itemsize)
        self._max_token_id = -1
        self.numbers = [np.empty(0, np.uint64)]
        """sample_hash() of the documents, where it is asked for."""

    def write(self, ids: np.ndarray, ends: Sequence[int], numbers: np.ndarray | None = None) -> None:
        """Appends documents, given their ids one after the other, where each ends in them, and their hashes."""
        if len(ids):
            self._max_token_id = max(self._max_token_id, int(ids.max()))
        if self._max_token_id >= self._encoder.vocab_size:
            raise InheritError(
                f"The tokenizer gave the token id {self._max_token_id} but its vocabulary ends at "
                f"{self._encoder.vocab_size - 1}: tokenizer file and configuration do not belong together."
            )
        if self._encoder.embeddings is not None and self._max_token_id >= self._encoder.embeddings:
            raise InheritError(
                f"A text for {self.path} has the token id {self._max_token_id}, but the model beside the tokenizer has "
                f"embeddings for {self._encoder.embeddings:,} only. Remove the text, or use the model's own tokenizer."
            )
        self._file.write_bytes(ids.astype(self._dtype).tobytes(), list(ends))
        if numbers is not None:
            self.numbers.append(numbers)

    def close(self) -> dict[str, Any]:
        """Closes and makes durable; returns path, tokens, documents, max_token_id and sha256."""
        self._file.close()
        for written in (self.path, Path(f"{self.path}.index")):  # the second by datatrove: where each document ends
            sync(written)
        return {
            "path": self._name,
            "tokens": len(self._file),
            "documents": len(self._file.doc_ends),
            "max_token_id": self._max_token_id,
            "sha256": sha256_file(self.path),
        }


def read_record(folder: Path, rank: int) -> dict[str, Any]:
    """What a task did, as its ShardWriter wrote it."""
    return read_json(folder / f"{rank:05d}.json", f"record of task {rank}")


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= BATCH_CHARACTERS or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
