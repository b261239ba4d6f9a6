"""Export: the Hugging Face folder is litGPT's model, and what would make it another is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.models import TEXTS, make_tokenizer, write_bpe
from helpers.models_to_export import LLAMA, make_reference
from safetensors.torch import load_file, save_file

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.export import parity, reload
from inheritune_lit.export.command import export, export_checkpoint
from inheritune_lit.prepare.command import prepare
from inheritune_lit.runs.lineage import read_lineage
from inheritune_lit.surgery.command import surgery
from inheritune_lit.verify import verify

TYPES = (("float32", 0.0), ("bfloat16", 0.05), ("float16", 0.01))


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 3 of 6 blocks, by surgery; no test changes it."""
    folder = tmp_path_factory.mktemp("export")
    surgery(make_reference(folder / "reference", "llama", LLAMA), layers="3", out_dir=folder / "cut")
    return folder / "cut"


@pytest.fixture
def target(cut: Path, tmp_path: Path) -> Path:
    """A copy of `cut` without its receipt, as litGPT saves checkpoints, for a test to break."""
    shutil.copytree(cut, tmp_path / "cut")
    (tmp_path / "cut/inheritance.json").unlink()
    return tmp_path / "cut"


@pytest.fixture(scope="module")
def sound_export(cut: Path) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(parity, "reload_in_new_process", reload.reload)
        export_checkpoint(cut, cut.parent / "exported")
    return cut.parent / "exported"


@pytest.fixture
def exported(sound_export: Path, tmp_path: Path, in_this_process: None) -> Path:
    """A copy of an exported folder, for a test to break."""
    return shutil.copytree(sound_export, tmp_path / "exported")


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the 6 s of a new process; test_a_new_process_says_the_same has one."""
    monkeypatch.setattr(parity, "reload_in_new_process", reload.reload)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def hf_logits(folder: Path, ids: list[int]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(torch.tensor([ids])).logits[0]


def test_a_new_process_says_the_same(cut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(cut, out_dir=tmp_path / "out")
    assert "3 blocks, 67,296 parameters in float32" in capsys.readouterr().out
    receipt = json.loads((tmp_path / "out/inheritance.json").read_text())
    assert receipt["check"]["depth"] == 3
    assert receipt["check"]["logits"]["relative_difference"] <= 1e-5
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert receipt["files"].keys() == written - {"README.md", "inheritance.json"}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "README.md"} <= written
    edit(tmp_path / "out/config.json", num_hidden_layers=6)
    with pytest.raises(InheritError, match="model.layers.3.input_layernorm.weight is missing"):
        reload.reload_in_new_process(tmp_path / "out")


def test_a_process_that_dies_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "_offline", os.abort)
    with pytest.raises(InheritError, match="The process in which transformers opened .* died"):
        reload.reload_in_new_process(tmp_path)


@pytest.mark.parametrize(("dtype", "rounding"), TYPES)
def test_logits_are_litgpts(cut: Path, tmp_path: Path, in_this_process: None, dtype: Any, rounding: float) -> None:
    receipt = export_checkpoint(cut, tmp_path / "out", dtype=dtype)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["num_hidden_layers"] == 3
    assert config["dtype"] == dtype
    assert {t.dtype for t in load_file(tmp_path / "out/model.safetensors").values()} == {getattr(torch, dtype)}
    ids = [5, 100, 599, 0, 7, 7]
    with torch.inference_mode():
        expected = load_model(cut)(torch.tensor([ids]))[0]
    difference = parity.difference(hf_logits(tmp_path / "out", ids), expected)
    assert difference <= max(rounding, 1e-5)
    assert receipt["check"]["rounding"]["relative_difference"] <= rounding


def test_a_big_model_is_sharded(cut: Path, tmp_path: Path, in_this_process: None) -> None:
    with pytest.raises(InheritError, match="--max_shard_size '50 kilos': expected a size such as 500MB"):
        export_checkpoint(cut, tmp_path / "out", max_shard_size="50 kilos")
    receipt = export_checkpoint(cut, tmp_path / "out", max_shard_size="50KB")
    assert receipt == json.loads((tmp_path / "out/inheritance.json").read_text())
    assert "model.safetensors.index.json" in receipt["files"]
    assert sum(name.endswith(".safetensors") for name in receipt["files"]) > 2
    assert receipt["check"]["depth"] == 3


def test_it_is_a_base_model(target: Path, tmp_path: Path, in_this_process: None) -> None:
    (target / "chat_template.jinja").write_text("{{ messages }}")
    edit(target / "tokenizer_config.json", chat_template="{{ messages }}")
    generation = {"eos_token_id": 7, "bos_token_id": [3, 0], "temperature": 0.6, "do_sample": True}
    (target / "generation_config.json").write_text(json.dumps(generation))
    edit(target / "config.json", eos_token_id=7)
    export_checkpoint(target, tmp_path / "out")
    assert not (tmp_path / "out/chat_template.jinja").exists()
    assert "chat_template" not in json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    found = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert found == generation | {"eos_token_id": 1}  # what prepare ends documents with
    assert json.loads((tmp_path / "out/config.json").read_text())["eos_token_id"] == 1
    assert "chat_template" in (target / "tokenizer_config.json").read_text()  # the checkpoint stays as it is


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_tied_if_it_is(target: Path, tmp_path: Path, in_this_process: None, tied: bool) -> None:
    state = torch.load(target / "lit_model.pth", weights_only=True)
    if tied:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    torch.save({"model": state, "optimizer": {}, "step_count": 4}, target / "lit_model.pth")  # as pretrain saves it
    edit(target / "config.json", tie_word_embeddings=not tied)  # the reference's, or a recipe that says otherwise
    export_checkpoint(target, tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is tied
    assert ("lm_head.weight" in load_file(tmp_path / "out/model.safetensors")) is not tied


def test_a_run_means_its_checkpoint(target: Path, tmp_path: Path, in_this_process: None) -> None:
    run = tmp_path / "run"
    (run / "step-00000002").mkdir(parents=True)
    shutil.copyfile(target / "lit_model.pth", run / "step-00000002/lit_model.pth")
    with pytest.raises(InheritError, match=r"has not ended; name one of its checkpoints: step-00000002"):
        export_checkpoint(run, tmp_path / "out")
    shutil.copytree(target, run / "final")
    assert export_checkpoint(run, tmp_path / "out")["check"]["depth"] == 3


def drop_tensor(folder: Path) -> None:
    state = torch.load(folder / "lit_model.pth", weights_only=True)
    del state["transformer.h.2.norm_2.weight"]
    torch.save(state, folder / "lit_model.pth")


def truncate(folder: Path) -> None:
    path = folder / "lit_model.pth"
    path.write_bytes(path.read_bytes()[:-1000])


def flip(folder: Path) -> None:
    path = folder / "lit_model.pth"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def swap_tokenizer(folder: Path, vocab_size: int = 500) -> None:
    shutil.copyfile(make_tokenizer(folder / "other", vocab_size) / "tokenizer.json", folder / "tokenizer.json")
    shutil.rmtree(folder / "other")


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "26 blocks over weights for 13": (
        lambda folder: edit(folder / "config.json", num_hidden_layers=6),
        r"config.json says 6 blocks, the weights beside it are 3",
    ),
    "13 blocks over weights for 26": (
        lambda folder: edit(folder / "config.json", num_hidden_layers=2),
        r"config.json says 2 blocks, the weights beside it are 3",
    ),
    "another width": (
        lambda folder: edit(folder / "config.json", intermediate_size=40),
        r"mlp.down_proj.weight has shape \(32, 48\), expected \(32, 40\)",
    ),
    "another rotary base": (
        lambda folder: edit(folder / "config.json", rope_theta=100.0),
        r"differ from litGPT's with the same weights .* describe two models",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"config.json is missing"),
    "unknown family": (
        lambda folder: edit(folder / "config.json", model_type="nonesuch"),
        r"transformers does not accept .*nonesuch",
    ),
    "a tensor dropped": (drop_tensor, r"transformer.h.2.norm_2.weight is missing"),
    "truncated": (truncate, r"is not a whole PyTorch checkpoint"),
    "a bit flipped": (flip, r"is corrupt|not a whole PyTorch checkpoint"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), r"Can't open the tokenizer in"),
    "a bigger tokenizer": (
        lambda folder: swap_tokenizer(folder, 700),
        r"700 tokens, ids up to 699, the model embeddings for 640",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_is_refused(target: Path, tmp_path: Path, in_this_process: None, name: str) -> None:
    break_it, message = BROKEN[name]
    break_it(target)
    with pytest.raises(InheritError, match=message):
        export_checkpoint(target, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_receipt_vouches_for_is_checked(cut: Path, tmp_path: Path) -> None:
    shutil.copytree(cut, tmp_path / "cut")
    swap_tokenizer(tmp_path / "cut")
    with pytest.raises(InheritError, match=r"tokenizer.json has [\d,]+ bytes, expected"):
        export_checkpoint(tmp_path / "cut", tmp_path / "out")


def test_a_swapped_tokenizer_is_refused(cut: Path, target: Path, tmp_path: Path, in_this_process: None) -> None:
    swap_tokenizer(target)
    recipe = {"initial_checkpoint_dir": str(cut), "data": {"init_args": {"data_path": str(tmp_path / "none")}}}
    (target / "hyperparameters.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(InheritError, match="is not the file of the checkpoint that training began with"):
        export_checkpoint(target, tmp_path / "out")
    shutil.copyfile(cut / "tokenizer.json", target / "tokenizer.json")
    manifest = {"tokenizer": {"identity": "0" * 64, "vocab_size": 600}, "splits": {"train": [], "val": []}}
    (tmp_path / "none").mkdir()
    (tmp_path / "none/manifest.json").write_text(json.dumps({"format": 1, "dtype": "uint16", **manifest}))
    with pytest.raises(InheritError, match="is not the tokenizer of the training data in"):
        export_checkpoint(target, tmp_path / "out")


def test_two_tokenizers_in_one_folder_are_refused(
    target: Path, tmp_path: Path, in_this_process: None, sentencepiece: Path
) -> None:
    (target / "tokenizer.json").unlink()
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copyfile(sentencepiece / name, target / name)
    edit(target / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    shutil.copytree(write_bpe(tmp_path / "bpe"), tmp_path / "other")
    (target / "vocab.json").write_text(json.dumps({"a": 0, "<|endoftext|>": 1}))
    (target / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(InheritError, match="can't open the tokenizer in"):
        export_checkpoint(target, tmp_path / "out")


def drop_exported_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def add_exported_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["model.layers.3.mlp.up_proj.weight"] = state["model.layers.1.mlp.up_proj.weight"].clone()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def truncate_exported(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def change_exported(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["model.layers.1.mlp.up_proj.weight"] *= 1.01
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


EXPORTED: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "depth": (
        lambda folder: edit(folder / "config.json", num_hidden_layers=6),
        "config.json has SHA-256|config.json has",
        r"\(depth 6\) does not describe the weights .*model.layers.3.input_layernorm.weight is missing",
    ),
    "fewer": (
        lambda folder: edit(folder / "config.json", num_hidden_layers=2),
        "config.json has",
        r"\(depth 2\) .*model.layers.2.input_layernorm.weight belongs to no block",
    ),
    "dropped": (drop_exported_tensor, "model.safetensors has", "model.layers.1.mlp.up_proj.weight is missing"),
    "added": (add_exported_tensor, "model.safetensors has", "model.layers.3.mlp.up_proj.weight belongs to no block"),
    "truncated": (truncate_exported, "model.safetensors has", "transformers can't open"),
    "changed": (change_exported, "model.safetensors has", "differ from litGPT's with the same weights"),
    "tokenizer": (swap_tokenizer, "tokenizer.json has", "is not litGPT's tokenizer in"),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_a_broken_export_is_refused(exported: Path, cut: Path, in_this_process: None, name: str) -> None:
    break_it, by_receipt, by_reload = EXPORTED[name]
    break_it(exported)
    with pytest.raises(InheritError, match=by_receipt):
        verify(exported)
    receipt = json.loads((exported / "inheritance.json").read_text())
    with pytest.raises(InheritError, match=by_reload):  # even if the receipt did not tell
        parity.verify_export(exported, receipt, cut)


def test_a_sound_export_is_verified(
    exported: Path, cut: Path, tmp_path: Path, in_this_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    verify(exported)
    verify(exported, source=cut)
    assert capsys.readouterr().out.count("3 blocks, all tensors there and none left over") == 2
    with pytest.raises(InheritError, match="is not the source of"):
        verify(exported, source=cut.parent / "reference")


def test_a_tokenizer_that_only_the_slow_class_gets_right(
    target: Path, tmp_path: Path, in_this_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenLLaMA's SentencePiece model drops runs of spaces; transformers' conversion into a fast tokenizer does not."""
    from sentencepiece import SentencePieceTrainer

    with (target / "tokenizer.model").open("wb") as file:
        SentencePieceTrainer.train(
            **{"sentence_iterator": iter(TEXTS), "model_writer": file, "model_type": "bpe", "vocab_size": 330},
            **{"byte_fallback": True, "character_coverage": 0.98, "minloglevel": 2},
        )
    (target / "tokenizer.json").unlink()
    (target / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "legacy": true}')
    assert export_checkpoint(target, tmp_path / "out")["tokenizer"] == {"use_fast": False}
    assert "from_pretrained(folder, use_fast=False)" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_gpt2(tmp_path: Path, in_this_process: None, dtype: Any, bound: float) -> None:
    reference = make_reference(tmp_path / "reference", "gpt2", {"model_type": "gpt2", "n_layer": 6})
    surgery(reference, layers="0-1,4", out_dir=tmp_path / "cut")
    receipt = export_checkpoint(tmp_path / "cut", tmp_path / "out", dtype=dtype)
    assert receipt["check"]["logits"]["relative_difference"] <= bound
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["n_layer"], config["vocab_size"], config["scale_attn_by_inverse_layer_idx"]) == (3, 640, False)
    ids = [5, 100, 599, 0, 7, 7]
    with torch.inference_mode():
        expected = load_model(tmp_path / "cut")(torch.tensor([ids]))[0]
    assert parity.difference(hf_logits(tmp_path / "out", ids), expected) <= bound


def test_litgpts_own_evaluation_converts_it_right(target: Path, tmp_path: Path) -> None:
    """The first half of `litgpt evaluate`; the other half is lm-eval's, on the folder that this one leaves."""
    from litgpt.scripts.convert_lit_checkpoint import convert_lit_checkpoint
    from litgpt.utils import copy_config_files

    out = tmp_path / "evaluate"
    out.mkdir()
    copy_config_files(source_dir=target, out_dir=out)
    convert_lit_checkpoint(checkpoint_dir=target, output_dir=out)
    torch.save(torch.load(out / "model.pth"), out / "pytorch_model.bin")
    ids = [5, 100, 599, 0, 7, 7]
    with torch.inference_mode():
        expected = load_model(target)(torch.tensor([ids]))[0]
    assert parity.difference(hf_logits(out, ids), expected) <= 1e-5
    edit(out / "config.json", num_hidden_layers=6)  # as the reference's would be: random blocks on top
    assert parity.difference(hf_logits(out, ids), expected) > 0.01


def test_litgpt_generates_from_it(cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from litgpt.generate.base import main
    from litgpt.tokenizer import Tokenizer

    main(cut, prompt="The quick brown", max_new_tokens=3, top_k=1)
    model, tokenizer = load_model(cut), Tokenizer(cut)
    ids = tokenizer.encode("The quick brown")
    for _ in range(3):
        with torch.inference_mode():
            ids = torch.cat([ids, model(ids[None])[0, -1].argmax()[None].int()])
    assert tokenizer.decode(ids) in capsys.readouterr().out


RUN = {
    **{"format": 1, "kind": "run", "tokens": 640, "steps": 10, "seconds": 5400.0, "parameters": 67_296},
    "versions": {"lightning": "2.6.6"},
    "hardware": {"gpus": ["NVIDIA RTX A6000"] * 2, "world_size": 2, "cores": 8, "processor": "x86_64"},
    "launches": [{"from_step": 0, "to_step": 10, "world_size": 2}],
    "losses": {"training": 5.25, "validation": 5.5},
    "validation_loss_untrained": 9.125,
}
RECIPE = {
    "model_name": "open_llama_3b",
    "precision": "bf16-mixed",
    "seed": 42,
    "train": {"global_batch_size": 4, "max_seq_length": 16, "max_tokens": 640, "lr_warmup_steps": 2, "min_lr": 3e-5},
    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-4, "betas": [0.9, 0.95]}},
}
SCORE = {"metric": "acc", "value": 0.5125, "stderr": 0.0125, "version": 1.0, "num_fewshot": 0, "samples": 1838}


@pytest.fixture
def run(cut: Path, tmp_path: Path) -> Path:
    """A finished run's folder that began with `cut`, with results of its weights and of others."""
    folder = tmp_path / "small_llama"
    shutil.copytree(cut, folder / "final")
    (folder / "final/inheritance.json").unlink()
    data = prepare_words(tmp_path, cut)
    digest = sha256_file(data / "manifest.json")
    start = {"fingerprint": "f" * 64, "inheritance": json.loads((cut / "inheritance.json").read_text())}
    recipe = RECIPE | {"data": {"init_args": {"data_path": str(data)}}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    edit_new(folder / "run.json", RUN | {"start": start, "data": {"path": str(data), "manifest_sha256": digest}})
    fingerprint = Weights(folder / "final/lit_model.pth").fingerprint()
    ours, other = {"fingerprint": fingerprint}, {"fingerprint": "0" * 64}
    result = {"format": 1, "kind": "evaluation", "suite": "low_data", "limit": None, "tasks": {"piqa": SCORE}}
    loss = {"kind": "validation_loss", "mean": 5.5, "stderr": 0.03125, "perplexity": 244.69, "tokens": 4096}
    edit_new(folder / "evaluation/low_data.json", result | {"model": ours})
    edit_new(folder / "evaluation/old.json", result | {"model": other, "suite": "of_other_weights"})
    edit_new(folder / "evaluation/loss.json", loss | {"model": ours})
    return folder


def edit_new(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def prepare_words(folder: Path, tokenizer_dir: Path) -> Path:
    for domain, documents in (("books", 3), ("web", 9)):
        (folder / "text" / domain).mkdir(parents=True)
        for i in range(documents):
            (folder / f"text/{domain}/{i}{'val' * (i == 0)}.txt").write_text("The quick brown fox jumps over it. " * 4)
    settings: dict[str, Any] = {"val_share": 0, "val_glob": "*val*", "tasks": 1}
    prepare(folder / "text", out_dir=folder / "tokens", tokenizer_dir=tokenizer_dir, **settings)
    return folder / "tokens"


def test_the_card_says_what_is_known(run: Path, tmp_path: Path, in_this_process: None) -> None:
    export_checkpoint(run, tmp_path / "out", license="apache-2.0", base_model="openlm-research/open_llama_3b")
    card = (tmp_path / "out/README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "apache-2.0"
    assert front["base_model"] == "openlm-research/open_llama_3b"
    assert front["library_name"] == "transformers"
    start = json.loads((run / "run.json").read_text())["start"]["inheritance"]
    for line in (
        "# out\n",
        "3 blocks and 67,296 parameters",
        f"| its fingerprint | `{start['source']['fingerprint']}` |",
        "| blocks taken, in this order | the first 3 |",
        "| tokens | 640 |",
        "| optimizer steps | 10 |",
        "| learning rate | 0.0003 |",
        "| hardware | 2 × NVIDIA RTX A6000 |",
        "| hours | 1.50 |",
        "| loss, training at the end, of 1/2 of each batch (nats per token) | 5.2500 |",
        "| loss, validation before training (nats per token) | 9.1250 |",
        "| web | ",
        "80.00 % | 8 |",
        "| piqa | acc | 51.25 | 1.25 | 0 | 1,838 | 1.0 |",
        "5.5000 ± 0.0312 nats per token",
        "lr: 0.0003",
        "lightning 2.6.6",
    ):
        assert line in card, line
    assert "of_other_weights" not in card
    assert "unknown" not in card.lower().replace("| gradient clipping | unknown |", "").replace(
        "| weight decay | unknown |", ""
    )


def test_the_card_calls_unknown_what_is_unknown(target: Path, tmp_path: Path, in_this_process: None) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))  # beside it, of something else
    export_checkpoint(target, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "unknown"
    for line in (
        "No training of these weights is on record",
        "Unknown: no receipt tells what these weights began with.",
        "No benchmark results of these weights are on record.",
        "Unknown: check the licence of the reference",
    ):
        assert line in card, line
    assert "base_model" not in card


@pytest.mark.parametrize("step", ["step-00000005", "weights/00000005"])
def test_the_card_of_a_checkpoint_on_the_way(run: Path, step: str, tmp_path: Path, in_this_process: None) -> None:
    """The run's time and last losses are not those of step 5 of 10."""
    shutil.copytree(run / "final", run / step)
    export_checkpoint(run / step, tmp_path / "out", license="other", base_model="a/1e5")
    card = (tmp_path / "out/README.md").read_text()
    for line in (
        "| tokens | 320 |",
        "| optimizer steps | 5 |",
        "| hours | unknown |",
        "| loss, training at the end, of 1/2 of each batch (nats per token) | unknown |",
        "| loss, validation at the end (nats per token) | unknown |",
        "| loss, validation before training (nats per token) | 9.1250 |",
    ):
        assert line in card, line
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["license"], front["base_model"]) == ("other", "a/1e5")


def test_a_number_as_a_folders_name_is_no_step(cut: Path, tmp_path: Path) -> None:
    shutil.copytree(cut, tmp_path / "2024")
    assert read_lineage(tmp_path / "2024").steps is None


def test_the_card_of_a_plain_litgpt_run(run: Path, tmp_path: Path, in_this_process: None) -> None:
    """Which leaves its settings in final/ only; `inheritune evaluate RUN` writes beside that."""
    (run / "recipe.yaml").rename(run / "final/hyperparameters.yaml")
    (run / "run.json").unlink()
    receipt = export_checkpoint(run, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert receipt["source"]["name"] == "small_llama"
    assert "| tokens | 640 |" in card
    assert "| piqa | acc | 51.25 |" in card


def test_the_card_of_converted_weights_claims_no_inheriting(
    target: Path, tmp_path: Path, in_this_process: None
) -> None:
    receipt = {"format": 1, "kind": "conversion", "source": {"name": "gpt2-medium"}, "files": {}}
    (target / "inheritance.json").write_text(json.dumps(receipt))
    export_checkpoint(target, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "No training of these weights is on record.**\n" in card
    assert "| reference | `gpt2-medium` |" in card
    assert "Inheritune" not in card
    assert "not a model to use" not in card


def test_the_card_does_not_describe_data_prepared_since(run: Path, tmp_path: Path, in_this_process: None) -> None:
    path = tmp_path / "tokens/manifest.json"
    path.write_text(path.read_text() + "\n")
    export_checkpoint(run, tmp_path / "out")
    assert (
        "Unknown: the token shards are not at hand, or were prepared again since."
        in (tmp_path / "out/README.md").read_text()
    )


def test_a_half_written_result_is_named(run: Path, tmp_path: Path, in_this_process: None) -> None:
    path = run / "evaluation/low_data.json"
    result = json.loads(path.read_text())
    del result["tasks"]["piqa"]["samples"]
    path.write_text(json.dumps(result))
    with pytest.raises(InheritError, match="the model card needs is not whole: .*samples"):
        export_checkpoint(run, tmp_path / "out")


def test_what_a_killed_evaluation_left_is_no_result(run: Path, tmp_path: Path, in_this_process: None) -> None:
    (run / "evaluation/.low_data.json").write_text('{"format": 1, "ki')
    export_checkpoint(run, tmp_path / "out")
    assert "| piqa |" in (tmp_path / "out/README.md").read_text()


def test_a_single_question_has_no_standard_error(run: Path, tmp_path: Path, in_this_process: None) -> None:
    path = run / "evaluation/low_data.json"
    result = json.loads(path.read_text())
    result["tasks"]["piqa"] |= {"stderr": None, "samples": 1}
    path.write_text(json.dumps(result))
    export_checkpoint(run, tmp_path / "out")
    assert "| piqa | acc | 51.25 | unknown | 0 | 1 |" in (tmp_path / "out/README.md").read_text()


def test_a_random_start_inherited_nothing(run: Path, tmp_path: Path, in_this_process: None) -> None:
    edit(run / "run.json", start={"fingerprint": "random", "inheritance": None})
    assert export_checkpoint(run, tmp_path / "out")["inheritance"] is None
    assert "Nothing: training began with random weights." in (tmp_path / "out/README.md").read_text()


def test_an_export_does_not_delete_results(exported: Path, target: Path) -> None:
    edit_new(exported / "evaluation/low_data.json", {})
    with pytest.raises(InheritError, match="would delete the results of `inheritune evaluate` in .*/evaluation"):
        export_checkpoint(target, exported, overwrite=True)
    assert (exported / "evaluation/low_data.json").is_file()


def test_an_export_does_not_replace_what_it_is_made_from(target: Path) -> None:
    with pytest.raises(InheritError, match="would replace"):
        export_checkpoint(target, target, overwrite=True)
    assert (target / "lit_model.pth").is_file()
