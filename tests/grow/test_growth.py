"""Growth: the decision, the stages and the ledger with trainings that are made up, and one real growth, killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.models import ARCHITECTURES, ROOT, make_checkpoint, make_tokenizer, make_tokens
from litgpt.config import Config
from matplotlib.image import imread

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.checkpoint.folder import WEIGHTS, load_config
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.demo.grow_demo import train_tokenizer
from inheritune_lit.evaluate import ValidationLoss, all_windows
from inheritune_lit.grow import grow, results, stages
from inheritune_lit.grow import run as growth_run
from inheritune_lit.grow.decision import decide
from inheritune_lit.grow.ledger import Ledger
from inheritune_lit.runs.folder import read_run

MODEL = asdict(Config.from_name("pythia-14m", **ARCHITECTURES["gpt2"][1]))


def loss(*per_window: float) -> ValidationLoss:
    return ValidationLoss(per_window)


def test_at_par_is_at_most_the_tolerance_above_the_benchmark() -> None:
    benchmark = loss(2.0, 3.0)
    assert decide(loss(2.0, 3.0), benchmark, 0.0).at_par, "equal is at par"
    assert decide(loss(2.25, 3.25), benchmark, 0.25).at_par, "so is the tolerance itself"
    assert not decide(loss(2.25, 3.375), benchmark, 0.25).at_par
    assert decide(loss(1.0, 2.0), benchmark, 0.0).at_par
    paired = decide(loss(2.5, 3.5), benchmark, 0.25)
    assert (paired.difference, paired.stderr) == (0.5, 0.0), "windows differ, the models by the same on each"
    assert "n grows to 6" in paired.why(4, 6)
    assert "max_layers is reached, not at par" in paired.why(4, None)
    with pytest.raises(InheritError, match="a run has diverged"):
        decide(loss(float("nan"), 3.0), benchmark, 0.0)
    with pytest.raises(InheritError, match="the same windows"):
        decide(loss(2.0), benchmark, 0.0)


def test_n_ends_at_max_layers_whatever_the_step() -> None:
    def depths(mode: stages.Mode, start: int, last: int) -> dict[int, str | None]:
        numbers: dict[str, Any] = {"start_layers": start, "step": 2, "max_layers": last, "tolerance": 0.0}
        base = {"model_config": {"n_layer": 9}}
        settings = stages.make_settings(base, Path("out"), reference_dir=None, mode=mode, compare=None, **numbers)
        return {stage.blocks: stage.grown_from for stage in stages.targets(settings)}

    assert depths("restart", 3, 7) == {3: None, 5: None, 7: None}
    assert depths("continue", 4, 7) == {4: None, 6: "n4", 7: "n6"}
    assert depths("continue", 7, 7) == {7: None}


def test_ledger_refuses_another_recipe_and_other_parents(tmp_path: Path) -> None:
    recipe = {"train": {"max_tokens": 8}, "out_dir": "a"}
    ledger = Ledger(tmp_path, {"tolerance": 0.0})
    assert ledger.begin("n2", {"blocks": 2}, recipe, {"reference": "ab"}) == "new"
    assert ledger.begin("n2", {"blocks": 2}, recipe | {"out_dir": "b"}, {"reference": "ab"}) == "begun", "a place only"
    with pytest.raises(InheritError, match='parents.reference: "ab" before, "cd" now'):
        ledger.begin("n2", {"blocks": 2}, recipe, {"reference": "cd"})
    with pytest.raises(InheritError, match="recipe_sha256: .* before, .* now"):
        ledger.begin("n2", {"blocks": 2}, recipe | {"train": {"max_tokens": 9}}, {"reference": "ab"})
    trained = {"start": "inherit", "parameters": 9, "steps": 4, "seconds": 1.5, "fingerprint": "ef"}
    ledger.finish("n2", {**trained, "validation_loss": 2.5, "stderr": None, "per_window": [2.5]})
    again = Ledger(tmp_path, {"tolerance": 0.0})
    assert again.begin("n2", {"blocks": 2}, recipe, {"reference": "ab"}) == "done"
    with pytest.raises(InheritError, match="tolerance: 0.0 before, 0.5 now"):
        Ledger(tmp_path, {"tolerance": 0.5})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, token shards, and recipe.yaml for a GPT-2 of six blocks: a growth's inputs."""
    folder = tmp_path_factory.mktemp("growth")
    make_tokens(folder, make_tokenizer(folder / "tokenizer"), documents=90, words=60)
    recipe = {
        "model_name": MODEL["name"],
        "model_config": MODEL,
        "initial_checkpoint_dir": None,
        "tokenizer_dir": str(folder / "tokenizer"),
        "out_dir": str(folder / "run"),
        "precision": "32-true",
        "devices": 1,
        "seed": 42,
        "data": {
            "class_path": "inheritune_lit.data.PackedTokens",
            "init_args": {"data_path": str(folder / "tokens"), "epochs": 4, "seed": 42, "num_workers": 0},
        },
        "train": {"max_tokens": 40 * 4 * 16, "max_seq_length": 16, "global_batch_size": 4, "micro_batch_size": 4}
        | {"lr_warmup_steps": 4, "min_lr": 1e-4, "max_norm": 1.0, "tie_embeddings": False}
        | {"save_interval": 5, "log_interval": 1},
        "eval": {"interval": 10, "max_iters": 2, "initial_validation": False, "final_validation": False},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3, "weight_decay": 0.1}},
        "logger_name": "csv",
    }
    (folder / "recipe.yaml").write_text(yaml.dump(recipe))
    return folder


class MadeUp:
    """In place of trainings: weights that depend on the recipe alone, and the losses that a test wants."""

    def __init__(self, losses: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.losses, self.trained, self.recipes = losses, list[str](), dict[str, Any]()
        self.measured = list[str]()
        monkeypatch.setattr("inheritune_lit.pretrain.train", self.train)
        monkeypatch.setattr(growth_run, "measure", self.measure)
        monkeypatch.setattr("inheritune_lit.grow.results.report", lambda settings, content: "report")

    def train(self, recipe: Any, run: Path, **_: Any) -> dict[str, Any]:
        self.trained.append(run.name)
        self.recipes[run.name] = recipe
        start = recipe["initial_checkpoint_dir"]
        state = load_model(Path(start)).state_dict() if start else None
        torch.manual_seed(recipe["seed"])
        model = gpt2.build(Config(**recipe["model_config"]))
        if state:
            model.load_state_dict(state)
        for folder, content in (("model", model.state_dict()), ("final", {"model": model.state_dict()})):
            (run / folder).mkdir(parents=True)
            torch.save(content, run / folder / WEIGHTS)
            (run / folder / "model_config.yaml").write_text(yaml.dump(asdict(model.config)))
        return {"tokens": recipe["train"]["max_tokens"], "seconds": 1.0, "tokens_per_second": 1.0}

    def measure(self, checkpoint: Path, recipe: Any) -> ValidationLoss:
        self.measured.append(checkpoint.parent.name)
        value = self.losses[checkpoint.parent.name]
        return loss(value, value + 1)


Grow = Callable[..., dict[str, Any]]


@pytest.fixture
def growing(inputs: Path, tmp_path: Path) -> Grow:
    """`grow` of the inputs' recipe; returns the ledger."""

    def run(**options: Any) -> dict[str, Any]:
        grow(inputs / "recipe.yaml", out_dir=tmp_path / "out", **options)
        return read_json(tmp_path / "out/growth.json", "ledger")

    return run


LOSSES = {"reference": 3.0, "n2": 3.3, "n3": 3.2, "n4": 3.1, "n5": 2.9, "n4_random": 3.5, "n4_random_2t": 3.05}


def test_grows_until_par_and_compares_there(growing: Grow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = MadeUp(LOSSES, monkeypatch)
    options: dict[str, Any] = {"start_layers": 2, "tolerance": 0.125, "compare": ["random", "random_2t"]}
    ledger = growing(**options)
    assert made.trained == ["reference", "n2", "n4", "n4_random", "n4_random_2t"]
    assert "+0.3000 ± 0.0000 nats" in ledger["stages"]["n2"]["decision"]["why"]
    assert ledger["stages"]["n2"]["decision"]["why"].endswith("n grows to 4.")
    assert ledger["outcome"].startswith("4 blocks: validation loss 3.6000")
    assert ledger["outcome"].endswith("at par.")

    # each n starts anew from the reference's first blocks, the random ones from nothing
    starts = {name: recipe["initial_checkpoint_dir"] for name, recipe in made.recipes.items()}
    assert starts["n4"] == str(tmp_path / "out/starts/n4")
    assert starts["reference"] is starts["n4_random"] is None
    reference = load_model(tmp_path / "out/reference/model").state_dict()
    target = load_model(tmp_path / "out/starts/n4").state_dict()
    assert all(torch.equal(tensor, reference[name]) for name, tensor in target.items())
    budgets = {name: recipe["train"]["max_tokens"] // (4 * 16) for name, recipe in made.recipes.items()}
    assert budgets == dict.fromkeys(made.trained, 40) | {"n4_random_2t": 80}
    assert made.recipes["n4_random_2t"]["data"]["init_args"]["epochs"] == 8
    assert {name: recipe["model_config"]["n_layer"] for name, recipe in made.recipes.items()} == {
        **{"reference": 6, "n2": 2, "n4": 4, "n4_random": 4, "n4_random_2t": 4}
    }

    # all of it is done: nothing is trained again, nothing is decided otherwise
    again = growing(**options)
    assert made.trained == made.measured == ["reference", "n2", "n4", "n4_random", "n4_random_2t"]
    assert again == ledger


def test_never_at_par_ends_at_max_layers(growing: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MadeUp(LOSSES, monkeypatch)
    ledger = growing(start_layers=2, step=1, max_layers=4)
    assert made.trained == ["reference", "n2", "n3", "n4"]
    assert ledger["outcome"].endswith("max_layers is reached, not at par.")
    # more layers may be asked for afterwards; what was compared stays
    assert growing(start_layers=2, step=1, max_layers=5)["outcome"].endswith("at par.")
    assert made.trained == ["reference", "n2", "n3", "n4", "n5"]
    with pytest.raises(InheritError, match="max_layers is 4, and .* holds a trained target of 5 blocks already"):
        growing(start_layers=2, step=1, max_layers=4)


def test_continue_grows_what_was_trained(growing: Grow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    MadeUp(LOSSES, monkeypatch)
    growing(start_layers=2, mode="continue", tolerance=0.125)
    ledger = read_json(tmp_path / "out/growth.json", "ledger")["stages"]
    assert ledger["n4"]["start"] == "grow"
    assert set(ledger["n4"]["parents"]) == {"data", "reference", "n2"}
    receipt = read_json(tmp_path / "out/starts/n4/inheritance.json", "receipt")
    assert receipt["start"] == "grow"
    # the trainings are made up, so that what is grown from n2 has the reference's own blocks again
    reference, grown = (load_model(tmp_path / f"out/{name}").state_dict() for name in ("reference/model", "starts/n4"))
    assert all(torch.equal(tensor, reference[name]) for name, tensor in grown.items())


def test_changes_are_refused_with_the_difference(
    growing: Grow, monkeypatch: pytest.MonkeyPatch, inputs: Path, tmp_path: Path
) -> None:
    made = MadeUp(LOSSES, monkeypatch)
    growing(start_layers=4, tolerance=0.125)
    with pytest.raises(InheritError, match=r"recipe.train.max_tokens: 2560 before, 1280 now"):
        growing(start_layers=4, tolerance=0.125, steps=20)
    with pytest.raises(InheritError, match=r"start_layers: 4 before, 2 now"):
        growing(start_layers=2, tolerance=0.125)
    # a given reference is a parent like a trained one: another under the same name is noticed
    make_checkpoint(tmp_path / "given", "gpt2", seed=1)
    made.losses |= {tmp_path.name: 3.0}
    options = {"out_dir": tmp_path / "other", "reference_dir": tmp_path / "given", "start_layers": 4}
    grow(inputs / "recipe.yaml", tolerance=0.125, **options)
    (tmp_path / "given" / WEIGHTS).unlink()
    make_checkpoint(tmp_path / "swapped", "gpt2", seed=2)
    (tmp_path / "swapped" / WEIGHTS).rename(tmp_path / "given" / WEIGHTS)
    with pytest.raises(InheritError, match="parents.model: .* before, .* now"):
        grow(inputs / "recipe.yaml", tolerance=0.125, **options)


def test_keep_final_leaves_what_is_needed(growing: Grow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = MadeUp(LOSSES, monkeypatch)
    options: dict[str, Any] = {"start_layers": 2, "tolerance": 0.125, "compare": ["random"], "keep": "final"}
    growing(**options)
    left = sorted(str(path.parent.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob(WEIGHTS))
    assert left == ["n4/model", "n4_random/model", "reference/model"]
    growing(**options)
    assert len(made.trained) == 4, "a deleted model is not trained again"


def test_what_keep_final_deleted_can_not_grow(growing: Grow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    MadeUp(LOSSES | {"n5": 3.05}, monkeypatch)
    options: dict[str, Any] = {"start_layers": 2, "mode": "continue", "keep": "final"}
    ledger = growing(max_layers=5, **options)
    with pytest.raises(
        InheritError, match=r"n6 would grow from .*n4/model, which is gone: (?s:.*)Here only --max_layers 5"
    ):
        growing(max_layers=6, **options)
    assert growing(max_layers=5, **options)["outcome"] == ledger["outcome"]


def test_numbers_that_do_not_fit(growing: Grow, inputs: Path, tmp_path: Path) -> None:
    for options in ({"start_layers": 7}, {"max_layers": 2}, {"step": 0}, {"start_layers": 0}, {"max_layers": 9}):
        with pytest.raises(InheritError, match="expected 1 ≤ start_layers ≤ max_layers ≤ 6"):
            growing(**options)
    for tolerance in (-1, float("inf"), float("nan")):
        with pytest.raises(InheritError, match=f"tolerance is {tolerance}, expected nats: a finite number"):
            growing(tolerance=tolerance)
    (tmp_path / "short.yaml").write_text("model_config: {n_layer: 4}\ndata: {init_args: {data_path: x}}")
    with pytest.raises(InheritError, match=r"does not state train.max_tokens"):
        grow(tmp_path / "short.yaml", out_dir=tmp_path / "out")
    bad = tmp_path / "bad.yaml"
    bad.write_text(f"recipe: {inputs / 'recipe.yaml'}\nout_dir: {tmp_path / 'out'}\ntolerence: 0.1\n")
    command = [sys.executable, "-m", "inheritune_lit", "grow", "--config", str(bad)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "tolerence" in done.stderr


def test_dry_run_names_every_stage(growing: Grow, inputs: Path, tmp_path: Path, capsys: Any) -> None:
    options: dict[str, Any] = {"start_layers": 2, "compare": ["random_2t"], "dry_run": True}
    grow(inputs / "recipe.yaml", out_dir=tmp_path / "out", **options)
    printed = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    rows = [line.split() for line in printed.splitlines()[2:6]]
    assert [row[0] for row in rows] == ["reference", "n2", "n4", "n4_random_2t"]
    whole = gpt2.build(Config(**MODEL))
    assert f"{sum(p.numel() for p in whole.parameters()):,}" in printed
    assert (rows[3][-5:-3], rows[3][-1]) == (["80", "5,120"], "17")


def test_another_t_keeps_the_warm_ups_share(inputs: Path) -> None:
    base = yaml.safe_load((inputs / "recipe.yaml").read_text())
    changed = stages.with_changes(base, steps=20, seed=7)
    assert (changed["train"]["max_tokens"], changed["train"]["lr_warmup_steps"]) == (20 * 64, 2)
    assert changed["seed"] == changed["data"]["init_args"]["seed"] == 7
    assert base["seed"] == 42


def test_shorter_config_slices_what_is_per_layer(tmp_path: Path) -> None:
    config = asdict(load_config(make_checkpoint(tmp_path / "gemma", "gemma")))
    cut = stages.shorter(config, 4)
    assert cut == {**config, "n_layer": 4, "sliding_window_indices": [1, 1, 0, 1], "rope_indices": [1, 1, 0, 1]}


def test_mistakes_are_named_before_anything_is_trained(inputs: Path, tmp_path: Path) -> None:
    recipe = (inputs / "recipe.yaml").read_text()
    (tmp_path / "typo.yaml").write_text(recipe.replace("n_layer:", "n_layerr: 3\n  n_layer:"))
    (tmp_path / "words.yaml").write_text(re.sub("max_tokens: .*", "max_tokens: many", recipe))
    for name, what in {"typo": "n_layerr", "words": "train.max_tokens"}.items():
        with pytest.raises(InheritError, match=rf"{name}\.yaml: 1 error(?s:.*){what}"):
            grow(tmp_path / f"{name}.yaml", out_dir=tmp_path / "out")
    with pytest.raises(InheritError, match="--steps 0: expected 1 or more"):
        grow(inputs / "recipe.yaml", out_dir=tmp_path / "out", steps=0)
    with pytest.raises(InheritError, match=r"words\.yaml: 1 error(?s:.*)train.max_tokens"):
        grow(tmp_path / "words.yaml", out_dir=tmp_path / "out", steps=10)
    (tmp_path / "start.yaml").write_text(recipe.replace("initial_checkpoint_dir: null", "initial_checkpoint_dir: x"))
    with pytest.raises(InheritError, match=r"start\.yaml starts from a checkpoint, (?s:.*)is --reference_dir"):
        grow(tmp_path / "start.yaml", out_dir=tmp_path / "out")


def test_what_is_changed_is_checked(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the dry run passes, the growth can train to its end."""
    options: dict[str, Any] = {"out_dir": tmp_path / "out", "dry_run": True}
    grow(inputs / "recipe.yaml", **options, steps=340, compare=["random_2t"])
    with pytest.raises(InheritError, match=r"data.init_args.epochs(?s:.*)25,600(?s:.*)Write 5"):
        grow(inputs / "recipe.yaml", **options, steps=400)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/manifest.json").write_text("{}")
    with pytest.raises(InheritError, match=r"1 error(?s:.*)data_path(?s:.*)damaged"):
        grow(inputs / "recipe.yaml", **options, data_path=tmp_path / "damaged")
    recipe = (inputs / "recipe.yaml").read_text()
    (tmp_path / "elsewhere.yaml").write_text(recipe.replace(str(inputs / "tokens"), str(tmp_path / "damaged")))
    grow(tmp_path / "elsewhere.yaml", **options, data_path=inputs / "tokens")
    grow(inputs / "recipe.yaml", **options, data_path=tmp_path / "nowhere")
    assert "nowhere/manifest.json is missing: write the data" in capsys.readouterr().out
    with pytest.raises(InheritError, match=r"nowhere/manifest.json is missing: write the data"):
        grow(inputs / "recipe.yaml", **options | {"dry_run": False}, data_path=tmp_path / "nowhere")


def test_reference_is_checked_before_anything_is_trained(inputs: Path, tmp_path: Path) -> None:
    given = make_checkpoint(tmp_path / "given", "gpt2")
    options: dict[str, Any] = {"out_dir": tmp_path / "out", "dry_run": True}
    with pytest.raises(InheritError, match="nowhere holds no litGPT checkpoint"):
        grow(inputs / "recipe.yaml", **options, reference_dir=tmp_path / "nowhere")
    make_checkpoint(tmp_path / "deeper", "gpt2", n_layer=8)
    with pytest.raises(InheritError, match="deeper is not the recipe's model: n_layer is 8, the recipe's 6"):
        grow(inputs / "recipe.yaml", **options, reference_dir=tmp_path / "deeper")
    grow(inputs / "recipe.yaml", **options, reference_dir=given)
    (given / "tokenizer.json").unlink()
    with pytest.raises(InheritError, match="given has no tokenizer, (?s:.*)Copy the recipe's there, from .*tokenizer"):
        grow(inputs / "recipe.yaml", **options, reference_dir=given)


def test_every_window_is_measured(inputs: Path, tmp_path: Path) -> None:
    tokens = torch.cat([batch[:, 1:].flatten() for batch in all_windows(inputs / "tokens", 16, 2)])
    val = read_json(inputs / "tokens/manifest.json", "manifest")["splits"]["val"]
    count = sum(entry["tokens"] for entry in val)
    assert len(tokens) == (count - 1) // 16 * 16 > 2 * 16
    checkpoint = make_tokenizer(make_checkpoint(tmp_path / "model", "gpt2"))
    recipe = yaml.safe_load((inputs / "recipe.yaml").read_text())
    one, three = (
        growth_run.measure(checkpoint, recipe | {"train": recipe["train"] | {"micro_batch_size": batch}})
        for batch in (1, 3)
    )
    assert one.per_window == pytest.approx(three.per_window, rel=1e-5)
    assert len(one.per_window) == len(tokens) // 16


def test_a_loss_that_is_not_finite_is_refused(inputs: Path, tmp_path: Path) -> None:
    checkpoint = make_tokenizer(make_checkpoint(tmp_path / "model", "gpt2"))
    state = torch.load(checkpoint / WEIGHTS)
    state["transformer.ln_f.weight"][0] = float("nan")
    torch.save(state, checkpoint / WEIGHTS)
    with pytest.raises(InheritError, match="validation loss of .*model is nan: its training has diverged"):
        growth_run.measure(checkpoint, yaml.safe_load((inputs / "recipe.yaml").read_text()))


def test_tokenizer_is_one_that_litgpt_opens(tmp_path: Path) -> None:
    from litgpt.tokenizer import Tokenizer

    train_tokenizer(["To be, or not to be: that is the question.\n"] * 3, tmp_path, vocabulary=300)
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("Naïve, or not to be")) == "Naïve, or not to be"
    assert tokenizer.eos_id == 0
    assert len(tokenizer.encode("question")) < len("question")


def command(inputs: Path, out_dir: Path, *options: str) -> list[str]:
    recipe = [str(inputs / "recipe.yaml"), "--out_dir", str(out_dir), "--compile=false"]
    return [sys.executable, "-m", "inheritune_lit", "grow", *recipe, *options]


def test_killed_growth_ends_with_the_same_losses(inputs: Path, tmp_path: Path) -> None:
    """For real: reference and target by `litgpt pretrain`; then the target again, killed half-way and started anew."""
    options = ["--start_layers=4", "--max_layers=4"]
    done = subprocess.run(command(inputs, tmp_path / "calm", *options), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "from scratch" in done.stdout
    assert "Validation loss in nats per token" in done.stdout
    calm = read_json(tmp_path / "calm/growth.json", "ledger")["stages"]
    assert imread(tmp_path / "calm/growth.png").std() > 0.05, "there is something on the figure"

    killed = command(inputs, tmp_path / "killed", f"--reference_dir={tmp_path / 'calm/reference'}", *options)
    with subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed/n4/step-00000005").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "killed/n4/run.json").exists(), "it was killed half-way"
    done = subprocess.run(killed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stormy = read_json(tmp_path / "killed/growth.json", "ledger")["stages"]
    for key in ("validation_loss", "fingerprint", "decision"):
        assert stormy["n4"][key] == calm["n4"][key]
    # the figure has the given reference's own curve
    base = stages.with_changes(yaml.safe_load((inputs / "recipe.yaml").read_text()))
    numbers: dict[str, Any] = {"start_layers": 4, "max_layers": 4, "step": 2, "tolerance": 0.0, "compare": None}
    trained, given = (
        stages.make_settings(base, tmp_path / name, reference_dir=reference, mode="restart", **numbers)
        for name, reference in (("calm", None), ("killed", tmp_path / "calm/reference"))
    )
    curve = results.curves_of(given, stormy)["reference"]
    assert curve == results.curves_of(trained, calm)["reference"]
    assert len(curve) > 1
    training = [read_run(tmp_path / name / "n4").curves["training"] for name in ("calm", "killed")]
    assert training[0] == training[1]
    # our loss is the model's, not litGPT's log's: a plain forward pass over the held-out windows
    model = load_model(tmp_path / "calm/n4/model")
    windows = torch.cat(list(all_windows(inputs / "tokens", 16, 8)))
    with torch.inference_mode():
        logits = model(windows[:, :-1])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    assert calm["n4"]["validation_loss"] == pytest.approx(float(expected), abs=1e-5)
    assert json.loads((tmp_path / "calm/n4/run.json").read_text())["recipe"]["model_config"]["n_layer"] == 4


def test_full_size_recipes_grow_the_rendered_ones() -> None:
    for path in sorted((ROOT / "recipes/growth").glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        base = yaml.safe_load((ROOT / content["recipe"]).read_text())
        assert content["start_layers"] == base["model_config"]["n_layer"] // 2
        assert (content["step"], content["tolerance"]) == (2, 0.0)
        assert content["compare"] == ["random", "random_2t"]
