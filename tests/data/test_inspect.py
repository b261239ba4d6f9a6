import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.models import make_tokenizer

from inheritune_lit.base.errors import InheritError
from inheritune_lit.data.inspect import document_lengths, domain_shares, inspect
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.data.order import epoch_order
from inheritune_lit.prepare.command import prepare


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains: 30 documents of 9 tokens with EOS in books, 10 of 3 in web; one of each for validation."""
    folder = tmp_path_factory.mktemp("inspect")
    make_tokenizer(folder / "tokenizer")
    for domain, documents, words in (("books", 30, 8), ("web", 10, 2)):
        (folder / "text" / domain).mkdir(parents=True)
        lines = [json.dumps({"text": " ".join(["w7"] * words)})] * documents
        (folder / "text" / domain / "a.jsonl").write_text("\n".join(lines))
        (folder / "text" / domain / "held_out.txt").write_text("w1 w2 w3")
    settings: dict[str, Any] = {"val_share": 0, "val_glob": "*held_out*"}
    prepare(folder / "text", out_dir=folder / "tokens", tokenizer_dir=folder / "tokenizer", **settings)
    return folder / "tokens"


def test_document_lengths(tokens: Path) -> None:
    assert document_lengths(Manifest(tokens), "train").tolist() == [9] * 30 + [3] * 10
    assert document_lengths(Manifest(tokens), "val").tolist() == [4, 4]


def test_domain_shares_follow_the_order_of_training(tokens: Path) -> None:
    windows = 299 // 10
    for steps in (1, 3, 100):
        taken = epoch_order(windows, seed=5, epoch=0)[: steps * 4].astype(int) * 10
        books = np.mean(taken < 270)
        shares = domain_shares(Manifest(tokens), steps, global_batch_size=4, max_seq_length=10, seed=5)
        assert shares == pytest.approx({"books": books, "web": 1 - books})


def test_what_it_prints(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(tokens, tokenizer_dir=tokens.parent / "tokenizer", samples=1, max_seq_length=10, global_batch_size=2)
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert ["books", "train", "30", "270", "90.00%", "9"] in lines
    assert ["web", "train", "10", "30", "10.00%", "3"] in lines
    assert ["16", "30", "█" * 40] in lines
    assert ["4", "10", "█" * 13] in lines
    assert ["8", "0"] in lines
    assert "an epoch is 14.5 steps" in printed
    assert "'w7 w7 </s>'" in printed


def test_errors(tokens: Path, tmp_path: Path) -> None:
    with pytest.raises(InheritError, match="--steps 0: expected at least 1"):
        inspect(tokens, steps=0)
    with pytest.raises(InheritError, match="no training window of 2,049 tokens"):
        inspect(tokens)
    other = make_tokenizer(tmp_path / "other", size=60)
    with pytest.raises(InheritError, match="is not the tokenizer of"):
        inspect(tokens, tokenizer_dir=other, max_seq_length=10)
    index = next((tokens / "books/train").glob("*.index"))
    content = index.read_bytes()
    index.write_bytes(content[:-8])
    with pytest.raises(InheritError, match="does not fit its shard of 270 tokens"):
        inspect(tokens, max_seq_length=10)
    index.write_bytes(content)
