"""`inheritune export --push`: the whole folder on the hub, by huggingface_hub, and errors that say what to mend."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from helpers.fake_hub_upload import READER, WRITER, FakeHub, fake_hub
from helpers.models_to_export import LLAMA, make_reference

from inheritune_lit.base.errors import InheritError
from inheritune_lit.export import parity, reload
from inheritune_lit.export.command import export, export_checkpoint


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reference(tmp_path_factory.mktemp("push") / "reference", "llama", LLAMA)


@pytest.fixture
def exported(reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(parity, "reload_in_new_process", reload.reload)
    export_checkpoint(reference, tmp_path / "out", license="mit", max_shard_size="50KB")
    return tmp_path / "out"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield hub


def test_the_command_uploads_what_it_wrote(reference: Path, tmp_path: Path) -> None:
    with fake_hub() as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": WRITER, "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "inheritune_lit", "export", str(reference), "--out_dir", str(tmp_path / "out")]
        command += ["--license", "mit", "--push", "my-lab/small-llama"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"to {hub.url}/my-lab/small-llama as 0000" in done.stdout
        assert hub.commits == 1
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert hub.models == {"my-lab/small-llama": written}
    assert {"README.md", "inheritance.json", "model.safetensors", "config.json"} <= written.keys()


def test_given_again_it_only_uploads(
    exported: Path, reference: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITER)
    (exported / "notes.txt").write_text("not the receipt's")
    written = (exported / "inheritance.json").stat().st_mtime_ns
    for _ in range(2):  # the second time the model is there already
        export(reference, out_dir=exported, license="mit", max_shard_size="50KB", push="small-llama")
    assert capsys.readouterr().out.count("is whole already") == 2
    assert (exported / "inheritance.json").stat().st_mtime_ns == written
    assert hub.commits == 2
    assert hub.models["me/small-llama"].keys() == {path.name for path in exported.iterdir()} - {"notes.txt"}


@pytest.mark.parametrize(
    ("token", "message"),
    [(READER, "rights to create a model.*may it write there"), ("hf_old", "401.*is the token valid")],
)
def test_a_refusal_says_what_to_mend(
    exported: Path, reference: Path, hub: FakeHub, token: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InheritError, match=f"(?s)is whole, but not on the hub as my-lab/x: .*{message}.*only upload"):
        export(reference, out_dir=exported, license="mit", max_shard_size="50KB", push="my-lab/x")
    assert hub.models == {}


def test_no_network(exported: Path, reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(InheritError, match=r"(?s)not on the hub as my-lab/x: .*Is there a network"):
        export(reference, out_dir=exported, license="mit", max_shard_size="50KB", push="my-lab/x")


def test_what_would_fail_is_refused_before(reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(InheritError, match="--push needs a token .* `hf auth login`"):
        export(reference, out_dir=tmp_path / "out", push="my-lab/x")
    with pytest.raises(InheritError, match="--push 'my lab/x' is no name on the Hugging Face hub"):
        export(reference, out_dir=tmp_path / "out", push="my lab/x")
    assert not (tmp_path / "out").exists()
