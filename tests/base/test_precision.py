"""What is fast is found by timing, chosen, said and recorded; a recipe that would be slow here is warned of."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.models import make_checkpoint, make_tokenizer, make_tokens

from inheritune_lit.analyze import analyze
from inheritune_lit.base import precision
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.demo import stages
from inheritune_lit.grow import grow
from inheritune_lit.pretrain.options import Request
from inheritune_lit.pretrain.preflight import preflight
from inheritune_lit.recipes.check.findings import Finding
from inheritune_lit.recipes.check.validate import validate_file


def timings(monkeypatch: pytest.MonkeyPatch, ratio: float) -> list[torch.dtype]:
    """Has a product in 16 bits take `ratio` times as long as in float32; which types were timed."""
    timed: list[torch.dtype] = []

    def seconds(dtype: torch.dtype, enough: float) -> float:
        timed.append(dtype)
        return 0.002 if dtype == torch.float32 else 0.002 * ratio

    precision.slowdown.cache_clear()
    monkeypatch.setattr(precision, "_seconds", seconds)
    return timed


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    precision.slowdown.cache_clear()
    yield
    precision.slowdown.cache_clear()


@pytest.mark.parametrize(("ratio", "chosen"), [(0.4, "bf16-mixed"), (0.99, "bf16-mixed"), (3.5, "32-true")])
def test_the_faster_one_is_chosen_once(monkeypatch: pytest.MonkeyPatch, ratio: float, chosen: str) -> None:
    timed = timings(monkeypatch, ratio)
    choice = precision.fastest()
    assert (choice.precision, choice.slowdown) == (chosen, pytest.approx(ratio))
    assert choice.why == f"{chosen}: a product in bfloat16 takes {ratio:.2g} times as long as in float32 on this CPU."
    assert precision.fastest() == choice
    assert timed == [torch.float32, torch.bfloat16], "once a process"


def test_nothing_is_timed_where_there_is_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = timings(monkeypatch, 30.0)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    assert precision.fastest() == precision.Choice("bf16-mixed", None)
    assert timed == []


def test_this_machine_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real product: it takes milliseconds, leaves the threads as they were, and gives up a slow type soon."""
    threads, clock = torch.get_num_threads(), iter(range(0, 1000, 2))
    assert 0.01 < (precision.slowdown() or 0.0) < 1000
    assert torch.get_num_threads() == threads
    monkeypatch.setattr(precision.time, "thread_time", lambda: float(next(clock)))  # each takes 2 s
    assert precision._seconds(torch.float32, 1.0) == 2.0
    assert next(clock) == 2 * 2 * 2, "one try to set up and one that was too slow"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe that could run here: its folders are there."""
    folder = tmp_path_factory.mktemp("precision")
    target = make_tokenizer(make_checkpoint(folder / "target", n_layer=2))
    train = {"max_tokens": 10 * 4 * 16, "max_seq_length": 16, "global_batch_size": 4, "micro_batch_size": 2}
    return {
        "model_name": "small",
        "model_config": yaml.safe_load((target / "model_config.yaml").read_text()) | {"name": "small"},
        "initial_checkpoint_dir": str(target),
        "tokenizer_dir": str(target),
        "out_dir": str(folder / "run"),
        "devices": 1,
        "data": {
            "class_path": "inheritune_lit.data.PackedTokens",
            "init_args": {"data_path": str(make_tokens(folder, target, documents=42))},
        },
        "train": train | {"lr_warmup_steps": 2, "min_lr": 1e-4, "max_norm": 1.0, "save_interval": 5},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}},
    }


def warnings(recipe: dict[str, Any], path: Path, **changes: Any) -> list[list[Finding]]:
    """What `recipes validate` and preflight say of the precision, notes left out."""
    path.write_text(yaml.dump(recipe | changes, sort_keys=False))
    run = Path(recipe["out_dir"])
    both = validate_file(path)[0], preflight(read_document(path), run, Request(path, dry_run=True))
    return [[f for f in findings if f.key == "precision" and f.severity != "note"] for findings in both]


@pytest.mark.parametrize("stated", ["bf16-mixed", "bf16-true"])
def test_a_recipe_that_is_slow_here_is_warned_of(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: str
) -> None:
    timings(monkeypatch, 72.9)
    for found in warnings(recipe, tmp_path / "recipe.yaml", precision=stated):
        (finding,) = found
        assert finding.severity == "warning"
        assert "takes 73 times as long as in float32" in finding.problem
        assert finding.fix == "To run it here, write precision: 32-true."


def test_growth_warns_too(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    for ratio, expected in ((72.9, 1), (0.4, 0)):
        timings(monkeypatch, ratio)
        path.write_text(yaml.dump(recipe | {"precision": "bf16-mixed", "initial_checkpoint_dir": None}))
        grow(path, out_dir=tmp_path / "growth", step=1, dry_run=True)
        assert capsys.readouterr().out.count("→ To run it here, write precision: 32-true.") == expected


def test_no_warning_where_it_is_fast_or_runs_elsewhere(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = timings(monkeypatch, 72.9)
    assert warnings(recipe, tmp_path / "recipe.yaml", precision="32-true") == [[], []]
    elsewhere = {"precision": "bf16-mixed", "initial_checkpoint_dir": "not/here", "tokenizer_dir": "not/here"}
    assert warnings(recipe, tmp_path / "recipe.yaml", **elsewhere) == [[], []]
    assert timed == [], "nor is PyTorch asked"
    timings(monkeypatch, 0.4)
    assert warnings(recipe, tmp_path / "recipe.yaml", precision="bf16-mixed") == [[], []]


@pytest.mark.parametrize(("ratio", "expected"), [(3.5, "float32"), (0.4, "bfloat16")])
def test_analyze_computes_in_what_is_fast_and_records_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ratio: float, expected: str
) -> None:
    timings(monkeypatch, ratio)
    checkpoint = make_tokenizer(make_checkpoint(tmp_path / "model", n_layer=2, dtype=torch.bfloat16))
    data = make_tokens(tmp_path, checkpoint, documents=6)
    analyze(checkpoint, data=data, max_seq_length=8, windows=2, device="cpu")
    found = json.loads((checkpoint / "analysis/analysis.json").read_text())
    assert found["dtype"] == expected
    assert found["depths"][-1]["bytes"] == 2 * found["depths"][-1]["parameters"], "the checkpoint's, whatever computes"
    said = "Computing in float32: a product in bfloat16 takes 3.5 times as long on this CPU."
    assert (said in capsys.readouterr().out) == (expected == "float32")


def test_what_lies_in_float32_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = timings(monkeypatch, 30.0)
    model = torch.nn.Linear(2, 2)
    assert precision.in_fast_type(model, "cpu") is model
    assert precision.in_fast_type(model.half(), "cuda").weight.dtype == torch.float16, "on GPUs nothing changes"
    assert timed == []
    assert precision.in_fast_type(model, "cpu").weight.dtype == torch.float32


def test_the_demo_trains_in_it(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = stages.Paths(tmp_path, "15", 40)
    paths.targets["inherited"].mkdir()
    (paths.targets["inherited"] / "model_config.yaml").write_text(yaml.dump(recipe["model_config"]))
    paths.tokens.symlink_to(recipe["data"]["init_args"]["data_path"])
    monkeypatch.setattr(stages, "RECIPE", tmp_path / "recipe.yaml")
    content = stages.Path("recipes/demo.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(re.sub("max_seq_length: 256", "max_seq_length: 16", content))
    for ratio, chosen in ((3.5, "32-true"), (0.4, "bf16-mixed")):
        timings(monkeypatch, ratio)
        assert [stages.render(paths, start)["precision"] for start in paths.runs] == [chosen] * 2
