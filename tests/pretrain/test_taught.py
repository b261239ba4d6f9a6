"""A run with a teacher around `litgpt pretrain`: what is refused before it, its plan, and what is told of it after."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.models import make_checkpoint, make_tokenizer
from helpers.small_runs import LENGTH, make_recipe

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.checkpoint.folder import WEIGHTS, load_config
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.export.card import render_card
from inheritune_lit.plan import plan, plan_recipe
from inheritune_lit.plan.model import count_parameters, measured_flops
from inheritune_lit.pretrain import train
from inheritune_lit.pretrain.options import Request
from inheritune_lit.pretrain.preflight import preflight
from inheritune_lit.recipes.check.findings import Finding
from inheritune_lit.recipes.check.validate import validate_file
from inheritune_lit.recipes.recipe import TEACHER
from inheritune_lit.report.subjects import read_subjects
from inheritune_lit.runs.lineage import read_lineage
from inheritune_lit.verify import verify

STEPS = 4


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small Llama that learns from one with a block more."""
    folder = tmp_path_factory.mktemp("taught")
    recipe = make_recipe(folder, STEPS, save_interval=2) | {"out_dir": str(folder / "run")}
    make_tokenizer(make_checkpoint(folder / "teacher", n_layer=3, seed=5))
    settings = {"teacher_dir": str(folder / "teacher"), "weight": 0.4}
    recipe["data"] = {
        "class_path": "inheritune_lit.data.DistilledTokens",
        "init_args": recipe["data"]["init_args"] | settings,
    }
    return recipe


def changed(recipe: dict[str, Any], path: Path, **data: Any) -> Path:
    """The recipe as a file, with other settings of its data module; None leaves one out."""
    content = copy.deepcopy(recipe)
    settings = content["data"]["init_args"] | data
    content["data"]["init_args"] = {name: value for name, value in settings.items() if value is not None}
    path.write_text(yaml.dump(content))
    return path


def found(path: Path) -> dict[str, Finding]:
    findings = preflight(read_document(path), path.parent / "run", Request(path))
    return {finding.key: finding for finding in findings if finding.severity == "error"}


# Before


@pytest.mark.parametrize(
    ("settings", "key", "problem"),
    [
        ({"weight": 1.5}, "data.init_args.weight", "It is 1.5, expected a number from 0 to 1."),
        ({"temperature": 0}, "data.init_args.temperature", "It is 0, expected a number from 0.01 to 100."),
        ({"weight": None}, "data.init_args.weight", "not given, and litGPT requires it"),
        ({"teacher_dir": None}, TEACHER, "not given, and litGPT requires it"),
        ({"wieght": 0.5}, "data.init_args.wieght", "no such setting"),
        ({"teacher_dir": "{tmp}/no_weights"}, TEACHER, "holds no lit_model.pth"),
        ({"teacher_dir": "{tmp}/short"}, TEACHER, "The teacher attends to 8 tokens"),
        ({"teacher_dir": "{tmp}/few"}, TEACHER, "The teacher has embeddings for 40 tokens"),
        ({"teacher_dir": "~/teacher"}, TEACHER, "begins with ~"),
    ],
)
def test_validate_names_what_is_wrong(
    recipe: dict[str, Any], tmp_path: Path, settings: dict[str, Any], key: str, problem: str
) -> None:
    (tmp_path / "no_weights").mkdir()
    make_checkpoint(tmp_path / "short", block_size=8)
    make_checkpoint(tmp_path / "few", padded_vocab_size=40, vocab_size=40)
    filled = {k: v.format(tmp=tmp_path) if isinstance(v, str) else v for k, v in settings.items()}
    findings, _ = validate_file(changed(recipe, tmp_path / "recipe.yaml", **filled))
    errors = {finding.key: finding for finding in findings if finding.severity == "error"}
    assert list(errors) == [key]
    assert problem in errors[key].problem


def test_a_good_recipe_has_nothing_and_one_for_elsewhere_a_note(recipe: dict[str, Any], tmp_path: Path) -> None:
    assert found(changed(recipe, tmp_path / "recipe.yaml")) == {}
    path = changed(recipe, tmp_path / "recipe.yaml", teacher_dir=str(tmp_path / "elsewhere"))
    notes = [f for f in validate_file(path)[0] if f.key == TEACHER]
    assert [(note.severity, note.elsewhere) for note in notes] == [("note", True)]
    assert "is not on this machine" in found(path)[TEACHER].problem
    assert found(changed(recipe, path, teacher_dir=str(tmp_path / "elsewhere"), weight=0)) == {}, "it is not needed"


def test_preflight_looks_into_the_teacher(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Its bytes, its tensors, its tokenizer."""
    teacher = make_checkpoint(tmp_path / "teacher")
    make_tokenizer(teacher, size=63)
    path = changed(recipe, tmp_path / "recipe.yaml", teacher_dir=str(teacher))
    assert re.search(r"tokenizer is another one.* of 63 tokens", found(path)[TEACHER].problem)
    make_tokenizer(teacher)
    config = teacher / "model_config.yaml"
    content = config.read_text()
    config.write_text(content.replace("n_layer: 6", "n_layer: 5"))
    assert "transformer.h.5" in found(path)[TEACHER].problem
    config.write_text(content)
    assert found(path) == {}
    (teacher / WEIGHTS).write_bytes((teacher / WEIGHTS).read_bytes()[:-100])
    assert "is not a whole PyTorch checkpoint" in found(path)[TEACHER].problem


def test_plan_counts_the_teacher(recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = changed(recipe, tmp_path / "recipe.yaml")
    config = load_config(Path(recipe["data"]["init_args"]["teacher_dir"]))
    taught, alone = plan_recipe(path), plan_recipe(changed(recipe, tmp_path / "alone.yaml", weight=0.0))
    size, tokens = count_parameters(config).total, taught.tokens
    assert taught.six_n_d - alone.six_n_d == 2 * size * tokens
    forward = measured_flops(config, LENGTH, backward=False)
    matrices = size - 64 * 32 - 7 * 32  # all but the embedding and the norms
    assert forward == 2 * matrices * LENGTH + 3 * 2 * 2 * LENGTH**2 * 32  # and attention's two products
    more = taught.flops - alone.flops
    assert more == pytest.approx(forward * tokens / LENGTH, abs=1)
    assert taught.seconds_range > alone.seconds_range
    assert (taught.memory().teacher, alone.memory().teacher) == (2 * size, 0)
    plan(path)
    printed = capsys.readouterr().out
    assert re.search(rf"teacher +\S+, weight 0.4; {size:,} parameters", printed)
    assert "with the teacher's 2·N·D" in printed
    plan(changed(recipe, path, teacher_dir=str(tmp_path / "gone")))
    assert "NOT COUNTED below: it is not here" in " ".join(capsys.readouterr().out.split())


# After


@pytest.fixture(scope="module")
def run(recipe: dict[str, Any]) -> Path:
    train(recipe, Path(recipe["out_dir"]))
    return Path(recipe["out_dir"])


def test_receipts_report_card_and_verify_know_the_teacher(
    recipe: dict[str, Any], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = Path(recipe["data"]["init_args"]["teacher_dir"])
    fingerprint = Weights(teacher / WEIGHTS).fingerprint()
    lineage = read_lineage(run / "model")
    assert lineage.run is not None
    assert lineage.run["teacher"] == {
        **{"name": load_config(teacher).name, "n_layer": 3, "path": str(teacher), "fingerprint": fingerprint}
    }
    [subject] = read_subjects([run])
    assert subject.start.endswith("; distilled from open_llama_3b, weight 0.4, T 1.0")
    receipt = {
        **{"license": None, "base_model": None, "versions": {}, "parameters": 1, "dtype": "float32", "command": "x"},
        **{"source": {"fingerprint": "f"}, "tokenizer": {"use_fast": True}},
        "check": {
            "depth": 2,
            "tokens": 1,
            "logits": {"relative_difference": 0},
            "rounding": {"relative_difference": 0},
        },
    }
    card = render_card(receipt, lineage, name="taught", context=LENGTH, architecture="llama")
    assert f"| distilled from | `open_llama_3b`, 3 blocks, fingerprint `{fingerprint}` |" in card
    assert "| teacher's weight in the loss | 0.4 |\n| temperature | 1.0 |" in card
    verify(run / "model", source=teacher)
    assert "is the teacher that it was distilled from" in capsys.readouterr().out
    start = Path(recipe["initial_checkpoint_dir"])
    with pytest.raises(InheritError, match=f"did not teach .*the teacher's {fingerprint}"):
        verify(run / "model", source=start)


def test_another_teacher_is_another_run_and_a_copy_is_none(recipe: dict[str, Any], run: Path, tmp_path: Path) -> None:
    teacher = Path(recipe["data"]["init_args"]["teacher_dir"])
    elsewhere = copy.deepcopy(recipe)
    elsewhere["data"]["init_args"]["teacher_dir"] = str(teacher.rename(tmp_path / "moved"))
    try:
        assert train(elsewhere, run)["steps"] == STEPS, "where it lies does not matter"
    finally:
        (tmp_path / "moved").rename(teacher)
    other = make_checkpoint(tmp_path / "other", seed=6)
    make_tokenizer(other)
    elsewhere["data"]["init_args"]["teacher_dir"] = str(other)
    with pytest.raises(InheritError, match=r"data or teacher:\n  teacher: [0-9a-f]{16}… before, [0-9a-f]{16}… now"):
        train(elsewhere, run)


def test_a_random_start_with_a_teacher_is_no_baseline(recipe: dict[str, Any], run: Path, tmp_path: Path) -> None:
    """What others are compared with has random weights and the labels alone."""
    for name, weight, is_baseline in (("taught", 0.4, False), ("alone", 0.0, True)):
        (tmp_path / name).mkdir()
        changed(recipe, tmp_path / name / "recipe.yaml", weight=weight)
        (tmp_path / name / "launch.json").write_text('{"kind": "launch", "start": {"fingerprint": "random"}}')
        [subject] = read_subjects([tmp_path / name])
        assert subject.is_random == is_baseline
        assert subject.start.startswith("random")
