"""`inheritune recipes`: what validate finds, and how it says it; list and copy."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.models import ROOT
from helpers.recipes import shards

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.yaml_document import Document, read_document
from inheritune_lit.recipes import copy, list_recipes
from inheritune_lit.recipes.check.findings import Finding, report
from inheritune_lit.recipes.check.validate import check_document, validate_file
from inheritune_lit.recipes.listing import listed, recipes, shipped

MAIN = ROOT / "recipes/openllama3b_n13.yaml"
# The main recipe with ten things wrong: what stands there → what is put instead.
TEN_MISTAKES = {
    "  n_embd: 3200\n": "",
    "seed: 42\n\n": "seed: 42\nseed: 43\n\n",
    "precision: bf16-mixed": "precision: bf16-true\nresume: auto",
    "max_tokens: 8000000000  # litGPT rejects 8e9": "max_tokens: 8e9\n  max_steps: 60000\n  epochs: 8",
    "max_seq_length: 2048": "max_seq_length: 4096",
    "  micro_batch_size: 2": "  micro_batch_size: 12",
    "lr_warmup_steps: 1000": "lr_warmup_steps: 1000\n  lr_warmup_fraction: 0.01",
    "max_norm: 1.0": "max_nrom: 1.0",
}
ERRORS = [
    ("model_config.n_embd", "left out, and litGPT then takes 4096, not open_llama_3b's 3200", "Write n_embd: 3200."),
    ("seed", "more than once; only the last one counts", "Keep one of them."),
    ("resume", "beside initial_checkpoint_dir, and litGPT refuses the two together", "initial_checkpoint_dir: null"),
    ("train.max_tokens", "8000000000.0, a float", "Write 8000000000."),
    ("train.max_steps", "litGPT ignores it: the run ends with max_tokens alone", "For 60,000 steps write max_tokens"),
    ("train.epochs", "refuses it", "Say it in tokens, train.max_tokens"),
    ("train.max_seq_length", "4,096, and the model attends to block_size, 2,048, at most", "Write 2048 or less."),
    ("train.micro_batch_size", "64 sequences a GPU are 5 micro-batches of 12: 4 are left out", "such as 8."),
    ("train.lr_warmup_fraction", "refuses it beside lr_warmup_steps (1000)", "lr_warmup_steps: null"),
    ("train.max_nrom", "no such setting", "Did you mean max_norm?"),
]


def broken(folder: Path, **changes: str) -> Path:
    """The main recipe with some of its text replaced."""
    text = MAIN.read_text()
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "broken.yaml").write_text(text)
    return folder / "broken.yaml"


def found(path: Path, **options: Any) -> dict[str, Finding]:
    return {finding.key: finding for finding in validate_file(path, **options)[0]}


@pytest.mark.parametrize("path", recipes(ROOT / "recipes"), ids=lambda path: path.name)
def test_our_own_recipes_have_nothing_worse_than_a_note(path: Path) -> None:
    findings, _ = validate_file(path)
    assert {f.severity for f in findings} <= {"note"}, report(path, findings)


def test_ten_mistakes_are_found_at_once(tmp_path: Path) -> None:
    path = broken(tmp_path, **TEN_MISTAKES)
    findings, document = validate_file(path)
    errors = {f.key: f for f in findings if f.severity == "error"}
    assert errors.keys() == {key for key, _, _ in ERRORS}
    for key, problem, fix in ERRORS:
        assert problem in errors[key].problem, key
        assert fix in errors[key].fix, key
    text = report(path, findings, document)
    assert text.startswith(f"{path}: 10 errors, 2 warnings, 2 notes\n\nerror ")
    assert f"train.max_nrom (line {document.lines['train.max_nrom']})" in text
    assert {f.key for f in findings if f.severity == "warning"} == {"precision", "train.max_norm"}


def test_exit_code_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "inheritune_lit", "recipes", "validate"]
    done = subprocess.run(
        [*command, str(broken(tmp_path, **TEN_MISTAKES))], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "→ Did you mean max_norm?" in done.stdout
    (tmp_path / "torn.yaml").write_text("train: {max_tokens: 1\n")
    done = subprocess.run([*command, str(tmp_path / "torn.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not YAML" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "command"),
    [("growth/gpt2_large", "grow"), ("surgery/openllama3b_n13", "surgery"), ("data/redpajama_1b", "prepare")],
)
def test_another_commands_recipe(name: str, command: str) -> None:
    with pytest.raises(InheritError, match=rf"but of `inheritune {command}`, .* --config .*{name}.yaml --dry_run"):
        validate_file(shipped() / f"{name}.yaml")


def test_a_strangers_recipe(tmp_path: Path) -> None:
    """n_layer alone, no train block, no data: litGPT would take another model's shape and its own defaults."""
    path = tmp_path / "stranger.yaml"
    path.write_text("model_name: pythia-14m\nmodel_config:\n  n_layer: 3\n")
    findings = found(path)
    assert findings["model_config.n_embd"].severity == "error"
    assert "takes 2,000" in findings["train.lr_warmup_steps"].problem
    assert "TinyLlama" in findings["data"].problem
    path.write_text("model_name: pythia-14n\n")
    assert "knows no model 'pythia-14n'" in found(path)["model_name"].problem


@pytest.mark.parametrize(
    ("old", "new", "options", "key", "severity", "text"),
    [
        ("num_workers: 2", "num_workers: 2\n    shufle: 1", {}, "data.init_args.shufle", "error", "no such"),
        ("data.PackedTokens", "data.PakedTokens", {}, "data.class_path", "error", "no inheritune_lit.data.PakedTokens"),
        ("torch.optim.AdamW", "torch.optim.AdamV", {}, "optimizer.class_path", "error", "no torch.optim.AdamV"),
        ("    lr: 3.0e-04\n", "", {}, "optimizer", "warning", "0.001 for AdamW"),
        ("seed: 42\n\n", "seed: 42\ndevices: 3\n\n", {}, "train.global_batch_size", "error", "21 on each, 63 in all"),
        ("seed: 42", "seed: 42", {"devices": 64}, "train.micro_batch_size", "error", "more than the 1 sequences"),
        ("8000000000  #", "100000000  #", {}, "train.lr_warmup_steps", "error", "there are only 762 steps"),
        ("8000000000  #", "100000  #", {}, "train.max_tokens", "error", "less than the 131,072 tokens of one step"),
        ("min_lr: 3.0e-05", "min_lr: 3.0e-03", {}, "train.min_lr", "warning", "not below the peak"),
        ("tie_embeddings: false", "tie_embeddings: true", {}, "train.tie_embeddings", "warning", "FSDP unties them"),
        ("n_layer: 13", "n_layer: 27", {}, "model_config.n_layer", "warning", "only 26 blocks"),
        ("n_embd: 3200", "n_embd: 3201", {}, "model_config.n_embd", "error", "open_llama_3b has 3200"),
        ("  vocab_size: 32000", "  vocab_size: 32001", {}, "model_config.padded_vocab_size", "error", "smaller"),
        ("model_name: open_llama_3b", "model_name: open_llama_7b", {}, "model_name", "warning", "ignores the former"),
        ("tokenizer_dir: checkpoints/openllama3b_n13", "tokenizer_dir: x", {}, "tokenizer_dir", "warning", "its depth"),
        ("precision: bf16-mixed", "precision: bf16", {}, "precision", "error", "'bf16'"),
        ("min_lr: 3.0e-05", "min_lr: low", {}, "train.min_lr", "error", "expected a number"),
    ],
)  # fmt: skip
def test_one_mistake(
    tmp_path: Path, old: str, new: str, options: dict[str, int], key: str, severity: str, text: str
) -> None:
    finding = found(broken(tmp_path, **{old: new}), **options)[key]
    assert (finding.severity, text in finding.problem) == (severity, True), finding


@pytest.mark.parametrize(("entries", "wrong"), [(13, False), (26, True), (2, True), (0, True)])
def test_a_list_for_another_number_of_blocks(tmp_path: Path, entries: int, wrong: bool) -> None:
    for key in ("rope_indices", "sliding_window_indices"):
        path = broken(tmp_path, **{"  n_layer: 13": f"  n_layer: 13\n  {key}: {[1] * entries}"})
        problems = [finding.problem for finding in validate_file(path)[0] if finding.severity == "error"]
        assert (f"It has {entries} entries for 13 blocks." in problems) is wrong


def test_resume_auto_from_a_random_start(tmp_path: Path) -> None:
    old = "initial_checkpoint_dir: checkpoints/openllama3b_n13"
    finding = found(broken(tmp_path, **{old: "initial_checkpoint_dir: null\nresume: auto"}))["resume"]
    assert finding.severity == "warning"
    assert "begins from random weights" in finding.problem


def test_folders_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    """A checkpoint of another depth, a config.json that states a third, and too little data for the budget."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/openllama3b_n13").symlink_to(llama)
    shards(tmp_path / "data/redpajama_1b", tokens=10**6)
    findings = found(MAIN)
    assert "states 6 blocks, the recipe 13" in findings["tokenizer_dir"].problem
    assert "It makes 13, the checkpoint" in findings["model_config.n_layer"].problem
    assert "8 epochs over data/redpajama_1b are 7,995,392 tokens" in findings["data.init_args.epochs"].problem
    assert "or lower train.max_tokens to 7995392" in findings["data.init_args.epochs"].fix


def test_a_checkpoint_that_its_receipt_does_not_vouch_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path
) -> None:
    from inheritune_lit.surgery.command import surgery

    monkeypatch.chdir(tmp_path)
    target = tmp_path / "checkpoints/openllama3b_n13"
    surgery(llama, layers="3", out_dir=target)
    assert "initial_checkpoint_dir" not in found(MAIN)
    hf_config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(hf_config | {"tie_word_embeddings": True}, indent=4))
    findings = found(MAIN)
    assert "config.json differ in size" in findings["initial_checkpoint_dir"].problem
    assert "It is false, " in findings["train.tie_embeddings"].problem


def test_list_and_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_recipes()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(listed()) == 1 + len(recipes(shipped())) == 69
    assert lines[1].split()[:6] == ["openllama3b_n13", "OpenLLaMA-3B", "→", "13", "inherited", "1.816B"]
    copy("openllama3b_n13_e5_random", tmp_path / "mine")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.yaml")) == [
        "mine/openllama3b_n13_e5_random.lock.yaml",
        "mine/openllama3b_n13_e5_random.yaml",
        "mine/surgery/openllama3b_n13.yaml",
    ]
    assert yaml.safe_load((tmp_path / "mine/openllama3b_n13_e5_random.yaml").read_text())["data"]
    with pytest.raises(InheritError, match="exist already"):
        copy("openllama3b_n13_e5_random", tmp_path / "mine")
    copy("growth/gpt2_large", tmp_path / "grown")
    base = yaml.safe_load((tmp_path / "grown/growth/gpt2_large.yaml").read_text())["recipe"]
    assert (tmp_path / "grown" / base.removeprefix("recipes/")).is_file(), "what it trains comes along"
    with pytest.raises(InheritError, match=r"No recipe is named 'openllama3b_n31'. Did you mean openllama3b_n1"):
        copy("openllama3b_n31", tmp_path)


# Mistakes that litGPT's parser, or its training, has no good word for
NUMBERS = [
    *(("train.save_interval", bad) for bad in (0, -5)),
    *((key, 0) for key in ("eval.interval", "eval.max_iters", "train.log_interval", "devices")),
    *((key, 0) for key in ("train.micro_batch_size", "train.global_batch_size")),
    *((key, math.nan) for key in ("train.global_batch_size", "train.max_tokens")),
    *(("num_nodes", "2"), ("devices", "2"), ("data.init_args.num_workers", -1), ("optimizer.init_args.lr", "x")),
    *(("data.init_args", [1]), ("data.init_args", 7), ("train.micro_batch_size", 10**20)),
]
WRONG = (0, -1, 2**70, math.nan, "x", None, [], {}, True)


def scalars(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from scalars(value, (*path, key))
    else:
        yield path


def replaced(content: Any, path: tuple[str, ...], value: Any) -> Any:
    return {**content, path[0]: replaced(content[path[0]], path[1:], value)} if path else value


@pytest.mark.parametrize("path", [MAIN, ROOT / "recipes/gpt2/large_n18.yaml"], ids=lambda path: path.stem)
def test_any_value_by_any_other_is_a_finding_or_passes(path: Path) -> None:
    """What litGPT leaves to its training besides: no number may divide by nought, or be looped up to."""
    document = read_document(path)
    keys = [*scalars(document.content), ("devices",), ("num_nodes",), ("data", "init_args"), ("data",), ("optimizer",)]
    for key in keys:
        content = {"devices": 1, "num_nodes": 1, **document.content}
        for value in WRONG:
            findings = check_document(Document(replaced(content, key, value), document.lines))
            report(path, findings, document)
    for key, bad in NUMBERS:
        found = check_document(Document(replaced(content, tuple(key.split(".")), bad), document.lines))
        errors = {finding.key: finding for finding in found if finding.severity == "error"}
        assert f"It is {bad!r}, " in errors[key].problem, key
        assert "Write " in errors[key].fix


def test_every_extra_key_and_its_settings_are_named(tmp_path: Path) -> None:
    text = "  betas: [0.9, 0.95]\n  eps: 1.0e-8\n  init_args:\n    lrr: 3.0e-04\n"
    findings = found(broken(tmp_path, **{"  init_args:\n    lr: 3.0e-04\n": text}))
    assert {"optimizer.betas", "optimizer.eps", "optimizer.init_args.lrr"} <= findings.keys()
    findings = found(broken(tmp_path, **{"class_path: torch.optim.AdamW\n": "lr: 1\n  eps: 1\n"}))
    assert {"optimizer.lr", "optimizer.eps", "optimizer.class_path"} <= findings.keys()


def test_damaged_config_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints/openllama3b_n13"
    folder.mkdir(parents=True)
    for text, problem in (("{", "Can't read the config.json"), ('{"text_config": []}', None)):
        (folder / "config.json").write_text(text)
        finding = found(MAIN).get("tokenizer_dir")
        assert (problem in finding.problem) if finding and problem else finding is problem, finding
