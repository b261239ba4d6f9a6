"""The demo's own logic: what it says of two curves, what it trains, and when it does a stage again."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.models import make_checkpoint, make_tokenizer, make_tokens
from matplotlib.image import imread

from inheritune_lit.__main__ import main
from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.demo import after, demo, stages
from inheritune_lit.demo.inputs import DOWNLOADS, fetch
from inheritune_lit.demo.results import compare, draw, table, verdict
from inheritune_lit.demo.stages import Paths, render, surgery, train
from inheritune_lit.evaluate.results import FORMAT, versions


def test_verdict_reports_what_happened() -> None:
    random = [(0, 11.0), (100, 8.0)]
    assert "4.0 times as many" in verdict([(0, 20.0), (50, 4.0)], [(0, 11.0), (100, 12.0)])
    assert "did not reach" in verdict([(0, 20.0), (100, 9.0)], random)
    assert "its lowest was 9.00" in verdict([(0, 20.0), (100, 9.0)], random)
    assert "untrained" in verdict([(0, 7.0), (100, 6.0)], random)


def test_choices_are_checked_and_kept_apart(tmp_path: Path) -> None:
    default, other, longer = Paths(tmp_path, "15", 40), Paths(tmp_path, "0-10,26-29", 40), Paths(tmp_path, "15", 80)
    assert default.target != other.target
    assert len({paths.run(inherited=True) for paths in (default, other, longer)}) == 3
    # a random start knows no blocks, only their number
    assert default.run(inherited=False) == other.run(inherited=False) != longer.run(inherited=False)
    with pytest.raises(InheritError, match="The source has 30 blocks"):
        Paths(tmp_path, "31", 60)
    with pytest.raises(InheritError, match="--steps 9: expected at least 10"):
        Paths(tmp_path, "15", 9)


def test_needs_the_recipes_and_intact_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DOWNLOADS:
        (tmp_path / name).write_text("not it")
    with pytest.raises(InheritError, match="has SHA-256 .*, expected .* Delete it and run again"):
        fetch(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InheritError, match="Run it in the repository's root"):
        demo(tmp_path / "demo")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """The demo's folders as its first three stages leave them: a small reference of 30 blocks, made-up words."""
    folder = tmp_path_factory.mktemp("demo")
    paths = Paths(folder, "2", 10)
    make_checkpoint(paths.reference, n_layer=30)
    make_tokenizer(paths.reference)
    make_tokens(folder, paths.reference, documents=6)
    return paths


def test_it_evaluates_before_it_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the model card has the results."""
    done: list[str] = []
    names = ["fetch", "write_text", "convert", "prepare", "surgery", "train", "results.compare", "results.draw"]
    names += ["results.table", "after.evaluate", "after.export", "after.analyze", "after.report"]
    for name in names:
        monkeypatch.setattr(f"inheritune_lit.demo.{name}", lambda *_, name=name, **__: done.append(name) or {})
    monkeypatch.setattr("inheritune_lit.demo.ROOM", 0)
    demo(tmp_path)
    assert done.index("after.evaluate") < done.index("after.export")


def test_results_of_other_versions_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an update; and what is exported has them in its model card."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(after, "run_module", lambda *args, **_: calls.append(args[1:]))
    monkeypatch.setattr(after, "QUESTIONS", 1)
    paths = Paths(tmp_path, "2", 10)
    paths.text.mkdir()
    (paths.text / after.HELD_OUT).write_text("".join(f"There are {i} things in heaven.\n" for i in range(9)))
    run, exported = paths.run(inherited=True), after.exported(paths)
    checkpoint = make_checkpoint(run / "model")
    exported.mkdir(parents=True)
    source = {"fingerprint": Weights(checkpoint / "lit_model.pth").fingerprint()}
    (exported / "inheritance.json").write_text(json.dumps({"files": {}, "source": source}))
    (exported / "README.md").touch()
    scores = after.scores(run)
    scores.parent.mkdir()

    for found, expected in (versions(), []), (versions() | {"lm_eval": "0.1"}, ["--overwrite"]):
        scores.write_text(json.dumps({"format": FORMAT, "versions": found}))
        after.evaluate(paths)
        command, subject, *options = calls[-3]
        assert (command, subject, options[4:]) == ("evaluate", str(run), expected)

    scores.write_text(json.dumps({"tasks": {"next_line": {}}}))
    (exported / "README.md").write_text("| next_line |")
    assert after.export(paths) is True
    (exported / "README.md").write_text("| none |")
    assert after.export(paths) is False
    assert calls[-1][:2] == ("export", str(run))


def test_from_cut_to_table(small: Paths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The last four stages with a small model, and again, when everything is reused until a parent changes."""
    recipe = yaml.safe_load(stages.RECIPE.read_text())
    recipe["train"] |= {"max_seq_length": 16, "global_batch_size": 4, "micro_batch_size": 4, "tie_embeddings": False}
    short = small.out_dir / "recipe.yaml"
    short.write_text(yaml.dump(recipe))
    monkeypatch.setattr(stages, "RECIPE", short)

    assert [surgery(small), surgery(small)] == [False, True]
    assert [train(small, inherited=inherited) for inherited in (True, False)] == [False, False]
    assert [train(small, inherited=inherited) for inherited in (True, False)] == [True, True]

    settings = render(small, inherited=True)
    assert settings["train"]["max_tokens"] == 10 * 4 * 16
    assert settings["data"]["init_args"]["epochs"] == 8  # 40 windows out of 5 an epoch
    assert settings["eval"]["final_validation"] is False  # step 10 has one already
    assert settings["initial_checkpoint_dir"] == str(small.target)
    random = render(small, inherited=False)
    changed = {key for key in settings if settings[key] != random[key]}
    assert changed == {"initial_checkpoint_dir", "out_dir"}

    results: dict[str, Any] = compare(small)
    models = results["models"]
    assert [models[name]["blocks"] for name in ("reference", "cut", "inherited", "random")] == [30, 2, 2, 2]
    assert len({model["validation_loss"] for model in models.values()}) == 4
    # litGPT's own numbers: its mean over micro-batches is ours over windows, as all are whole
    curves = results["curves"]
    for name in ("inherited", "random"):
        assert curves[name]["validation"][-1][1] == pytest.approx(models[name]["validation_loss"], abs=0.02)
    assert curves["inherited"]["validation"][0][1] == pytest.approx(models["cut"]["validation_loss"], abs=0.02)
    assert [tokens for tokens, _ in curves["random"]["training"]] == list(range(64, 641, 64))

    text = table(results)
    assert "which no run here was trained on" in text
    stated = yaml.safe_load((small.run(inherited=True) / "recipe.yaml").read_text())["precision"]
    assert f"\nTrained in {stated}: a product in bfloat16 takes " in text
    assert results["machine"]["precision"]["precision"] == stated
    assert max(map(len, text.splitlines())) <= 120
    json.dumps(results)
    draw(results, small.out_dir / "curves")
    picture = imread(small.out_dir / "curves.png")
    assert picture.shape[0] > 500
    assert picture.std() > 0.05, "there is something on it"

    # what analyze found of both is there until a parent changes
    run_here = lambda command, *arguments: main([command, *map(str, arguments)])  # noqa: E731  # a process costs 10 s
    monkeypatch.setattr(after, "_inheritune", run_here)
    monkeypatch.setattr(after, "WINDOWS", 2)
    monkeypatch.setattr(after, "LENGTH", 16)
    assert [after.analyze(small), after.analyze(small)] == [False, True]
    folders = [small.reference, small.run(inherited=True)]
    analyses = [json.loads((folder / "analysis/analysis.json").read_text()) for folder in folders]
    assert [len(analysis["blocks"]) for analysis in analyses] == [30, 2]
    (folders[1] / "analysis/analysis.json").unlink()
    assert after.analyze(small) is False

    # another reference: its target and the inherited run are made again, the random start stays
    (small.reference / "lit_model.pth").unlink()
    make_checkpoint(small.out_dir / "other", "llama", n_layer=30, seed=1)
    (small.out_dir / "other/lit_model.pth").rename(small.reference / "lit_model.pth")
    assert surgery(small) is False
    assert train(small, inherited=False) is True
    recipe["optimizer"] = {"class_path": "torch.optim.NoSuchThing"}
    short.write_text(yaml.dump(recipe))
    with pytest.raises(InheritError, match="litgpt pretrain failed with exit code .*pretrain.log ends with"):
        train(small, inherited=True)
    assert "$ TORCHDYNAMO_DISABLE=1 litgpt pretrain --config" in capfd.readouterr().out
