"""A Hugging Face hub on this machine that takes uploads: what huggingface_hub asks of one, and no more."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

WRITER, READER = "hf_may_write", "hf_may_read"
LARGE = (".safetensors", ".gguf")


@dataclass
class FakeHub:
    """What was uploaded, by the model's name."""

    url: str = ""
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: int = 0
    large: dict[str, bytes] = field(default_factory=dict)
    """Contents of large files, by their SHA-256"""

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> tuple[int, dict[str, Any]]:
        if method == "PUT":  # a large file's content, to an address that the hub has signed
            self.large[path.rsplit("/", 1)[1]] = body
            return 200, {}
        if token not in (WRITER, READER):
            return 401, {"error": "Invalid username or password."}
        if path == "/api/validate-yaml":
            bad = [] if "license:" in json.loads(body)["content"] else [{"message": "no licence"}]
            return 400 if bad else 200, {"errors": bad, "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization'] or 'me'}/{asked['name']}"
            if token == READER:
                return 403, {"error": f"You don't have the rights to create a model under {name}"}
            known = name in self.models
            self.models.setdefault(name, {})
            return 409 if known else 200, {"url": f"{self.url}/{name}"}
        model = next((name for name in self.models if f"/{name}" in path), None)
        if model is None:
            return 404, {"error": "Repository not found"}
        if path.startswith(f"/api/models/{model}/preupload/"):
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(LARGE) else "regular" for name in files}
            return 200, {"files": [{"path": name, "uploadMode": modes[name], "shouldIgnore": False} for name in files]}
        if path == f"/{model}.git/info/lfs/objects/batch":
            asked = [thing | {"actions": {"upload": {"href": f"{self.url}/large/{thing['oid']}"}}}
                     for thing in json.loads(body)["objects"]]  # fmt: skip
            return 200, {"transfer": "basic", "objects": asked}
        if path.startswith(f"/api/models/{model}/commit/"):
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    self.models[model][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "lfsFile":
                    self.models[model][line["value"]["path"]] = self.large[line["value"]["oid"]]
            self.commits += 1
            oid = f"{self.commits:040x}"
            return 200, {"commitUrl": f"{self.url}/{model}/commit/{oid}", "commitOid": oid, "success": True}
        return 404, {"error": f"the fake hub knows no {method} {path}"}


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            status, content = hub.answer(self.command, self.path.split("?")[0], token, body)
            reply = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(reply)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            server.shutdown()
