"""Documents → token shards: the last step of the pipeline, which splits, tokenizes and writes."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.tokens.tokenizer import TokenizedFile

from inheritune_lit.commit import InheritError, sha256_file, write_json
from inheritune_lit.data.encoding import Encoder
from inheritune_lit.data.executor import advance
from inheritune_lit.data.sources import SourceFile

BATCH_CHARACTERS = 2**20  # encoded at once: enough for every thread, little enough for memory
BATCH_DOCUMENTS = 1000


def split_of(text: str, path: str, seed: int, val_share: float, val_glob: str | None) -> str:
    """train or val, by what the document says and not by where it stands: it stays when the corpus grows.

    Args:
        text: The document.
        path: Its file, relative to the input folder.
        seed: Another seed, another choice.
        val_share: The share of documents that go to val, 0 to 1.
        val_glob: Files whose documents all go to val; `*` matches across folders.
    """
    if val_glob is not None and fnmatchcase(path, val_glob):
        return "val"
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest()
    return "val" if int.from_bytes(digest, "big") < val_share * 2**64 else "train"


class ShardWriter(PipelineStep):
    """Writes the documents of task `rank` to DOMAIN/SPLIT/RANK.ds, and what it wrote to records/RANK.json.

    Args:
        out_dir: Folder of the shards.
        records_dir: Folder of the records, JSON.
        input_dir: Folder of the files.
        files: All files; task r of R has files[r::R].
        encoder: Text → ids.
        split: seed, val_share and val_glob of split_of().
    """

    type = "✍️ - WRITER"
    name = "Token shards"

    def __init__(
        self,
        out_dir: Path,
        records_dir: Path,
        input_dir: Path,
        files: list[SourceFile],
        encoder: Encoder,
        split: dict[str, Any],
    ) -> None:
        super().__init__()
        self.out_dir, self.records_dir, self.input_dir = out_dir, records_dir, input_dir
        self.files, self.encoder, self.split = files, encoder, split

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> None:
        """Consumes the documents; the record is written last and made durable, before datatrove's completion marker."""
        files = {file.path: file for file in self.files[rank::world_size]}
        shards: dict[tuple[str, str], _Shard] = {}
        blank = 0
        for batch in _batches(data or []):
            documents = [document for document in batch if document.text.strip()]
            blank += len(batch) - len(documents)
            with self.track_time(unit="batch"):
                encoded = self.encoder.encode_batch([document.text for document in documents])
            for document, ids in zip(documents, encoded, strict=True):
                path = document.metadata["file"]
                place = (files[path].domain, split_of(document.text, path, **self.split))
                if place not in shards:
                    shards[place] = _Shard(self.out_dir, f"{place[0]}/{place[1]}/{rank:05d}.ds", self.encoder)
                shards[place].write(ids)
            tokens = sum(map(len, encoded))
            self.stat_update("tokens", value=tokens, unit="batch")
            advance(tokens=tokens)
        record = {
            "files": [self._file_record(file) for file in files.values()],
            "blank_documents": blank,
            "shards": [
                {"domain": domain, "split": split, **shard.close()} for (domain, split), shard in shards.items()
            ],
        }
        self.records_dir.mkdir(parents=True, exist_ok=True)
        write_json(self.records_dir / f"{rank:05d}.json", record)

    def _file_record(self, file: SourceFile) -> dict[str, Any]:
        path = self.input_dir / file.path
        if (size := path.stat().st_size) != file.size:
            raise InheritError(f"{path} changed while it was read: {file.size} bytes before, {size} now. Start over.")
        return {"path": file.path, "size": file.size, "sha256": sha256_file(path)}


class _Shard:
    """A datatrove TokenizedFile that counts, and refuses ids that the tokenizer does not have."""

    def __init__(self, folder: Path, path: str, encoder: Encoder) -> None:
        self._folder, self._path, self._vocab_size = folder, path, encoder.vocab_size
        self._dtype = np.dtype(encoder.dtype).newbyteorder("<")
        self._file = TokenizedFile(str(folder), path, token_size=self._dtype.itemsize)
        self._max_token_id = -1

    def write(self, ids: list[int]) -> None:
        array = np.asarray(ids, dtype=np.int64)
        if ids:  # litGPT's rules can leave nothing of a document that consists of an EOS
            self._max_token_id = max(self._max_token_id, int(array.max()))
        if self._max_token_id >= self._vocab_size:
            raise InheritError(
                f"The tokenizer gave the token id {self._max_token_id} but its vocabulary ends at "
                f"{self._vocab_size - 1}: tokenizer file and configuration do not belong together."
            )
        self._file.write_bytes(array.astype(self._dtype).tobytes())

    def close(self) -> dict[str, Any]:
        """Closes and makes durable; returns path, tokens, documents, max_token_id and sha256."""
        self._file.close()
        path = self._folder / self._path
        for written in (path, path.with_name(path.name + ".index")):
            with written.open("rb") as file:
                os.fsync(file.fileno())
        return {
            "path": self._path,
            "tokens": len(self._file),
            "documents": len(self._file.doc_ends),
            "max_token_id": self._max_token_id,
            "sha256": sha256_file(path),
        }


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
