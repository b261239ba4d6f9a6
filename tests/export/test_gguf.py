"""A GGUF file beside an export: ggml's converter makes it, and what llama.cpp would read of it is what was trained."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from helpers.models import ARCHITECTURES, TEXTS, make_checkpoint, write_bpe, write_sentencepiece
from helpers.models_to_export import LLAMA, WORDS, make_reference

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import load_config
from inheritune_lit.data.tokenizer import Tokenizer
from inheritune_lit.export import gguf, parity, reload
from inheritune_lit.export.command import export, export_checkpoint
from inheritune_lit.export.reload import SAMPLES, Reloaded
from inheritune_lit.surgery.command import surgery
from inheritune_lit.verify import verify

FOUND = Reloaded(3, 67_296, "float32", True, (), (), torch.empty(0))
"""What transformers makes of `cut`'s export"""


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "reload_in_new_process", reload.reload)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 3 of 6 blocks of a Llama with a SentencePiece tokenizer; no test changes it."""
    folder = tmp_path_factory.mktemp("gguf")
    reference = make_reference(folder / "reference", "llama", LLAMA)
    (reference / "tokenizer.json").unlink()
    shutil.copytree(write_sentencepiece(folder / "tokenizer"), reference, dirs_exist_ok=True)
    surgery(reference, layers="3", out_dir=folder / "cut")
    return folder / "cut"


def metadata(path: Path) -> dict[str, Any]:
    return {key: field.contents() for key, field in GGUFReader(path).fields.items()}


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_the_file_is_the_model(cut: Path, tmp_path: Path, kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    export(cut, out_dir=tmp_path / "small {llama}", gguf=kind, license="mit")
    name = f"small {{llama}}-{kind}.gguf"
    assert f"{name}: 30 tensors, token ids as litGPT's" in capsys.readouterr().out
    assert f"`{name}` is the same model for llama.cpp" in (tmp_path / "small {llama}/README.md").read_text()
    receipt = json.loads((tmp_path / "small {llama}/inheritance.json").read_text())
    assert receipt["files"][name]["bytes"] == (tmp_path / "small {llama}" / name).stat().st_size
    assert receipt["check"]["gguf"] == {
        **{"file": name, "architecture": "llama", "tensors": 30, "model": "llama", "pre": "default"},
        **{"add_bos_token": True, "add_eos_token": False, "bos_token_id": 1, "eos_token_id": 2},
    }
    reader = GGUFReader(tmp_path / "small {llama}" / name)
    facts = metadata(tmp_path / "small {llama}" / name)
    assert (facts["llama.block_count"], facts["general.name"], facts["general.license"]) == (3, "small {llama}", "mit")
    head = next(tensor for tensor in reader.tensors if tensor.name == "output.weight")
    assert head.tensor_type.name == kind
    from gguf.quants import dequantize

    expected = torch.load(cut / "lit_model.pth", weights_only=True)["lm_head.weight"]
    difference = (torch.tensor(dequantize(head.data, head.tensor_type)) - expected).abs().max()
    assert 0 < difference < 0.01  # rounded, and nothing but rounded
    verify(tmp_path / "small {llama}", source=cut)
    export(cut, out_dir=tmp_path / "small {llama}", gguf=kind, license="mit")
    assert "is whole already" in capsys.readouterr().out
    with pytest.raises(InheritError, match="gguf"):
        export(cut, out_dir=tmp_path / "small {llama}", license="mit")


def test_another_tokenizer_is_refused(cut: Path, tmp_path: Path) -> None:
    """OpenLLaMA's kind, which drops runs of spaces, as llama.cpp does not."""
    from sentencepiece import SentencePieceTrainer

    shutil.copytree(cut, tmp_path / "cut")
    (tmp_path / "cut/inheritance.json").unlink()
    with (tmp_path / "cut/tokenizer.model").open("wb") as file:
        SentencePieceTrainer.train(
            **{"sentence_iterator": iter(TEXTS), "model_writer": file, "model_type": "bpe", "vocab_size": 330},
            **{"byte_fallback": True, "character_coverage": 0.98, "minloglevel": 2},
        )
    (tmp_path / "cut/tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "legacy": true}')
    with pytest.raises(
        InheritError, match="would not read the tokens that were trained on: of 'A river.*runs of spaces"
    ):
        export_checkpoint(tmp_path / "cut", tmp_path / "out", gguf="F16")
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]


def test_an_unknown_way_to_cut_text_is_refused_by_its_hash(tmp_path: Path) -> None:
    reference = make_reference(tmp_path / "reference", "llama", LLAMA)
    with pytest.raises(
        InheritError,
        match=r"GGUF file of \['LlamaForCausalLM'\]: how this tokenizer cuts text .*\(chkhsh [0-9a-f]{64}\)",
    ):
        export_checkpoint(reference, tmp_path / "out", gguf="F16")
    assert [path.name for path in tmp_path.iterdir()] == ["reference"]


def test_an_unknown_architecture_is_refused_by_its_name(cut: Path, tmp_path: Path) -> None:
    folder = exported(cut, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["NonesuchForCausalLM"]}))
    with pytest.raises(
        InheritError, match=r"GGUF file of \['NonesuchForCausalLM'\]: .*NonesuchForCausalLM is not supp"
    ):
        gguf.write_gguf(folder, "x-F16.gguf", load_config(cut), FOUND)
    assert not (folder / "x-F16.gguf").exists()


def exported(cut: Path, tmp_path: Path) -> Path:
    export_checkpoint(cut, tmp_path / "exported")
    return tmp_path / "exported"


def test_what_is_not_the_model_is_refused(cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = exported(cut, tmp_path)
    name = "x-F16.gguf"
    gguf.write_gguf(folder, name, load_config(cut), FOUND)
    monkeypatch.setattr(gguf, "_convert", lambda *_: None)  # what it wrote, compared with something else
    with pytest.raises(InheritError, match="another model: blocks 3, not 4; parameters 67296, not 67300"):
        gguf.write_gguf(folder, name, load_config(cut), Reloaded(4, 67_300, "float32", True, (), (), torch.empty(0)))
    reader = GGUFReader(folder / name, "r+")
    next(tensor for tensor in reader.tensors if tensor.name == "blk.1.ffn_up.weight").data[3, 4] = float("inf")
    reader.data.flush()
    with pytest.raises(InheritError, match="NaN or infinity in blk.1.ffn_up.weight: choose BF16"):
        gguf.write_gguf(folder, name, load_config(cut), FOUND)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": "0-2"}, None),
        ({"layers": "0,2,3"}, r"windows \[True, True, True\], not \[True, False, True\]. Leave --gguf out"),
        ({"layers": "0-2", "attention_scores_scalar": 16}, "scale 1/√8, not 1/√16"),
    ],
)
def test_llama_cpp_knows_only_the_published_gemmas(tmp_path: Path, changes: dict[str, Any], message: Any) -> None:
    """Block i of a Gemma 3 is global if i % 6 is 5, whatever became of its blocks; the file can't say otherwise."""
    indices = [1, 1, 0, 1, 1, 1] if changes["layers"] != "0-2" else [1, 1, 1, 1, 1, 0]
    layers, scale = changes["layers"], changes.get("attention_scores_scalar", 8)
    layer_types = ["sliding_attention" if i else "full_attention" for i in indices]
    small = {"sliding_window_indices": indices, "rope_indices": indices, "attention_scores_scalar": scale}
    stated = {**ARCHITECTURES["gemma"][2], "layer_types": layer_types, "query_pre_attn_scalar": scale}
    sizes = ARCHITECTURES["gemma"][1] | WORDS | {"block_size": 128} | small
    reference = make_checkpoint(tmp_path / "reference", ("Gemma-3-1b-it", sizes, stated))
    (reference / "tokenizer.json").unlink()
    shutil.copytree(write_sentencepiece(tmp_path / "tokenizer", add_dummy_prefix=False), reference, dirs_exist_ok=True)
    surgery(reference, layers=layers, out_dir=tmp_path / "cut")
    with pytest.raises(InheritError, match=message) if message else nullcontext():
        assert "gguf" in export_checkpoint(tmp_path / "cut", tmp_path / "out", gguf="F16")["check"]


def test_what_the_converter_guessed_wrong_is_mended(cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of any vocabulary of 49,152, for which it writes that texts begin without BOS."""
    folder = exported(cut, tmp_path)
    gguf.write_gguf(folder, "x-F16.gguf", load_config(cut), FOUND)
    reader = GGUFReader(folder / "x-F16.gguf", "r+")
    for key, wrong in (("add_bos_token", False), ("eos_token_id", 7)):
        field = reader.fields[f"tokenizer.ggml.{key}"]
        field.parts[field.data[0]][0] = wrong
    reader.data.flush()
    monkeypatch.setattr(gguf, "_convert", lambda *_: None)
    told = gguf.write_gguf(folder, "x-F16.gguf", load_config(cut), FOUND)
    assert (told["add_bos_token"], told["eos_token_id"]) == (True, 2)
    facts = metadata(folder / "x-F16.gguf")
    assert (facts["tokenizer.ggml.add_bos_token"], facts["tokenizer.ggml.eos_token_id"]) == (True, 2)


def test_a_byte_level_tokenizer_is_not_taken_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With byte_fallback it would pass for SentencePiece; with BOS its hash is not the one that is known."""
    folder = write_bpe(tmp_path / "folder", add_bos=True)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["byte_fallback"] = True
    (folder / "tokenizer.json").write_text(json.dumps(content))
    given: list[tuple[Any, Any]] = []

    def run(view: Path, path: Path, tokenizer: dict[str, Any], settings: dict[str, Any]) -> str:
        given.append((tokenizer, dict(settings)))
        return "chkhsh: 0a1b" if len(given) < 2 else ""

    monkeypatch.setattr(gguf, "_run", run)
    gguf._convert(folder, folder / "x-F16.gguf", Tokenizer(folder))
    (first, settings), (second, plain) = given
    assert first == content | {"model": content["model"] | {"byte_fallback": False}}
    assert settings["add_bos_token"] is True
    assert second == first | {"post_processor": None}
    assert plain == settings | {"add_bos_token": False}
    assert json.loads((folder / "tokenizer.json").read_text()) == content  # the folder's own stays


def test_the_ids_of_a_byte_level_tokenizer(tmp_path: Path) -> None:
    folder = write_bpe(tmp_path / "folder")
    tokenizer, content = Tokenizer(folder), json.loads((folder / "tokenizer.json").read_text())
    vocabulary, merges = content["model"]["vocab"], [" ".join(merge) for merge in content["model"]["merges"]]
    facts = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": sorted(vocabulary, key=vocabulary.__getitem__),
        "tokenizer.ggml.merges": merges,
    }
    expected = [tokenizer.encode(text, bos=False).tolist() for text in SAMPLES]
    assert gguf.token_ids(facts, folder / "tokenizer.json") == expected
    facts["tokenizer.ggml.merges"] = merges[::-1]
    assert gguf.token_ids(facts, folder / "tokenizer.json") != expected
    with pytest.raises(InheritError, match="of the kind 't5'"):
        gguf.token_ids(facts | {"tokenizer.ggml.model": "t5"}, folder / "tokenizer.json")


def test_the_converter_may_be_missing(cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inheritune_lit.export.command.CONVERTER", "convert_hf_to_nothing")
    with pytest.raises(InheritError, match=r"pip install 'inheritune_lit\[gguf\]'"):
        export(cut, out_dir=tmp_path / "out", gguf="F16", dry_run=True)
