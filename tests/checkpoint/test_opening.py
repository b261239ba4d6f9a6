"""A Hugging Face folder opened as a checkpoint: the same target as over litGPT's conversion, and what is refused."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint.test_families import FAMILIES, SMALL
from helpers.injecting import ended
from helpers.models import make_checkpoint, make_tokens, write_bpe
from litgpt.config import name_to_config
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
from safetensors.torch import load_file, save_file

from inheritune_lit.analyze import Settings, measure
from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint import safetensors_folder
from inheritune_lit.checkpoint.folder import load_config
from inheritune_lit.checkpoint.hugging_face import MAX_SHARD_SIZE, convert, read_hf_config, write_model
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.checkpoint.opening import open_weights
from inheritune_lit.checkpoint.weights import fill
from inheritune_lit.choose import choose
from inheritune_lit.data import DistilledTokens
from inheritune_lit.data.tokenizer import Tokenizer
from inheritune_lit.evaluate.held_out import held_out_loss
from inheritune_lit.pretrain.record import parents
from inheritune_lit.surgery.command import surgery
from inheritune_lit.surgery.compare import compare_logits
from inheritune_lit.surgery.starts import RULES, Start
from inheritune_lit.verify import verify


def small_model(tmp_path: Path, name: str, patch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A small model of a name that litGPT knows: a litGPT checkpoint, and the folder that transformers saves."""
    small, hf_config, tied = FAMILIES[name]
    patch.setitem(name_to_config, name, name_to_config[name] | SMALL | small)
    ours, theirs = make_checkpoint(tmp_path / "ours", (name, SMALL | small, hf_config)), tmp_path / "theirs" / name
    weights = torch.load(ours / "lit_model.pth", weights_only=True)
    weights |= {"lm_head.weight": weights["transformer.wte.weight"]} if tied else {}
    torch.save(weights, ours / "lit_model.pth")
    write_bpe(ours), write_bpe(theirs)
    stated = read_hf_config(ours, config := load_config(ours))
    stated.tie_word_embeddings = tied
    write_model(convert(weights, config, stated, ours), stated, theirs, MAX_SHARD_SIZE)
    return ours, theirs


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "inheritance.json"}


@pytest.mark.filterwarnings("ignore:For Gemma3 models", "ignore:clamping frac to range")
@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_target(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of the checkpoint that transformers' folder was made of, and of what litGPT's command makes of that."""
    ours, theirs = small_model(tmp_path, name, monkeypatch)
    surgery(theirs, layers="0,2,3", out_dir=tmp_path / "straight")
    surgery(ours, layers="0,2,3", out_dir=tmp_path / "made_of")
    straight = contents(tmp_path / "straight")
    assert straight["lit_model.pth"] == contents(tmp_path / "made_of")["lit_model.pth"]
    verify(tmp_path / "straight", source=theirs)
    verify(tmp_path / "straight", source=ours)
    verify(tmp_path / "made_of", source=theirs)
    with pytest.raises(InheritError, match="differ"):  # the negative control
        compare_logits(tmp_path / "straight", theirs, [0, 2, 4])
    if name in ("Gemma-2b", "falcon-7b"):  # litGPT's command takes it for a Gemma 2; forgets a tied head
        return
    convert_hf_checkpoint(converted := shutil.copytree(theirs, tmp_path / "litgpt" / name))
    surgery(converted, layers="0,2,3", out_dir=tmp_path / "round")
    assert straight == contents(tmp_path / "round")
    models = [load_model(folder) for folder in (theirs, converted)]
    assert torch.equal(*(model(torch.arange(8)[None]) for model in models))
    ties = [model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr() for model in models]
    assert ties == [FAMILIES[name][2]] * 2


# -- one family through everything: a Llama in two files


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """litGPT's checkpoint and Hugging Face's folder of one model, which lies in two files."""
    ours, theirs = small_model(tmp_path, "open_llama_3b", monkeypatch)
    split(theirs, load_file(theirs / "model.safetensors"))
    (theirs / "model.safetensors").unlink()
    for name in ("config.json", "generation_config.json"):
        shutil.copy(theirs / name, ours)
    return ours, theirs


def split(folder: Path, state: dict[str, torch.Tensor]) -> dict[str, str]:
    """Writes a model in two files and their index, as blocks 0 to 2 and the rest; returns which holds what."""
    files = {name: f"model-0000{1 + (name > 'model.layers.3')}-of-00002.safetensors" for name in state}
    for file in sorted(set(files.values())):
        save_file({name: state[name] for name in state if files[name] == file}, folder / file)
    write_index(folder, files)
    return files


def write_index(folder: Path, files: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("start", RULES)
def test_all_starts(both: tuple[Path, Path], tmp_path: Path, start: Start) -> None:
    options: dict[str, Any] = {"start": start, "layers": {"stacking": "12", "hybrid-stacking": "4"}.get(start, "3")}
    if RULES[start].grows:
        surgery(both[1], layers="2", out_dir=tmp_path / "trained")
        options["target_dir"] = tmp_path / "trained"
    for source, out in zip(both, ("ours", "theirs"), strict=True):
        surgery(source, out_dir=tmp_path / "cut" / out, **options)
    assert contents(tmp_path / "cut/ours") == contents(tmp_path / "cut/theirs")
    receipts = [json.loads((tmp_path / "cut" / out / "inheritance.json").read_text()) for out in ("ours", "theirs")]
    assert receipts[0]["origins"] == receipts[1]["origins"]
    assert receipts[0]["source"].keys() == receipts[1]["source"].keys()
    if start != "random":
        verify(tmp_path / "cut/theirs", source=both[0])
        verify(tmp_path / "cut/ours", source=both[1])


def test_only_what_is_kept_is_read(both: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(
        safetensors_folder, "fill", lambda buffer, *place: (read.append(len(buffer)), fill(buffer, *place))
    )
    monkeypatch.setattr(safetensors_folder, "SAMPLE", 8)
    surgery(both[1], layers="2", out_dir=tmp_path / "out")
    kept, whole = ((folder / "lit_model.pth").stat().st_size for folder in (tmp_path / "out", both[0]))
    assert sum(read) < kept < 0.7 * whole


def test_the_fingerprint_is_the_weights(both: tuple[Path, Path], tmp_path: Path) -> None:
    """However they are cut into files; one changed tensor of the 57, kept or not, makes another."""
    folder = both[1]
    fingerprint = open_weights(folder)[1].fingerprint()
    surgery(folder, layers="2", out_dir=tmp_path / "out")
    state = state_of(folder)
    whole = shutil.copytree(folder, tmp_path / "whole" / folder.name, ignore=shutil.ignore_patterns("*safetensors*"))
    save_file(state, whole / "model.safetensors")
    assert open_weights(whole)[1].fingerprint() == fingerprint
    for name in state:
        save_file(state | {name: state[name] * 1.01}, whole / "model.safetensors")
        assert open_weights(whole)[1].fingerprint() != fingerprint, name
    with pytest.raises(InheritError, match=r"is not the source of .*: its fingerprint is hf-"):
        verify(tmp_path / "out", source=whole)


def change(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Writes the files again with other tensors, or without those that are None; `__` stands for a dot."""
    changes = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    split(folder, {n: t.contiguous() for n, t in (state_of(folder) | changes).items() if t is not None})


def truncate(folder: Path) -> None:
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def relabel(folder: Path, name: str, file: str | None) -> None:
    files = split(folder, state_of(folder))
    files = {key: value for key, value in (files | {name: file}).items() if value is not None}
    write_index(folder, files)


FIRST = "model-00001-of-00002.safetensors"
QUERY = "model__layers__1__self_attn__q_proj__weight"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a truncated file": (truncate, r"model-00002-of-00002.safetensors is not whole: .*Fetch it again"),
    "a missing file": (lambda f: (f / FIRST).unlink(), f"names files that are not in .*: {FIRST}"),
    "a tensor in two files": (
        lambda f: save_file(state_of(f), f / FIRST),
        "is in .*00002-of-00002.safetensors and in another file of its index|is in .*00001-of-00002.safetensors and",
    ),
    "an index with a tensor more": (
        lambda f: relabel(f, "model.layers.7.x", FIRST),
        f"index.json names model.layers.7.x in {FIRST}, which has none",
    ),
    "an index of another file": (
        lambda f: relabel(f, "lm_head.weight", "model-00002-of-00002.safetensors"),
        "index.json names lm_head.weight in model-00002-of-00002.safetensors, which has none",
    ),
    "an index with a tensor less": (
        lambda f: relabel(f, "lm_head.weight", None),
        f"index.json names nothing of lm_head.weight, which is in {FIRST}",
    ),
    "a tensor of another shape": (
        lambda f: edit(f, model__layers__1__self_attn__o_proj__weight=torch.ones(32, 31)),
        r"contradicts litGPT's open_llama_3b .*h.1.attn.proj.weight has shape \(32, 31\), expected \(32, 32\)",
    ),
    "a tensor of another type": (
        lambda f: edit(f, **{QUERY: torch.ones(32, 32, dtype=torch.int8)}),
        r"h.1.attn.qkv.weight: expected one of the types .*, got model.layers.1.self_attn.q_proj.weight I8 \[32, 32\]",
    ),
    "parts of two types": (
        lambda f: edit(f, **{QUERY: torch.ones(32, 32, dtype=torch.float16)}),
        r"got model.layers.1.self_attn.q_proj.weight F16 \[32, 32\], model.layers.1.self_attn.k_proj.weight F32",
    ),
    "no values": (
        lambda f: edit(f, model__norm__weight=torch.ones(0)),
        r"can't give litGPT's transformer.ln_f.weight: .*, got no values",
    ),
    "an unknown tensor": (
        lambda f: edit(f, model__layers__1__extra=torch.ones(2)),
        "litGPT's converter does not make a open_llama_3b of .*KeyError: 'model.layers.{}.extra'",
    ),
    "a lost part": (lambda f: edit(f, **{QUERY: None}), "transformer.h.1.attn.qkv.weight is missing"),
    "a lost embedding": (lambda f: edit(f, model__embed_tokens__weight=None), "transformer.wte.weight"),
    "a lost head": (lambda f: edit(f, lm_head__weight=None), "holds no head, and its config.json says tie_word_em"),
    "two heads": (lambda f: change(f, tie_word_embeddings=True), "holds a head that is not its token embedding"),
    "another depth": (lambda f: change(f, num_hidden_layers=5), "num_hidden_layers is 5, litGPT's n_layer 6"),
    "other heads": (lambda f: change(f, num_attention_heads=8), "num_attention_heads is 8, litGPT's n_head 4"),
    "another base": (lambda f: change(f, rope_theta=5e5), "rope_theta is 500000.0, litGPT's rope_base 10000"),
    "code": (lambda f: change(f, trust_remote_code=True), "config.json has trust_remote_code: by such a key"),
    "not a number": (
        lambda f: edit(f, model__norm__weight=torch.full((32,), torch.nan)),
        r"Tensor 'transformer.ln_f.weight' of .*open_llama_3b holds 32 NaN .*--no-check_finite",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(both: tuple[Path, Path], tmp_path: Path, what: str) -> None:
    damage, message = REFUSED[what]
    damage(both[1])
    with pytest.raises(InheritError, match=message):
        surgery(both[1], layers="2", out_dir=tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_a_name_that_litgpt_does_not_know(both: tuple[Path, Path], tmp_path: Path) -> None:
    other = both[1].rename(tmp_path / "mine")
    with pytest.raises(InheritError, match="litGPT knows no model called 'mine', .* or a link to it, what litGPT"):
        surgery(other, layers="2", out_dir=tmp_path / "out")
    (tmp_path / "open_llama_3b").symlink_to(other)
    surgery(tmp_path / "open_llama_3b", layers="2", out_dir=tmp_path / "out")


def test_a_tied_head_that_is_stored_twice(both: tuple[Path, Path], tmp_path: Path) -> None:
    """As litGPT's converter has it: two tensors that are equal."""
    edit(both[1], lm_head__weight=state_of(both[1])["model.embed_tokens.weight"])
    change(both[1], tie_word_embeddings=True)
    convert_hf_checkpoint(converted := shutil.copytree(both[1], tmp_path / "litgpt" / both[1].name))
    for source, out in ((both[1], "straight"), (converted, "round")):
        surgery(source, layers="2", out_dir=tmp_path / out)
    assert contents(tmp_path / "straight") == contents(tmp_path / "round")


# -- what else opens a reference


def test_code_is_refused_whoever_opens_it(both: tuple[Path, Path]) -> None:
    change(both[1], trust_remote_code=True)
    with pytest.raises(InheritError, match="config.json has trust_remote_code: by such a key"):
        load_model(both[1])


def test_litgpt_is_imported_by_pieces(both: tuple[Path, Path], tmp_path: Path) -> None:
    """What names the tensors needs Lightning no more than surgery does."""
    stated = json.loads((both[1] / "config.json").read_text())
    del stated["layer_norm_eps"]  # of no Llama: transformers would be asked
    (both[1] / "config.json").write_text(json.dumps(stated))
    code = f"""
import sys
from inheritune_lit.__main__ import main
from inheritune_lit.base.piecewise import by_pieces
by_pieces()
from litgpt.config import name_to_config
name_to_config["open_llama_3b"] |= {SMALL | FAMILIES["open_llama_3b"][0]!r}
main(["surgery", {str(both[1])!r}, "--layers", "2", "--out_dir", {str(tmp_path / "out")!r}])
heavy = {{name.partition(".")[0] for name in sys.modules}} & {{"lightning", "torchmetrics", "transformers", "datasets"}}
assert not heavy and "torch._dynamo" not in sys.modules, heavy
"""
    done = ended([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/inheritance.json").is_file()


def test_analyze_choose_and_a_teacher(
    both: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_tokens(tmp_path, both[1], documents=40)
    found = [measure(folder, Settings(data, windows=4, max_seq_length=16)) for folder in both]
    assert found[0]["depths"] == found[1]["depths"]
    assert found[0]["blocks"] == found[1]["blocks"]
    losses = [held_out_loss(folder, data, max_seq_length=16)["per_window"] for folder in both]
    assert losses[0] == losses[1]
    capsys.readouterr()
    for folder in both:
        choose(folder, data=data, out_dir=tmp_path / "choice", keep=3, dry_run=True)
    said = capsys.readouterr().out.replace("\n", " ").partition(" 3 of 6 blocks")
    assert said[0].partition("about")[0] == ("3 of 6 blocks" + said[2]).partition("about")[0]
    teachers = []
    for folder in both:
        taught = DistilledTokens(data, teacher_dir=folder, weight=0.5)
        taught.connect(Tokenizer(folder), max_seq_length=16)
        taught.setup()
        teachers.append(taught.teacher(torch.arange(8)[None]))
    assert torch.equal(*teachers)
    start = {"initial_checkpoint_dir": None, "data": {"class_path": "inheritune_lit.data.DistilledTokens"}}
    start["data"]["init_args"] = {"teacher_dir": str(both[1]), "weight": 0.5, "data_path": str(data)}
    assert parents(start)["teacher"]["fingerprint"] == open_weights(both[1])[1].fingerprint()
