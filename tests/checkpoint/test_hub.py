"""A reference in the Hugging Face hub, which is a server of ours: only what is kept is fetched, of one commit."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.injecting import ended, inheritune
from helpers.models import write_bpe

from inheritune_lit.base.errors import InheritError
from inheritune_lit.surgery.command import surgery
from inheritune_lit.verify import verify

OLD, NEW = "a" * 40, "b" * 40
NAME = "lab/gpt2-small"


class Hub(ThreadingHTTPServer):
    """One model with two commits, `main` being one of them."""

    main = OLD

    def __init__(self, commits: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits = commits
        self.given: list[str] = []
        """Files that were fetched whole"""


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        revision = path.removeprefix(f"api/models/{NAME}").removeprefix("/revision/") or "main"
        if path.startswith(f"api/models/{NAME}"):
            commit = self.server.main if revision == "main" else revision
            if commit not in self.server.commits:
                self._reply(b"{}", "", 404)
                return
            files = [{"rfilename": file.name} for file in self.server.commits[commit].iterdir()]
            self._reply(json.dumps({"id": NAME, "sha": commit, "siblings": files}).encode(), commit)
            return
        commit, name = path.removeprefix(f"{NAME}/resolve/").split("/", 1)
        file = self.server.commits[commit] / name
        if not file.is_file():
            self._reply(b"", commit, 404)
            return
        data, asked = file.read_bytes(), self.headers.get("range")
        if self.command == "GET" and not asked:
            self.server.given.append(name)
        start, _, last = (asked or "").removeprefix("bytes=").partition("-")
        self._reply(data[int(start or 0) : int(last or len(data)) + 1], commit, 206 if asked else 200)

    def _reply(self, body: bytes, commit: str, code: int = 200) -> None:
        self.send_response(code)
        headers = {"Content-Length": str(len(body)), "ETag": f'"{hash((self.path, commit))}"', "X-Repo-Commit": commit}
        for key, value in headers.items():
            self.send_header(key, value)
        if code == 404:
            self.send_header("X-Error-Code", "EntryNotFound" if commit else "RevisionNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def model(folder: Path, seed: int) -> Path:
    """A GPT-2 of six blocks in several files."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(n_layer=6, n_head=2, n_embd=16, vocab_size=600, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(folder, max_shard_size="20KB")
    return write_bpe(folder)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub({OLD: model(tmp_path / "old", 0), NEW: model(tmp_path / "new", 1)}) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path / "hf")}
    environment |= {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    options = ["--layers", "2", "--out_dir", tmp_path / "out"]
    return lambda *given: ended(inheritune("surgery", *given, *options), env=environment, cwd=tmp_path)


def test_only_what_is_kept_is_fetched(hub: Hub, run: Any, tmp_path: Path) -> None:
    whole = tmp_path / "old"
    index = json.loads((whole / "model.safetensors.index.json").read_text())["weight_map"]
    kept = {file for name, file in index.items() if not name.startswith("transformer.h.") or name[14] in "01"}
    assert 1 < len(kept) < len(set(index.values()))
    done = run(f"{NAME}@{OLD}", "--fetch", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert not [name for name in hub.given if name.endswith(".safetensors")]
    done = run(NAME, "--fetch")
    assert done.returncode == 0, done.stderr
    assert {name for name in hub.given if name.endswith(".safetensors")} == kept
    surgery(whole, layers="2", out_dir=tmp_path / "straight")
    for name in ("lit_model.pth", "model_config.yaml", "config.json", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    source = json.loads((tmp_path / "out/inheritance.json").read_text())["source"]
    assert source == {
        "name": "gpt2-small",
        "n_layer": 6,
        "fingerprint": f"hub-{OLD}",
        "repository": NAME,
        "commit": OLD,
    }
    verify(tmp_path / "out", source=whole)
    with pytest.raises(InheritError, match=r"transformer.wte.weight differs from"):
        verify(tmp_path / "out", source=tmp_path / "new")


def test_given_again(hub: Hub, run: Any, tmp_path: Path) -> None:
    """Nothing is fetched twice; of a name that means another commit by now, nothing is made."""
    assert run(NAME, "--fetch").returncode == 0
    hub.given.clear()
    done = run(f"{NAME}@{OLD}", "--fetch")
    assert "is whole already, made from the same files" in done.stdout, done.stderr
    hub.main = NEW
    done = run(NAME, "--fetch")
    assert f'inputs.source.weights: "hub-{OLD}" before, "hub-{NEW}" now' in done.stderr
    assert not [name for name in hub.given if name.endswith(".safetensors")]


def test_what_the_hub_has_not(hub: Hub, run: Any, tmp_path: Path) -> None:
    done = run(NAME)
    assert (
        "is not a folder. If it is a model of the Hugging Face hub, ORG/NAME or ORG/NAME@REVISION, --fetch"
        in done.stderr
    )
    for name in (f"{NAME}@{'c' * 40}", "lab/nothing", "no name"):
        done = run(name, "--fetch")
        assert f"The Hugging Face hub did not give {name} as safetensors: " in done.stderr
    path = tmp_path / "old/model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["transformer.h.9.ln_1.weight"] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))
    assert "index.json names transformer.h.9.ln_1.weight in model-0000" in run(NAME, "--fetch").stderr
    for file in (tmp_path / "old").glob("*.safetensors*"):
        file.unlink()
    (tmp_path / "old/pytorch_model.bin").touch()
    assert "NotASafetensorsRepoError: 'lab/gpt2-small' is not a safetensors repo" in run(NAME, "--fetch").stderr
    assert not (tmp_path / "out").exists()
    assert "pytorch_model.bin" not in hub.given
