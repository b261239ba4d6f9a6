"""Texts to prepare, and what has become of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from helpers.models import TEXTS
from inheritune_lit.prepare.command import prepare

DOCUMENTS = [*(f"{text} Number {i}." for i in range(20) for text in TEXTS), "ends</s>", "</s>", "a\x85b\u2028c\r\nd"]


def jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


def documents_of(folder: Path) -> dict[tuple[str, str], list[list[int]]]:
    """Token ids of every document by (domain, split), read from the shards with NumPy and their index."""
    content = json.loads((folder / "manifest.json").read_text())
    found = {}
    for split, entries in content["splits"].items():
        for entry in entries:
            documents = []
            for shard in entry["shards"]:
                tokens = np.fromfile(folder / shard["path"], np.dtype(content["dtype"]).newbyteorder("<"))
                ends = np.fromfile(folder / f"{shard['path']}.index", "<u8")
                assert (len(tokens), len(ends)) == (shard["tokens"], shard["documents"])
                assert not len(ends) or ends[-1] == len(tokens)
                documents += [part.tolist() for part in np.split(tokens, ends[:-1].astype(int))]
            assert entry["tokens"] == sum(map(len, documents))
            assert entry["documents"] == len(documents)
            assert entry["max_token_id"] == max(map(max, filter(None, documents)))
            found[entry["domain"], split] = documents
    return found


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run(input_dir: Path, out_dir: Path, tokenizer_dir: Path, **options: Any) -> Path:
    options = {"val_share": 0.3, "workers": 1, "max_bad_share": 0.05} | options
    prepare(str(input_dir), out_dir=out_dir, tokenizer_dir=tokenizer_dir, **options)
    return out_dir


def write_words(folder: Path, size: int) -> Path:
    """A tokenizer with one id a word: </s> 0, w1 1, w2 2, …"""
    from tokenizers import Tokenizer as HFTokenizer
    from tokenizers import models, pre_tokenizers

    tokenizer = HFTokenizer(models.WordLevel({"</s>": 0} | {f"w{i}": i for i in range(1, size)}, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Words", "eos_token": "</s>"}')
    return folder
