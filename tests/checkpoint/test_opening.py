"""A Hugging Face folder opened as a checkpoint: the same target as over litGPT's conversion, and what is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from checkpoint.test_families import FAMILIES, SMALL
from helpers.models import make_checkpoint, write_bpe
from litgpt.config import name_to_config
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import load_config
from inheritune_lit.checkpoint.hugging_face import convert, read_hf_config, write_model
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.surgery.command import surgery
from inheritune_lit.surgery.compare import compare_logits
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
    write_model(convert(weights, config, stated, ours), stated, theirs)
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
    assert torch.equal(*(load_model(folder)(torch.arange(8)[None]) for folder in (theirs, converted)))
