"""`inheritune pretrain` and its function: runs that are killed, torn, changed and gone wrong, with a small model."""

import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import make_checkpoint, make_tokenizer, make_tokens
from litgpt.args import TrainArgs
from litgpt.pretrain import get_lr

from inheritune_lit.checkpoint import RECEIPT, WEIGHTS, Weights, read_receipt
from inheritune_lit.commit import InheritError, _locked
from inheritune_lit.data import PackedTokens
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.data.tokens import GlobalOrder, Windows
from inheritune_lit.launch import Options, Progress, resume, train, training
from inheritune_lit.launch.command import saving_advice
from inheritune_lit.launch.finish import speed
from inheritune_lit.launch.keep import stays, tidy
from inheritune_lit.launch.schedule import schedule
from inheritune_lit.launch.settings import settings_of
from inheritune_lit.launch.watch import Diverged, Watch
from inheritune_lit.launch.windows import windows_of
from inheritune_lit.runs import read_run
from inheritune_lit.verify import check_files, load_model

STEPS, BATCH, LENGTH = 24, 4, 16


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small Llama, shards of made-up text that are used up in eight epochs, and a recipe of 24 steps."""
    folder = tmp_path_factory.mktemp("launch")
    checkpoint = make_checkpoint(folder / "open_llama_tiny", n_layer=2)
    make_tokenizer(checkpoint)
    return {
        "model_name": "small",  # one that litGPT does not know, or preflight would compare
        "model_config": yaml.safe_load((checkpoint / "model_config.yaml").read_text()) | {"name": "small"},
        "initial_checkpoint_dir": str(checkpoint),
        "tokenizer_dir": str(checkpoint),
        "precision": "32-true",
        "devices": 1,
        "data": {
            "class_path": "inheritune_lit.data.PackedTokens",
            "init_args": {
                "data_path": str(make_tokens(folder, checkpoint, documents=13)),
                "epochs": 8,
                "num_workers": 0,
            },
        },
        "train": {
            "max_tokens": STEPS * BATCH * LENGTH,
            "max_seq_length": LENGTH,
            "global_batch_size": BATCH,
            "micro_batch_size": 2,
            "lr_warmup_steps": 2,
            "min_lr": 1e-4,
            "max_norm": 1.0,
            "save_interval": 8,
            "log_interval": 1,
        },
        "eval": {"interval": 12, "max_iters": 1, "initial_validation": True, "final_validation": False},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}},
        "logger_name": "csv",
    }


@pytest.fixture(scope="module")
def whole(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    seen: list[Progress] = []
    receipt = train(recipe, run, on_progress=seen.append)
    assert [progress.step for progress in seen] == list(range(1, STEPS + 1))
    assert receipt["steps"] == seen[-1].steps == STEPS
    assert receipt["losses"]["training"] == pytest.approx(seen[-1].loss, abs=1e-3)
    return run


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = Weights(one / WEIGHTS), Weights(other / WEIGHTS)
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_finished_run(recipe: dict[str, Any], whole: Path) -> None:
    receipt = train(recipe, whole)  # at once, as it is finished
    assert receipt["tokens"] == STEPS * BATCH * LENGTH
    assert receipt["tokens_per_second"] > 0
    assert receipt["mfu"] is None, "a CPU has no known peak"
    assert receipt["start"]["fingerprint"] == Weights(Path(recipe["initial_checkpoint_dir"]) / WEIGHTS).fingerprint()
    assert same_weights(whole / "model", whole / "final")
    check_files(whole / "model", read_receipt(whole / "model")["files"])
    assert load_model(whole / "model").config.n_layer == 2
    assert not same_weights(whole / "model", Path(recipe["initial_checkpoint_dir"]))
    assert set(torch.load(whole / "model" / WEIGHTS, weights_only=True)) == set(Weights(whole / "model" / WEIGHTS))
    run = read_run(whole)
    assert run.name == "whole"
    assert run.finished
    assert [(step, tokens) for step, tokens, _ in run.curves["training"]] == [
        (step, step * BATCH * LENGTH) for step in range(1, STEPS + 1)
    ]
    assert [step for step, _, _ in run.curves["validation"]] == [0, 12, 24]
    assert (whole / "model" / RECEIPT).is_file()


def interrupted(whole: Path, run: Path, step: int) -> Path:
    """A copy of the undisturbed run, elsewhere, as if a kill had stopped it between `step` and the next checkpoint."""
    shutil.copytree(whole, run)
    for name in ("run.json", "model", "final", "logs", "pretrain.log"):
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    for folder in run.glob("step-*"):
        if int(folder.name[5:]) > step:
            shutil.rmtree(folder)
    return run


def learning_rates(run: Path) -> dict[int, float]:
    """Tokens → rate, as logged"""
    with (run / "logs/csv/version_0/metrics.csv").open(newline="") as file:
        return {int(row["total_tokens"]): float(row["learning_rate"]) for row in csv.DictReader(file) if row["loss"]}


def test_a_torn_checkpoint_is_set_aside(
    recipe: dict[str, Any], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = interrupted(whole, tmp_path / "elsewhere", 16)
    torn = run / "step-00000016/lit_model.pth"
    os.truncate(torn, torn.stat().st_size - 1000)
    with pytest.raises(InheritError, match=r"another recipe, start or data:\n  train.min_lr: 0.0001 before, 0.001 now"):
        train({**recipe, "train": {**recipe["train"], "min_lr": 1e-3}}, run)
    with pytest.raises(InheritError, match=r"\n  start: [0-9a-f]{16}… before, random now"):
        train({**recipe, "initial_checkpoint_dir": None}, run)

    receipt = train(recipe, run)
    printed = capsys.readouterr().out
    assert f"{run}/step-00000016 is not usable, and is {run}/.torn-step-00000016 now" in printed
    assert "Going on after step 8 of 24" in printed
    assert (run / ".torn-step-00000016/lit_model.pth").stat().st_size > 0, "set aside, not deleted"
    assert same_weights(whole / "model", run / "model")
    assert not same_weights(whole / "step-00000016", run / "model"), "another step is another model"
    ours, theirs = read_run(run).curves["training"], read_run(whole).curves["training"]
    assert ours == theirs[8:]
    assert [launch["from_step"] for launch in receipt["launches"]] == [0, 8]


def test_another_micro_batch_on_resume(recipe: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    """Two micro-batches a step become four after step 16: the same batches, the same learning rates."""
    run = interrupted(whole, tmp_path / "run", 16)
    train({**recipe, "train": {**recipe["train"], "micro_batch_size": 1}}, run)
    rates, expected = learning_rates(run), learning_rates(whole)
    assert rates == {tokens: rate for tokens, rate in expected.items() if tokens > 16 * BATCH * LENGTH}
    ours, theirs = (torch.load(r / "final" / WEIGHTS, weights_only=True) for r in (run, whole))
    assert ours["train_dataloader"] == theirs["train_dataloader"]
    assert (ours["iter_num"], theirs["iter_num"], ours["step_count"]) == (4 * STEPS, 2 * STEPS, STEPS)
    curves = [read_run(r).curves["training"] for r in (run, whole)]
    assert curves[0] == [(s, t, pytest.approx(loss, abs=1e-4)) for s, t, loss in curves[1][16:]]
    for name, tensor in theirs["model"].items():
        torch.testing.assert_close(ours["model"][name], tensor, rtol=0, atol=1e-4)
    assert not same_weights(run / "model", whole / "model"), "sums of another order: close, not equal"


def test_killed_nine_and_given_again(recipe: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    """kill -9 of the command in a step, then as a checkpoint is being saved; then it is left alone."""
    path, run = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(yaml.dump(recipe | {"out_dir": str(run)}))
    command = [sys.executable, "-m", "inheritune_lit", "pretrain", str(path), "--keep_last", "1", "--keep_every", "24"]
    for line in ("step 12 |", "step-00000016"):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            wait_for(run / "pretrain.log", line, process)
            process.kill()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "recipe.yaml: 2 notes" in done.stdout
    assert "tokens/s on" in done.stdout
    assert same_weights(whole / "model", run / "model")
    receipt = read_run(run).receipt
    assert len(receipt["launches"]) == 3
    assert receipt["launches"][-1]["from_step"] in (8, 16)
    assert [folder.name for folder in sorted(run.glob("step-*"))] == ["step-00000016", "step-00000024"]
    assert same_weights(run / "weights/00000016", whole / "step-00000016")
    curve = read_run(run).curves["training"]
    assert curve == [(s, t, pytest.approx(loss, abs=1e-3)) for s, t, loss in read_run(whole).curves["training"]]


def wait_for(log: Path, text: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 240
    while not (log.exists() and text in log.read_text()):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Enough(Exception):
    """What a test raises when a training has come far enough: it is sent SIGTERM."""


def test_saves_at_the_end_of_the_step_when_asked_to_stop(recipe: dict[str, Any], tmp_path: Path) -> None:
    long = {**recipe, "train": recipe["train"] | {"max_tokens": 2000 * BATCH * LENGTH, "save_interval": 1000}}
    long["data"] = {**recipe["data"], "init_args": recipe["data"]["init_args"] | {"epochs": 700}}

    def stop(progress: Progress) -> None:
        raise Enough

    with pytest.raises(Enough):
        train(long, tmp_path / "run", on_progress=stop, options=Options(save_on_signal=True, grace=120))
    (saved,) = (tmp_path / "run").glob("step-*")
    step = int(saved.name[5:])
    assert 1 <= step < 1000
    checkpoint = resume.check(saved / WEIGHTS, settings_of(recipe).config, recipe["train"])
    assert (checkpoint.step, checkpoint.iteration, checkpoint.accumulation) == (step, 2 * step, 2)


def test_gradients_that_are_not_finite_stop_the_run(recipe: dict[str, Any], tmp_path: Path) -> None:
    """The weights are too large after the first steps: litGPT stops by itself, and the step's windows are named."""
    wild = {**recipe, "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e30}}}
    with pytest.raises(
        InheritError, match=r"The gradients are not finite at step (\d)\. The run was stopped\."
    ) as info:
        train(wild, tmp_path / "run")
    step = int(str(info.value).split("at step ")[1][0])
    windows = ", ".join(map(str, windows_of(recipe, settings_of(recipe), step, step)))
    assert f"Step {step} used the windows {windows} of" in str(info.value)
    assert not (tmp_path / "run/run.json").exists()


def test_a_folder_has_one_launch(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "ORPHAN", 0.3)
    with _locked(tmp_path / "run"), pytest.raises(InheritError, match="run is in use: another launch"):
        train(recipe, tmp_path / "run")
    (tmp_path / "run/thesis.txt").write_text("mine")
    with pytest.raises(InheritError, match="holds something that `inheritune pretrain` did not write"):
        train(recipe, tmp_path / "run")
    assert (tmp_path / "run/thesis.txt").read_text() == "mine"


def test_what_makes_a_checkpoint_unusable(recipe: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    config, path = settings_of(recipe).config, tmp_path / "step-00000016/lit_model.pth"
    path.parent.mkdir()
    good = torch.load(whole / "step-00000016/lit_model.pth", weights_only=True)

    def refused(match: str, **changes: Any) -> None:
        torch.save(good | changes, path)
        with pytest.raises(InheritError, match=match):
            resume.check(path, config, recipe["train"])

    torch.save(good, path)
    assert resume.check(path, config, recipe["train"]).step == 16
    name = "lm_head.weight"
    refused("lm_head.weight holds NaN", model=good["model"] | {name: good["model"][name] * torch.nan})
    refused("lm_head.weight has shape", model=good["model"] | {name: good["model"][name][:-1]})
    refused("lm_head.weight is missing", model={k: v for k, v in good["model"].items() if k != name})
    refused("loader is at sample 60, its step 16 of 4 ends at 64", train_dataloader={"consumed": 60})
    refused("33 micro-iterations do not make 16 whole steps", iter_num=33)
    refused("it is of step 8, and its folder is named step-00000016", step_count=8, train_dataloader={"consumed": 32})
    state = {i: entry | {"exp_avg": entry["exp_avg"] * torch.inf} for i, entry in good["optimizer"]["state"].items()}
    refused("exp_avg holds NaN or infinite", optimizer=good["optimizer"] | {"state": state})
    content = bytearray((whole / "step-00000016/lit_model.pth").read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InheritError, match="CRC-32"):
        resume.check(path, config, recipe["train"])


def test_the_newest_that_verifies(
    recipe: dict[str, Any], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = settings_of(recipe).config, interrupted(whole, tmp_path / "run", 16)

    def newest() -> int | None:
        found = resume.newest(run, config, recipe["train"], STEPS)
        return found and found.step

    def damage(step: str, change: Any) -> None:
        path = run / step / WEIGHTS
        content = torch.load(path, weights_only=True)
        torch.save(content | change, path)

    assert newest() == 16
    damage("step-00000016", {"iter_num": 33})
    assert newest() == 8
    assert "is not usable, and is" in capsys.readouterr().out
    damage("step-00000008", {"iter_num": 17})
    with pytest.raises(InheritError, match=r"none that it can go on from:\n.*17 micro-iterations do not make 8"):
        newest()
    assert (run / "step-00000008").is_dir(), "whole ones are not given up by themselves"
    os.truncate(run / "step-00000008" / WEIGHTS, 1000)
    (run / "step-00000004").mkdir()  # killed before its first byte
    assert newest() is None
    assert sorted(f.name for f in run.glob(".torn-*")) == [f".torn-step-{step:08d}" for step in (4, 8, 16)]


def test_which_checkpoints_stay(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stays([100, 200, 300, 400, 500], 2, 300) == {300, 400, 500}
    assert stays([100, 200], 1, None) == {200}
    run = interrupted(whole, tmp_path / "run", 24)

    def torn(folder: Path) -> None:
        raise InheritError("torn")

    tidy(run, run / "step-00000024", 1, None, torn)
    assert "all older checkpoints stay: torn" in capsys.readouterr().out
    assert len(list(run.glob("step-*"))) == 3
    tidy(run, run / "step-00000024", 1, 8, lambda folder: None)
    assert len(list(run.glob("step-*"))) == 3
    tidy(run, run / "step-00000024", 1, None, lambda folder: None)
    assert [folder.name for folder in run.glob("*-*")] == ["step-00000024"]
    assert same_weights(run / "weights/00000024", whole / "step-00000024")
    (run / "run.json").unlink(missing_ok=True)


def test_windows_of_a_step_are_those_that_the_loader_reads(recipe: dict[str, Any]) -> None:
    windows = Windows(Manifest(Path(recipe["data"]["init_args"]["data_path"])), "train", LENGTH)
    order = list(GlobalOrder(windows, seed=42, epochs=8, batch_size=1))
    settings = settings_of(recipe)
    assert windows_of(recipe, settings, 3, 4) == order[2 * BATCH : 4 * BATCH]
    assert windows_of(recipe, settings, 1, STEPS) == order


def line(step: int, loss: float | str, validation: str = "n/a") -> str:
    return f"Epoch 1 | iter {2 * step} step {step} | loss train: {loss}, val: {validation} | iter time: 1.0 ms (step)"


def test_watch_reads_litgpts_lines() -> None:
    watch = Watch(100)
    first = watch.line(line(1, 5.0, "6.500"), 10.0)
    assert (first, watch.untrained) == (Progress(1, 100, 5.0, 6.5, None), 6.5)
    for step in range(2, 12):
        progress = watch.line(line(step, 5.0), 9.0 + step)
    assert progress == Progress(11, 100, 5.0, 6.5, 89.0)
    assert watch.line("iter 22: val loss 4.2500, val time: 3.0 ms", 100.0) is None
    after = watch.line(line(12, 5.0), 110.0)  # a validation is no step's time
    assert after == Progress(12, 100, 5.0, 4.25, 88.0)
    assert watch.stalled(119.9) is None
    assert "No step for 10 s since step 12; they took 1.00 s" in str(watch.stalled(120.1))
    assert watch.stalled(130) is None, "said once"
    with pytest.raises(Diverged, match=r"jumped to 8.100 at step 14, 3.100 above the median of the 12") as info:
        watch.line(line(14, 8.1), 121.0)
    assert (info.value.first, info.value.last) == (13, 14)
    for loss in ("nan", "inf"):
        with pytest.raises(Diverged, match=f"The loss is {loss} at step 1"):
            Watch(100).line(line(1, loss), 0.0)
    assert Watch(100, max_spike=4.0).line(line(1, 8.9), 0.0) is not None


def test_how_often_to_save() -> None:
    progress = Progress(100, 1100, 3.0, None, 36000.0)  # 36 s a step
    assert saving_advice(progress, 50, 30) is None
    assert "a kill may lose 60 minutes. For 30 at most" in str(saving_advice(progress, 100, 30))
    assert "train.save_interval: 50" in str(saving_advice(progress, None, 30))


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
@pytest.mark.parametrize("gpus", [1, 2, 4])
@pytest.mark.parametrize("warmup", [{"lr_warmup_steps": 5}, {"lr_warmup_steps": None, "lr_warmup_fraction": 0.1}])
def test_schedule_is_litgpts_and_stays_when_counters_change(
    micro_batch: int, gpus: int, warmup: dict[str, Any]
) -> None:
    settings = {"global_batch_size": 16, "micro_batch_size": micro_batch, "max_tokens": 50 * 16 * 8 + 40} | warmup
    train_args, loader = TrainArgs(**settings), range(1000 // (micro_batch * gpus))
    ours = schedule(settings, gpus, 8, loader_windows=1000)
    assert ours.accumulation == train_args.gradient_accumulation_iters(gpus)
    assert ours.max_iters == settings["max_tokens"] // gpus // (micro_batch * 8)
    assert ours.warmup_iters == train_args.warmup_iters(gpus, 1, ours.max_iters, loader)
    for accumulation in (1, 3, 8):
        for step in range(50):
            before, now = (step + 1) * ours.accumulation - 1, (step + 1) * accumulation - 1
            rate = ours.learning_rate(get_lr, 3e-4, now, accumulation, 1e-5)
            assert rate == get_lr(3e-4, before, ours.warmup_iters, ours.max_iters, 1e-5)


def test_a_resumed_loader_is_as_long_as_ever(recipe: dict[str, Any]) -> None:
    """litGPT takes lr_warmup_fraction of it: were it shorter, the learning rates would change at a resume."""
    data = PackedTokens(**recipe["data"]["init_args"])
    data.connect(None, 2, LENGTH)
    loader = data.train_dataloader()
    loader.load_state_dict(loader.state_dict() | {"consumed": 40})
    assert len(loader) == STEPS * BATCH // 2
    assert sum(1 for _ in loader) == (STEPS * BATCH - 40) // 2 + 1, (
        "and the one past the end, which is an error if used"
    )


def test_speed(recipe: dict[str, Any]) -> None:
    settings = settings_of(recipe)
    assert speed(settings, 10, 2.0, []) == {"tokens_per_second": 10 * BATCH * LENGTH / 2, "mfu": None}
    fast = speed(settings, 10, 1e-6, ["NVIDIA H100 80GB HBM3"])
    parameters = 2 * (4 * 32 * 32 + 3 * 32 * 48) + 32 * 64  # of the matrices, without the embedding
    attention = 2 * 2 * LENGTH * 32 * LENGTH  # 2 blocks, 2 products, over all pairs of positions
    flops = 3 * 2 * (parameters * LENGTH + attention) * 10 * BATCH / 1e-6  # three passes, two FLOPs a product
    assert fast["mfu"] == pytest.approx(flops / 989.4e12, rel=1e-3)
    assert speed(settings, 0, 0.0, []) == {"tokens_per_second": None, "mfu": None}
