"""What all tests share: no network, and small seeded litGPT checkpoints of several architectures."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.models import make_checkpoint, write_bpe, write_sentencepiece

os.environ["TORCHDYNAMO_DISABLE"] = "1"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test reached for the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Makes a small checkpoint: `checkpoint("gemma", dtype=torch.bfloat16)`."""
    return lambda architecture="llama", **options: make_checkpoint(tmp_path / "reference", architecture, **options)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama checkpoint that no test changes."""
    return make_checkpoint(tmp_path_factory.mktemp("shared") / "open_llama_tiny")


@pytest.fixture(scope="session")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small tokenizer.json without BOS."""
    return write_bpe(tmp_path_factory.mktemp("tokenizers") / "bpe")


@pytest.fixture(scope="session")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small SentencePiece tokenizer.model with BOS."""
    return write_sentencepiece(tmp_path_factory.mktemp("tokenizers") / "sentencepiece")
