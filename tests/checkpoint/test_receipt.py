"""Receipts: written in one place, read as 0.1.0 wrote them, and what a command given again makes of them."""

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.gpt2 import hugging_face
from helpers.models import make_checkpoint, make_tokenizer, make_tokens
from helpers.models_to_export import LLAMA, make_reference

import inheritune_lit
from inheritune_lit.analyze import analyze
from inheritune_lit.base.errors import InheritError
from inheritune_lit.export import parity, reload
from inheritune_lit.export.command import export
from inheritune_lit.surgery.command import surgery
from inheritune_lit.verify import verify

PACKAGE = Path(inheritune_lit.__file__).parent
OLD = Path(__file__).parent / "written_by_0.1.0"


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "reload_in_new_process", reload.reload)


SOURCES = {"surgery": "reference", "cut": "reference", "export": "cut", "conversion": None, "run": None}


@pytest.mark.parametrize("name", SOURCES)
def test_what_0_1_0_wrote_verifies(name: str, tmp_path: Path, in_this_process: None) -> None:
    source = SOURCES[name]
    verify(OLD / name, source=None if source is None else OLD / source)
    shutil.copytree(OLD / name, tmp_path / name)  # the negative control
    (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(InheritError, match="config.json has 2 bytes, expected"):
        verify(tmp_path / name)


def test_0_1_0_does_not_tell_whether_it_is_done(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    with pytest.raises(InheritError, match="exists already"):
        surgery(tmp_path / "old/reference", layers="2", out_dir=tmp_path / "old/cut")


def test_receipts_are_written_in_one_place() -> None:
    """No other module lists files with their bytes and hash, or writes JSON under the receipt's name."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        of_checkpoints = "RECEIPT = " not in text or path.name == "folder.py"  # the demo's own has another name
        for node in ast.walk(ast.parse(text)):
            keys = [getattr(key, "value", None) for key in node.keys] if isinstance(node, ast.Dict) else []
            writes = isinstance(node, ast.Call) and ast.unparse(node.func).startswith("write_json")
            if keys == ["bytes", "sha256"] or (writes and of_checkpoints and "/ RECEIPT" in ast.unparse(node)):
                found.add(str(path.relative_to(PACKAGE)))
    assert found == {"checkpoint/receipt.py"}


class Case:
    """A command, given again and again: its inputs, a changed setting, a changed source."""

    def __init__(self, run: Callable[..., None], source: Path, out_dir: Path, changed: dict[str, Any]) -> None:
        self.run, self.source, self.out_dir, self.changed = run, source, out_dir, changed


@pytest.fixture(params=["surgery", "export", "analyze", "hugging face"])
def case(request: pytest.FixtureRequest, tmp_path: Path, in_this_process: None) -> Case:
    source, out = tmp_path / "source", tmp_path / "out"
    if request.param == "surgery":
        make_checkpoint(source)
        return Case(
            lambda layers="2", **o: surgery(source, layers=layers, out_dir=out, **o), source, out, {"layers": "3"}
        )
    if request.param == "export":
        make_reference(source, "llama", LLAMA)
        return Case(lambda **o: export(source, out_dir=out, **o), source, out, {"dtype": "bfloat16"})
    if request.param == "analyze":
        data = make_tokens(tmp_path, make_tokenizer(make_checkpoint(source, n_layer=2)), documents=4)
        settings: dict[str, Any] = {"data": data, "windows": 2, "max_seq_length": 8}
        return Case(lambda **o: analyze(source, out_dir=out, **settings | o), source, out, {"windows": 3})
    hugging_face(scale=False).save_pretrained(source)
    return Case(lambda **o: surgery(source, layers="2", out_dir=out, **o), source, out, {})


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_given_again_it_says_so_and_writes_nothing(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.run()
    before = times(case.out_dir)
    verify(case.out_dir)
    capsys.readouterr()
    case.run()
    said = f"{case.out_dir} is whole already, made from the same files with the same settings."
    assert capsys.readouterr().out.splitlines()[-1] == said
    assert times(case.out_dir) == before
    case.run(overwrite=True)
    assert times(case.out_dir) != before


@pytest.mark.parametrize("case", ["surgery", "export", "analyze"], indirect=True)
def test_with_other_settings_it_refuses_and_says_which(case: Case) -> None:
    case.run()
    before = times(case.out_dir)
    name = "blocks" if "layers" in case.changed else next(iter(case.changed))
    with pytest.raises(InheritError, match=f"exists already, and was made otherwise: {name}: .* before, .* now"):
        case.run(**case.changed)
    assert times(case.out_dir) == before


def test_with_another_source_it_refuses(case: Case) -> None:
    case.run()
    config = case.source / "config.json"
    content = config.read_text()
    config.write_text(json.dumps(json.loads(content) | {"bos_token_id": 5}))
    with pytest.raises(InheritError, match=r"made otherwise: inputs\.(source\.)?config\.json"):
        case.run()
    config.write_text(content)
    weights = next(path for path in case.source.iterdir() if path.name in ("lit_model.pth", "model.safetensors"))
    change_a_weight(weights)
    with pytest.raises(InheritError, match=r"made otherwise: inputs\.(source\.)?(weights|model\.safetensors): "):
        case.run()


def change_a_weight(path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    if path.suffix == ".safetensors":
        state = load_file(path)
        state["transformer.ln_f.weight"] += 1
        save_file(state, path, metadata={"format": "pt"})
    else:
        state = torch.load(path, weights_only=True)
        state["transformer.ln_f.weight"] += 1
        torch.save(state, path)


def test_what_is_damaged_is_not_done(case: Case) -> None:
    case.run()
    next(path for path in case.out_dir.iterdir() if path.suffix in (".pth", ".safetensors", ".png")).unlink()
    with pytest.raises(InheritError, match="is missing.*Write it again"):
        case.run()
