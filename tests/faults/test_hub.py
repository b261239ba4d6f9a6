"""A Hugging Face data set that another was put in place of, under the same name; the hub is a server of ours."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.faults import Fault, contents
from helpers.injecting import ended, inheritune
from helpers.models import write_bpe

from inheritune_lit.data.manifest import Manifest

REPOSITORY = "datasets/lab/corpus"
OLD, NEW = "a" * 40, "b" * 40


class Hub(ThreadingHTTPServer):
    """One data set with two commits, whose files have the same names and sizes; `main` is one of them."""

    main = OLD
    broken: str | None = None
    """A file that can't be had"""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        texts = {OLD: "old text", NEW: "new text"}
        self.files = {
            commit: {f"{i}.jsonl": "".join(f'{{"text": "{i} {n} {text}"}}\n' for n in range(40)) for i in range(3)}
            for commit, text in texts.items()
        }

    def commit(self, revision: str) -> str:
        return self.main if revision == "main" else revision


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _reply(self, content: object, code: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(body)

    def _files(self, revision: str) -> list[dict[str, object]]:
        files = self.server.files[self.server.commit(revision)]
        return [{"type": "file", "path": name, "size": len(text), "oid": "0" * 40} for name, text in files.items()]

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        api = f"api/{REPOSITORY}"
        if path.startswith(f"{api}/tree/"):
            self._reply(self._files(path.removeprefix(f"{api}/tree/").split("/")[0]))
        elif path == api or path.startswith(f"{api}/revision/"):
            commit = self.server.commit(path.removeprefix(api).removeprefix("/revision/") or "main")
            self._reply({"id": "lab/corpus", "sha": commit, "private": False, "tags": [], "siblings": []})
        elif path.startswith(f"{REPOSITORY}/resolve/"):
            revision, name = path.removeprefix(f"{REPOSITORY}/resolve/").split("/", 1)
            if name == self.server.broken:
                self._reply({"error": "gone"}, 404)
                return
            data = self.server.files[self.server.commit(revision)][name].encode()
            asked = self.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")
            self._reply(data[int(asked[0]) : int(asked[1] or len(data)) + 1], 206)
        else:
            self._reply({"error": path}, 404)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        asked = json.loads(self.rfile.read(length) or "{}") if length else {}
        entries = self._files(self.path.rsplit("/", 1)[1])
        self._reply([entry for entry in entries if entry["path"] in asked.get("paths", [])])


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.mark.faults_long
def test_data_set_that_changed_under_the_same_name(hub: Hub, tmp_path: Path, fault: Fault) -> None:
    """Every file of one commit, which the manifest names; what was begun with it is not gone on with another."""
    tokenizer = write_bpe(tmp_path / "bpe")
    environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path / "hf")}
    environment |= {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def prepare(url: str, name: str) -> "subprocess.CompletedProcess[str]":
        options = ["--tokenizer_dir", tokenizer, "--val_share", "0.3", "--workers", "1", "--out_dir", tmp_path / name]
        return ended(inheritune("prepare", url, *options), env=environment)

    url = f"hf://{REPOSITORY}"
    done = prepare(url, "tokens")
    assert done.returncode == 0, done.stderr
    content = Manifest(tmp_path / "tokens").content
    assert content["revision"] == OLD
    assert f"{url}@{OLD}" in content["command"], "the command in the manifest makes the same again"
    assert {file["path"] for file in content["source"]["files"]} == {"0.jsonl", "1.jsonl", "2.jsonl"}

    # interrupted, as a file can't be had; then the name means another commit, of the same names and sizes
    hub.broken = "2.jsonl"
    assert prepare(url, "interrupted").returncode != 0
    hub.broken, hub.main = None, NEW
    staged = tmp_path / ".interrupted.staging"
    with fault(tmp_path / "tokens", *staged.glob("*/*/00000.ds")):
        for name, what in (("tokens", "was made otherwise"), ("interrupted", "begun otherwise")):
            done = prepare(url, name)
            assert done.returncode == 1
            assert what in done.stderr
            assert f'revision: "{OLD}" before, "{NEW}" now' in done.stderr
    done = prepare(f"{url}@{OLD}", "interrupted")  # what was begun can be had still
    assert done.returncode == 0, done.stderr
    shards = [
        {file.relative_to(folder): data for file, data in contents(folder).items() if file.suffix == ".ds"}
        for folder in (tmp_path / "tokens", tmp_path / "interrupted")
    ]
    assert shards[0] == shards[1]
    done = prepare(url, "anew")
    assert done.returncode == 0, done.stderr
    assert Manifest(tmp_path / "anew").content["revision"] == NEW
    assert Manifest(tmp_path / "anew").splits["train"].sha256 != Manifest(tmp_path / "tokens").splits["train"].sha256
