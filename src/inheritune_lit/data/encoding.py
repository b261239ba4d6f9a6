"""Text → token ids exactly as litGPT encodes a document, in batches and without importing litGPT in every worker."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.commit import InheritError, sha256_file

if TYPE_CHECKING:
    from litgpt.tokenizer import Tokenizer

# Encoded to tell tokenizers apart: words, numbers, code, white space, several scripts.
PROBE = (
    "Pre-training small base language models: 12,345 tokens (3.5%)!\n\tdef f(x):\n        return x ** 2  # étude\n"
    "Wherefore art thou Romeo? <s> </s> 东京 Привет naïve 🙂 don't they'll\r\n\n\n  https://example.org/a_b?c=1&d=2"
)


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

    @property
    def dtype(self) -> str:
        """NumPy's name of the smallest unsigned type of the shards that holds every id, without byte order."""
        return "uint16" if self.vocab_size <= 2**16 else "uint32"

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each document."""
        if self.backend == "huggingface":
            encodings = self._processor.encode_batch_fast(texts, add_special_tokens=False)
            return [self._with_ends(encoding.ids) for encoding in encodings]
        threads = int(os.environ.get("RAYON_NUM_THREADS", "1"))
        return [self._with_ends(ids) for ids in self._processor.encode(texts, num_threads=threads)]

    def _with_ends(self, ids: list[int]) -> list[int]:
        while ids and ids[-1] == self.eos_id:  # the text's own
            ids.pop()
        if ids and ids[0] == self.bos_id:
            del ids[0]
        if self.bos:
            ids.insert(0, self.bos_id)  # type: ignore[arg-type]
        ids.append(self.eos_id)
        return ids

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
    encoder = Encoder(str(file.absolute()), tokenizer.backend, bos, tokenizer.bos_id, tokenizer.eos_id, size)
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


def identity(tokenizer: "Tokenizer") -> str:
    """A SHA-256 that tells tokenizers apart: every (id, token), the special ids, how a text is split, whether with BOS.

    It is computed from litGPT's Tokenizer because that is all a litGPT data module is given, and from these parts
    because the text form of a tokenizer changes with its library's version while they don't.
    """
    return _identity(tokenizer, ["BOS"] if tokenizer.use_bos else [])


def is_tokenizer_of(tokenizer: "Tokenizer", entry: Mapping[str, Any]) -> bool:
    """Whether it made the shards whose manifest has this entry `tokenizer`."""
    # older manifests have an identity without the rule about BOS
    return entry["identity"] == (identity(tokenizer) if "bos_rule" in entry else _identity(tokenizer, []))


def _identity(tokenizer: "Tokenizer", rule: list[str]) -> str:
    if tokenizer.backend == "huggingface":
        tokenizer.processor.no_truncation()
        tokenizer.processor.no_padding()
    ids = tokenizer.encode(PROBE, bos=False).tolist()
    content = [_vocabulary(tokenizer), ids, tokenizer.bos_id, tokenizer.eos_id, *rule]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def vocabulary_size(tokenizer: "Tokenizer") -> int:
    """The largest token id plus one, added tokens included: litGPT's `vocab_size` leaves those out."""
    return _vocabulary(tokenizer)[-1][0] + 1


def _vocabulary(tokenizer: "Tokenizer") -> list[tuple[int, str]]:
    processor = tokenizer.processor
    if tokenizer.backend == "huggingface":
        return sorted((number, token) for token, number in processor.get_vocab(with_added_tokens=True).items())
    size = processor.vocab_size()
    return list(zip(range(size), processor.id_to_piece(list(range(size))), strict=True))
