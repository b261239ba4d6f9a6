"""What `inheritune recipes validate` finds in a GPT-2's recipe."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from helpers.models import ROOT
from litgpt.config import Config

from inheritune_lit.gpt2 import build
from inheritune_lit.recipes.check.findings import Finding
from inheritune_lit.recipes.check.validate import validate_file

RECIPE = ROOT / "recipes/gpt2/large_n18.yaml"
SMALL = "n_embd: 32\n  n_head: 4\n  n_query_groups: 4\n  head_size: 8\n  intermediate_size: 128"


def changed(folder: Path, **changes: str) -> dict[str, Finding]:
    """The findings on the recipe with some of its text replaced."""
    text = RECIPE.read_text()
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "changed.yaml").write_text(text)
    return {finding.key: finding for finding in validate_file(folder / "changed.yaml")[0]}


@pytest.mark.parametrize(
    ("old", "new", "key", "text"),
    [
        ("  rotary_percentage: 0.0\n", "", "model_config.rotary_percentage", "left out, and litGPT then takes 0.25"),
        ("gelu_approximate: tanh", "gelu_approximate: none", "model_config.gelu_approximate", "a GPT-2's is tanh"),
        ("  block_size: 1024\n", "", "model_config.block_size", "litGPT then takes 4,096"),
        ("    layer_norm_bias: false\n", "", "model_config.hf_config", "layer_norm_bias is None"),
        ("inheritune_lit.data.PackedTokens", "OpenWebText", "data.class_path", "without positions"),
        ("tie_embeddings: false", "tie_embeddings: true", "train.tie_embeddings", "no head beside its token embedding"),
        ("seed: 42\n\n", "seed: 42\ndevices: 3\n\n", "train.global_batch_size", "5 on each, 15 in all"),
    ],
)
def test_one_mistake(tmp_path: Path, old: str, new: str, key: str, text: str) -> None:
    finding = changed(tmp_path, **{old: new})[key]
    assert (finding.severity, text in finding.problem) == ("error", True), finding


def test_another_models_config_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-2's config.json calls its depth n_layer. litGPT would copy OpenAI's small one into every checkpoint."""
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "checkpoints/gpt2_large_n18"
    target.mkdir(parents=True)
    (target / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 12, "tie_word_embeddings": True}))
    findings = changed(tmp_path)
    assert "states 12 blocks, the recipe 18" in findings["tokenizer_dir"].problem
    assert "train.tie_embeddings" not in findings  # config.json's way to say that there is no other head


def test_a_checkpoint_that_computes_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tensors, but other attention scales: only hf_config tells every other block from the first ones."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints/gpt2_large_n18"
    folder.mkdir(parents=True)
    settings = yaml.safe_load(RECIPE.read_text())["model_config"]
    sizes = {"n_embd": 32, "n_head": 4, "n_query_groups": 4, "head_size": 8, "intermediate_size": 128}
    small = {"n_embd: 1280\n  n_head: 20\n  n_query_groups: 20\n  head_size: 64\n  intermediate_size: 5120": SMALL}
    every_other = settings["hf_config"] | {"layer_idx": list(range(0, 36, 2))}
    for options, found in ((settings["hf_config"], False), (every_other, True)):
        config = Config(**settings | sizes | {"hf_config": options})
        (folder / "model_config.yaml").write_text(yaml.dump(asdict(config)))
        torch.save(build(config).state_dict(), folder / "lit_model.pth")
        assert ("model_config.hf_config" in changed(tmp_path, **small)) == found


def test_litgpt_is_not_imported() -> None:
    """It takes 7 of the five seconds in which mistakes are to be named."""
    code = (
        "import sys; from pathlib import Path; from inheritune_lit.base.yaml_document import read_document; "
        "from inheritune_lit.recipes.check.validate import check_document; "
        f"check_document(read_document(Path({str(RECIPE)!r}))); sys.exit('lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
