"""Text → token ids exactly as litGPT encodes a document, in batches and without importing litGPT in every worker."""

import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file
from inheritune_lit.checkpoint.folder import MODEL_CONFIG, load_config

if TYPE_CHECKING:
    from litgpt.tokenizer import Tokenizer

# Encoded to tell tokenizers apart: words, numbers, code, white space, several scripts.
PROBE = (
    "Pre-training small base language models: 12,345 tokens (3.5%)!\n\tdef f(x):\n        return x ** 2  # étude\n"
    "Wherefore art thou Romeo? <s> </s> 东京 Привет naïve 🙂 don't they'll\r\n\n\n  https://example.org/a_b?c=1&d=2"
)


class Encoded(NamedTuple):
    """Documents as token ids."""

    ids: np.ndarray
    """Of all documents, one after the other, uint32"""
    lengths: np.ndarray
    """Tokens of each document"""
    special: Counter[str]
    """Special tokens that the texts themselves hold, and how many of each"""


@dataclass(frozen=True)
class Encoder:
    """What litGPT's `Tokenizer.encode(text, bos=bos)` gives, and one EOS, as data that travels to workers.

    litGPT's own `eos=True` takes an EOS away that the tokenizer's post-processor or the text put at the end, and leaves
    such a document without any. A truncation or padding that tokenizer.json carries is off.
    """

    path: str
    """tokenizer.json or tokenizer.model: litGPT's choice where both exist."""
    backend: str
    """huggingface or sentencepiece."""
    bos: bool
    """Whether each document begins with `bos_id`."""
    bos_id: int | None
    eos_id: int
    vocab_size: int
    """The largest token id there is, added tokens included, plus one."""
    special: Mapping[int, str]
    """Tokens that are no text, by their ids."""
    embeddings: int | None = None
    """Token ids that the model in the same folder has embeddings for, if there is one; all that occur must be below."""

    @property
    def dtype(self) -> str:
        """NumPy's name of the smallest unsigned type of the shards that holds every id, without byte order."""
        return "uint16" if self.vocab_size <= 2**16 else "uint32"

    def encode(self, texts: list[str]) -> "Encoded":
        """Token ids of documents, one after the other, BOS and EOS where they belong whatever a text has there."""
        if self.backend == "huggingface":
            encodings = self._processor.encode_batch_fast(texts, add_special_tokens=False)
            lists = [encoding.ids for encoding in encodings]
        else:
            threads = int(os.environ.get("RAYON_NUM_THREADS", "1"))
            lists = self._processor.encode(texts, num_threads=threads)
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        ids = np.fromiter(itertools.chain.from_iterable(lists), np.uint32, int(lengths.sum()))
        found = ids[np.isin(ids, [*self.special])] if self.special else ids[:0]
        counts = zip(*np.unique(found, return_counts=True), strict=True)
        special = Counter({self.special[int(token)]: int(number) for token, number in counts})
        first = np.array([self.bos_id] if self.bos else [], np.uint32)
        last, parts, ends = np.array([self.eos_id], np.uint32), [ids[:0]], np.cumsum(lengths).tolist()
        for i, (stop, length) in enumerate(zip(ends, lengths.tolist(), strict=True)):
            start = stop - length
            while stop > start and ids[stop - 1] == self.eos_id:  # its own, as the BOS at its beginning
                stop -= 1
            start += stop > start and ids[start] == self.bos_id
            parts += [first, ids[start:stop], last]
            lengths[i] = len(first) + stop - start + 1
        return Encoded(np.concatenate(parts), lengths, special)

    @property
    def _processor(self) -> Any:
        return _open_processor(self.path, self.backend)


@lru_cache(maxsize=1)
def _open_processor(path: str, backend: str) -> Any:
    """Opened once a process and not once a task: opening takes a while, and a warm one is faster."""
    if backend == "sentencepiece":
        from sentencepiece import SentencePieceProcessor

        return SentencePieceProcessor(model_file=path)
    from tokenizers import Tokenizer

    processor = Tokenizer.from_file(path)
    processor.no_truncation()
    processor.no_padding()
    return processor


def open_tokenizer(tokenizer_dir: Path, bos: bool | None = None) -> tuple[Encoder, dict[str, Any]]:
    """The encoder for a folder's tokenizer, and what the manifest says of it.

    Args:
        tokenizer_dir: A folder that litGPT takes a tokenizer from.
        bos: Whether documents begin with the BOS token; None is what the tokenizer's own files say.

    Raises:
        InheritError: litGPT can't open it, or it lacks a token that documents need.
    """
    from inheritune_lit.data.tokenizer import Tokenizer

    try:
        tokenizer = Tokenizer(tokenizer_dir)
    except Exception as error:  # both backends raise their own, bare Exceptions among them
        raise InheritError(
            f"Can't open the tokenizer in {tokenizer_dir}: {type(error).__name__} {error}. Expected what litGPT reads: "
            "tokenizer.json or tokenizer.model, and tokenizer_config.json."
        ) from error
    file = tokenizer_dir / ("tokenizer.json" if tokenizer.backend == "huggingface" else "tokenizer.model")
    bos, rule = (tokenizer.use_bos, tokenizer.bos_rule) if bos is None else (bos, "--bos")
    size = vocabulary_size(tokenizer)
    for name, needed, token in (("EOS", True, tokenizer.eos_id), ("BOS", bos, tokenizer.bos_id)):
        if needed and (token is None or not 0 <= token < size):
            raise InheritError(
                f"The tokenizer in {tokenizer_dir} has no {name} token (id {token}, vocabulary {size}), which "
                f"{'every document ends' if name == 'EOS' else 'every document begins'} with. Name it in "
                f"tokenizer_config.json{' or pass --bos false' if name == 'BOS' else ''}."
            )
    ends = (bos, tokenizer.bos_id, tokenizer.eos_id)
    # a tokenizer may have more tokens than its model embeddings, such as Gemma's for images, which no text has
    rows = load_config(tokenizer_dir).padded_vocab_size if (tokenizer_dir / MODEL_CONFIG).is_file() else None
    encoder = Encoder(str(file.absolute()), tokenizer.backend, *ends, size, _special(tokenizer), rows)
    entry = {
        "file": file.name,
        "sha256": sha256_file(file),
        "identity": identity(tokenizer),
        "vocab_size": size,
        "bos": bos,
        "bos_rule": rule,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
    }
    return encoder, entry


def check_rows(tokenizer: "Tokenizer", rows: int, file: Path) -> None:
    """Every id of a tokenizer's own vocabulary, of BOS and of EOS has a row in a model's embedding.

    Tokens added beyond these, as Gemma 3's for images, occur only in a text that spells them, and the largest id of
    prepared shards is compared with the embedding on its own.

    Raises:
        InheritError: naming `file`, the tokenizer's.
    """
    of_hf = tokenizer.backend == "huggingface"
    own = tokenizer.processor.get_vocab(with_added_tokens=False).values() if of_hf else range(tokenizer.vocab_size)
    largest = max(*own, tokenizer.eos_id or 0, tokenizer.bos_id or 0)
    if largest >= rows:
        raise InheritError(
            f"{file} has {len(own):,} tokens, ids up to {largest:,}, the model embeddings for {rows:,}: it is another "
            "model's. Copy the reference's there."
        )


def identity(tokenizer: "Tokenizer") -> str:
    """A SHA-256 that tells tokenizers apart: every (id, token), the special ids, how a text is split, whether with BOS.

    It is computed from litGPT's Tokenizer because that is all a litGPT data module is given, and from these parts
    because the text form of a tokenizer changes with its library's version while they don't.
    """
    if tokenizer.backend == "huggingface":
        tokenizer.processor.no_truncation()
        tokenizer.processor.no_padding()
    ids = tokenizer.encode(PROBE, bos=False).tolist()
    content = [_vocabulary(tokenizer), ids, tokenizer.bos_id, tokenizer.eos_id]
    content += ["BOS"] if tokenizer.use_bos else []
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _special(tokenizer: "Tokenizer") -> dict[int, str]:
    ids = {number for number in (tokenizer.bos_id, tokenizer.eos_id) if number is not None}
    if tokenizer.backend == "sentencepiece":
        return {number: tokenizer.processor.id_to_piece(number) for number in ids}
    ids |= {number for number, token in tokenizer.processor.get_added_tokens_decoder().items() if token.special}
    return {number: tokenizer.processor.id_to_token(number) for number in sorted(ids)}


def vocabulary_size(tokenizer: "Tokenizer") -> int:
    """The largest token id plus one, added tokens included: litGPT's `vocab_size` leaves those out."""
    return _vocabulary(tokenizer)[-1][0] + 1


def _vocabulary(tokenizer: "Tokenizer") -> list[tuple[int, str]]:
    processor = tokenizer.processor
    if tokenizer.backend == "huggingface":
        return sorted((number, token) for token, number in processor.get_vocab(with_added_tokens=True).items())
    size = processor.vocab_size()
    return list(zip(range(size), processor.id_to_piece(list(range(size))), strict=True))
