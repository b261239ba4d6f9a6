"""The demo's own logic: what it says of two curves, what it trains, and when it does a stage again."""

import json
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
import yaml
from helpers.models import make_checkpoint, make_tokenizer, make_tokens
from matplotlib.image import imread

from inheritune_lit.__main__ import main
from inheritune_lit.base.commands import inheritune
from inheritune_lit.base.errors import InheritError
from inheritune_lit.demo import demo, stages
from inheritune_lit.demo.inputs import DOWNLOADS, fetch
from inheritune_lit.demo.results import RESULTS, table
from inheritune_lit.demo.stages import Paths, render
from inheritune_lit.runs.folder import read_run


def test_choices_are_checked_and_kept_apart(tmp_path: Path) -> None:
    default, other, longer = (Paths(tmp_path, *rest) for rest in (("0-3,19-29", 30), ("::2", 30), ("0-3,19-29", 80)))
    assert [*default.runs] == ["chosen", "inherited", "random"]
    assert default.best == default.runs["chosen"]
    assert default.targets["chosen"] != other.targets["chosen"]
    assert default.targets["inherited"] == other.targets["inherited"], "the first 15 serve all choices of 15"
    assert len({paths.runs["chosen"] for paths in (default, other, longer)}) == 3
    # a random start knows no blocks, only their number
    assert default.runs["random"] == other.runs["random"] != longer.runs["random"]
    assert [*Paths(tmp_path, "7", 30).runs] == ["inherited", "random"], "nothing is chosen"
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
    paths = Paths(folder, "0,29", 10)
    make_checkpoint(paths.reference, n_layer=30)
    config = paths.reference / "model_config.yaml"
    config.write_text(config.read_text().replace("open_llama_3b", "small"))  # or it had to have that one's shape
    make_tokenizer(paths.reference)
    make_tokens(folder, paths.reference, documents=6)
    return paths


def test_it_evaluates_before_it_exports() -> None:
    """So that the model card has the results."""
    order = list(stages.STAGES.values())
    assert order.index(stages.evaluate) < order.index(stages.export)


def test_from_cut_to_page(small: Paths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The demo with a small model, but for the scores and what is exported; and again, when all is there already."""
    recipe = yaml.safe_load(stages.RECIPE.read_text())
    recipe["train"] |= {"max_seq_length": 16, "global_batch_size": 4, "micro_batch_size": 4, "tie_embeddings": False}
    short = small.out_dir / "recipe.yaml"
    short.write_text(yaml.dump(recipe))
    monkeypatch.setattr(stages, "RECIPE", short)
    commands: list[tuple[str, ...]] = []

    def run_here(*args: object, **environment: str) -> None:  # a process costs 10 s
        commands.append(tuple(map(str, args)))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        main(list(commands[-1]))

    monkeypatch.setattr(stages, "inheritune", run_here)
    monkeypatch.setattr(stages, "WINDOWS", 2)
    monkeypatch.setattr(stages, "LENGTH", 16)
    names = ["Fetch the model", "Unpack", "Turn the text", "Ask the models", "Export"]
    parts = {title: work for title, work in stages.STAGES.items() if not title.startswith(tuple(names))}
    assert len(parts) == len(stages.STAGES) - len(names)
    monkeypatch.setattr(stages, "STAGES", parts)
    monkeypatch.setattr("inheritune_lit.demo.ROOM", 0)
    demo(small.out_dir, layers=small.layers, steps=small.steps)

    settings, random, first = (render(small, start) for start in ("inherited", "random", "chosen"))
    assert settings["train"]["max_tokens"] == 10 * 4 * 16
    assert settings["data"]["init_args"]["epochs"] == 8  # 40 windows out of 5 an epoch
    assert settings["eval"]["final_validation"] is False  # step 10 has one already
    assert settings["initial_checkpoint_dir"] == str(small.targets["inherited"])
    folders = {"initial_checkpoint_dir", "tokenizer_dir", "out_dir"}
    assert {key for key in settings if settings[key] != first[key]} == folders
    assert {key for key in settings if settings[key] != random[key]} == {"initial_checkpoint_dir", "out_dir"}

    results = json.loads((small.out_dir / RESULTS).read_text())
    models = results["models"]
    assert [*models] == ["reference", "chosen_untrained", "chosen", "inherited_untrained", "inherited", "random"]
    assert [model["blocks"] for model in models.values()] == [30, 2, 2, 2, 2, 2]
    assert len({model["validation_loss"] for model in models.values()}) == 6
    # litGPT's own numbers: its mean over micro-batches is ours over windows, as all are whole
    curves = {name: read_run(run).curves for name, run in small.runs.items()}
    for name, curve in curves.items():
        assert curve["validation"][-1][2] == pytest.approx(models[name]["validation_loss"], abs=0.02)
    untrained = models["inherited_untrained"]["validation_loss"]
    assert curves["inherited"]["validation"][0][2] == pytest.approx(untrained, abs=0.02)
    assert [tokens for _, tokens, _ in curves["random"]["training"]] == list(range(64, 641, 64))

    text, printed = table(results), capfd.readouterr().out
    assert text in printed
    assert " ".join(printed.split()).endswith(" ".join(results["verdicts"])), "what was won comes last"
    assert any("the final validation loss of random" in said for said in results["verdicts"])
    for other in ("inherited", "random"):
        pairs = zip(*(models[name]["validation_loss_per_window"] for name in ("chosen", other)), strict=True)
        lead = fmean(ours - theirs for ours, theirs in pairs)
        assert results[f"chosen_minus_{other}"]["validation_loss"] == pytest.approx(lead)
    assert "which no run here was trained on" in text
    stated = yaml.safe_load((small.best / "recipe.yaml").read_text())["precision"]
    assert f"\nTrained in {stated}: a product in bfloat16 takes " in text
    assert results["machine"]["precision"]["precision"] == stated
    assert max(map(len, text.splitlines())) <= 120
    assert imread(small.report / "plots/loss_tokens.png").std() > 0.05, "there is something on it"
    subjects = [small.reference, small.best]
    analyses = [json.loads((folder / "analysis/analysis.json").read_text()) for folder in subjects]
    assert [len(analysis["blocks"]) for analysis in analyses] == [30, 2]
    page = (small.report / "report.html").read_text()
    assert all(run.name in page for run in small.runs.values())

    # the second time nothing is made again, whichever type is faster now
    first, written = commands.copy(), times(small)
    other = "32-true" if stated != "32-true" else "bf16-mixed"
    monkeypatch.setattr(stages, "fastest", lambda: SimpleNamespace(precision=other))
    commands.clear()
    demo(small.out_dir, layers=small.layers, steps=small.steps)
    assert commands == first
    assert times(small) == written
    assert "is whole already" in capfd.readouterr().out
    # what was made from another reference is refused, not mixed
    make_checkpoint(small.out_dir / "other", "llama", n_layer=30, seed=1)
    (small.out_dir / "other/lit_model.pth").replace(small.reference / "lit_model.pth")
    with pytest.raises(SystemExit, match=r"exists already, and was made otherwise: .*weights"):
        demo(small.out_dir, layers=small.layers, steps=small.steps)


def times(paths: Paths) -> dict[Path, int]:
    """When the files of targets, runs and analyses were written."""
    folders = (*paths.targets.values(), *paths.runs.values(), paths.reference)
    return {file: file.stat().st_mtime_ns for folder in folders for file in folder.rglob("*") if file.is_file()}


def test_a_command_that_fails_ends_the_demo(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InheritError, match="`inheritune verify absent` failed with exit code 1: see above"):
        inheritune("verify", "absent", HOME="/root")
    said = capfd.readouterr()
    assert "  $ HOME=/root inheritune verify absent\n" in said.out
    assert "absent" in said.err
