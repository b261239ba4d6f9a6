"""`inheritune pretrain` and its function: runs that are killed, torn, changed and gone wrong, with a small model."""

import csv
import errno
import functools
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.models import make_checkpoint, make_tokenizer, make_tokens
from helpers.watching import Enough, line

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.folders import locked
from inheritune_lit.checkpoint.folder import RECEIPT, WEIGHTS
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.checkpoint.receipt import check_files, read_receipt
from inheritune_lit.checkpoint.weights import Unreadable, Weights
from inheritune_lit.data import PackedTokens
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.data.order import GlobalOrder, Windows
from inheritune_lit.pretrain import Options, Progress, finish, launch, patched_litgpt, record, resume, train
from inheritune_lit.pretrain.command import summary
from inheritune_lit.pretrain.devices import plan_here
from inheritune_lit.pretrain.finish import speed
from inheritune_lit.pretrain.launch import windows_of
from inheritune_lit.pretrain.retention import stays, tidy
from inheritune_lit.recipes.recipe import Recipe
from inheritune_lit.runs.folder import read_run

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
    waited, seen = [p for p in seen if p.loss is None], [p for p in seen if p.loss is not None]
    before = list(dict.fromkeys(waiting.doing for waiting in waited if waiting.step == 0))
    assert before == ["loading", "validating", "first step"]
    assert (waited[0].seconds_left, waited[0].steps) == (None, STEPS)
    left = [waiting.seconds_left for waiting in waited if waiting.doing == "first step"]
    assert (left[0], left[-1] is not None) == (None, True), "PackedTokens says when a micro-batch is through"
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
    with pytest.raises(
        InheritError, match=r"another recipe, start, data or teacher:\n  train.min_lr: 0.0001 before, 0.001 now"
    ):
        train({**recipe, "train": {**recipe["train"], "min_lr": 1e-3}}, run)
    with pytest.raises(InheritError, match=r"\n  start: [0-9a-f]{16}… before, random now"):
        train({**recipe, "initial_checkpoint_dir": None}, run)

    receipt = train(recipe, run)
    printed = capsys.readouterr().out
    assert f"{run}/step-00000016 is not usable, and is {run}/.torn-step-00000016 now" in printed
    assert "Resuming after step 8 of 24" in printed
    assert (run / ".torn-step-00000016/lit_model.pth").stat().st_size > 0, "set aside, not deleted"
    assert same_weights(whole / "model", run / "model")
    assert not same_weights(whole / "step-00000016", run / "model"), "another step is another model"
    ours, theirs = read_run(run).curves["training"], read_run(whole).curves["training"]
    assert ours == theirs[8:]
    assert [launch["from_step"] for launch in receipt["launches"]] == [0, 8]


def test_another_micro_batch_on_resume(recipe: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    """Two micro-batches a step become four after step 16: the same batches, and rates as litGPT has them with four."""
    run = interrupted(whole, tmp_path / "run", 16)
    train({**recipe, "train": {**recipe["train"], "micro_batch_size": 1}}, run)
    rates, expected = learning_rates(run), learning_rates(whole)
    of_a_step = max(abs(a - b) for a, b in itertools.pairwise(expected.values()))
    assert rates == {t: pytest.approx(rate, abs=of_a_step) for t, rate in expected.items() if t > 16 * BATCH * LENGTH}
    ours, theirs = (torch.load(r / "final" / WEIGHTS, weights_only=True) for r in (run, whole))
    assert ours["train_dataloader"] == theirs["train_dataloader"]
    assert (ours["iter_num"], theirs["iter_num"], ours["step_count"]) == (4 * STEPS, 2 * STEPS, STEPS)
    curves = [read_run(r).curves["training"] for r in (run, whole)]
    assert curves[0] == [(s, t, pytest.approx(loss, abs=0.02)) for s, t, loss in curves[1][16:]]
    for name, tensor in theirs["model"].items():
        torch.testing.assert_close(ours["model"][name], tensor, rtol=0, atol=5e-3)
    assert not same_weights(run / "model", whole / "model"), "sums of another order: close, not equal"


# Python runs it at its start; the training waits after what it is killed at, or it could end before on a busy machine
WAITING = """
import builtins, os, time
real = builtins.print
def waiting(*values, **options):
    real(*values, **options)
    if os.environ["WAIT_AFTER"] in " ".join(map(str, values)):
        time.sleep(600)
if "WAIT_AFTER" in os.environ:
    builtins.print = waiting
"""


def test_killed_nine_and_given_again(recipe: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    """kill -9 of the command in a step, then as a checkpoint is being saved; then it is left alone."""
    path, run = tmp_path / "recipe.yaml", tmp_path / "run"
    data = {**recipe["data"], "init_args": recipe["data"]["init_args"] | {"num_workers": 1}}
    path.write_text(yaml.dump(recipe | {"out_dir": str(run), "data": data}))
    command = [sys.executable, "-m", "inheritune_lit", "pretrain", str(path), "--keep_last", "1", "--keep_every", "16"]
    (tmp_path / "sitecustomize.py").write_text(WAITING)
    places = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    for text in ("step 12 |", "Saving checkpoint"):
        said = (run / "pretrain.log").stat().st_size if run.exists() else 0
        environment = os.environ | {"PYTHONPATH": places, "WAIT_AFTER": text}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, env=environment, **quiet) as process:
            wait_for(run / "pretrain.log", text, said, process)
            process.kill()
    receipt = train(yaml.safe_load(path.read_text()), run, options=Options(keep_last=1, keep_every=16))
    assert "3 launches" in summary(run, receipt)
    assert "tokens/s on" in summary(run, receipt)
    assert same_weights(whole / "model", run / "model")
    assert read_run(run).receipt == receipt
    assert len(receipt["launches"]) == 3
    assert 8 <= receipt["launches"][1]["from_step"] <= receipt["launches"][2]["from_step"]
    assert [folder.name for folder in sorted(run.glob("step-*"))] == ["step-00000016", "step-00000024"]
    assert same_weights(run / "weights/00000016", whole / "step-00000016")
    curve = read_run(run).curves["training"]
    assert curve == [(s, t, pytest.approx(loss, abs=1e-3)) for s, t, loss in read_run(whole).curves["training"]]


def wait_for(log: Path, text: str, after: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 240
    while not (log.exists() and text in log.read_text()[after:]):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_saves_at_the_end_of_the_step_when_asked_to_stop(recipe: dict[str, Any], tmp_path: Path) -> None:
    long = {**recipe, "train": recipe["train"] | {"max_tokens": 2000 * BATCH * LENGTH, "save_interval": 1000}}
    long["data"] = {**recipe["data"], "init_args": recipe["data"]["init_args"] | {"epochs": 700, "num_workers": 2}}

    def stop(progress: Progress) -> None:
        if progress.loss is not None:
            raise Enough

    with pytest.raises(Enough):
        train(long, tmp_path / "run", on_progress=stop, options=Options(save_on_signal=True, grace=120))
    (saved,) = (tmp_path / "run").glob("step-*")
    step = int(saved.name[5:])
    assert 1 <= step < 1000
    checkpoint = resume.check(saved / WEIGHTS, Recipe.of(recipe).config, recipe["train"])
    assert (checkpoint.step, checkpoint.iteration, checkpoint.accumulation) == (step, 2 * step, 2)


def stand_in(*printed: str, code: int = 1, first: str = "true", restart: bool = False) -> Options:
    """A training that only prints, in the place of Python's, and fails."""
    lines = "; ".join(f"echo {shlex.quote(text)}" for text in printed)
    launcher = shlex.join(["bash", "-c", f"{first}; {lines}; exit {code}", "litgpt"])
    return Options(launcher=launcher, restart=restart)


def test_gradients_that_are_not_finite_are_named(recipe: dict[str, Any], tmp_path: Path) -> None:
    """On one device litGPT ends by itself, before it prints the loss: Fabric refuses to clip."""
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.tensor([torch.nan])
    with pytest.raises(RuntimeError) as info:
        torch.nn.utils.clip_grad_norm_([weight], 1.0, error_if_nonfinite=True)
    windows = ", ".join(map(str, windows_of(plan_here(recipe), 3, 3)))
    message = rf"The gradients are not finite at step 3\. The run was stopped\. Step 3 used the windows {windows} of"
    with pytest.raises(InheritError, match=message):
        train(recipe, tmp_path / "run", options=stand_in(line(1, 5.0), line(2, 5.0), str(info.value)))


def test_a_jump_of_the_loss_stops_the_run(recipe: dict[str, Any], tmp_path: Path) -> None:
    lines = [line(step, 3.0) for step in range(1, 12)]
    with pytest.raises(InheritError, match=r"The loss jumped to 7.000 at step 12, 4.000 above .*\. Step 12 used"):
        train(recipe, tmp_path / "run", options=stand_in(*lines, line(12, 7.0), "never read"))
    with pytest.raises(
        InheritError, match=r"failed with exit code 1\. .*pretrain.log ends with:\n.*(?s:.*)Out of luck"
    ):
        train(recipe, tmp_path / "run", options=stand_in("Out of luck"))
    killed = Options(launcher="bash -c 'kill -9 $$' litgpt")
    with pytest.raises(
        InheritError, match=r"killed by SIGKILL\. Was the memory full.*The same command starts from scratch"
    ):
        train(recipe, tmp_path / "run", options=killed)
    with pytest.raises(InheritError, match="failed with exit code 1"):  # another recipe, as it begins anew
        train(recipe | {"seed": 1}, tmp_path / "run", options=stand_in("Out of luck", restart=True))
    assert "jumped" not in (tmp_path / "run/pretrain.log").read_text()
    assert "step 12" in (tmp_path / "run/.before-1/pretrain.log").read_text()
    assert len(read_run(tmp_path / "run").receipt["launches"]) == 1


def test_a_folder_has_one_launch(recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "run_lock", functools.partial(launch.run_lock, wait=0.3))
    with locked(tmp_path / "run"), pytest.raises(InheritError, match="run is in use: another launch"):
        train(recipe, tmp_path / "run")
    (tmp_path / "run/thesis.txt").write_text("mine")
    with pytest.raises(InheritError, match="holds something that `inheritune pretrain` did not write"):
        train(recipe, tmp_path / "run")
    assert (tmp_path / "run/thesis.txt").read_text() == "mine"


def test_a_launch_that_ended_before_its_record_is_no_obstacle(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    (run / ".before-1").mkdir(parents=True)  # of --restart

    def no_room(path: Path, content: Any) -> None:
        path.with_name(f".{path.name}").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record, "write_json_whole", no_room)
    with pytest.raises(OSError, match="No space left"):
        train(recipe, run)
    monkeypatch.undo()
    with pytest.raises(InheritError, match="failed with exit code 1"):
        train(recipe, run, options=stand_in("Out of luck"))
    assert (run / "recipe.yaml").is_file()
    (run / "launch.json").unlink()
    with pytest.raises(InheritError, match="did not write"):
        train(recipe, run)  # a recipe alone may be the user's


def test_other_software_is_said_and_recorded(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        with pytest.raises(InheritError, match="failed with exit code 1"):
            train(recipe, tmp_path / "run", options=stand_in("Out of luck"))
    assert "other software" not in capsys.readouterr().out
    path = tmp_path / "run/launch.json"
    content = json.loads(path.read_text())
    content["launches"][-1]["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(content))
    with pytest.raises(InheritError, match="failed with exit code 1"):
        train(recipe, tmp_path / "run", options=stand_in("Out of luck"))
    assert 'other software than the launch before: torch: "1.0" before, "' in capsys.readouterr().out
    launches = read_run(tmp_path / "run").receipt["launches"]
    assert [launch["versions"]["torch"] == "1.0" for launch in launches] == [False, True, False]
    assert {"git", "gpus"} <= launches[-1].keys()


def test_what_is_set_aside_has_a_place_of_its_own(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "recipe.yaml").write_text(f"{number}")
        record.set_aside(tmp_path)
    shutil.rmtree(tmp_path / ".before-1")
    (tmp_path / "recipe.yaml").write_text("3")
    record.set_aside(tmp_path)
    assert {f.name: (f / "recipe.yaml").read_text() for f in tmp_path.iterdir()} == {".before-2": "2", ".before-3": "3"}


def test_what_to_give_again_does_not_begin_anew(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["inheritune", "pretrain", "r.yaml", "--restart", "true", "--devices", "1"])
    with pytest.raises(InheritError, match=r" pretrain r\.yaml --devices 1$"):
        train(recipe, tmp_path / "run", options=stand_in("Out of luck", restart=True))


def test_what_to_give_again_goes_on_after_what_is_whole(recipe: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    run = interrupted(whole, tmp_path / "run", 16)
    torn = f"mkdir {run}/step-00000024; echo half > {run}/step-00000024/lit_model.pth"
    with pytest.raises(InheritError, match="failed with exit code 1.*(?s:.*)resumes after step-00000016"):
        train(recipe, run, options=stand_in("Out of luck", first=torn))
    stopped = stand_in(f"{patched_litgpt.SAVED}: {run}/step-00000016/lit_model.pth", code=143)
    with pytest.raises(InheritError, match="stopped by a signal, and has saved. The same command resumes after step-"):
        train(recipe, run, options=stopped)


def test_a_launcher_that_is_not_there(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InheritError, match=r"Can't start no-such-srun .*Is --launcher right\?"):
        train(recipe, tmp_path / "run", options=Options(launcher="no-such-srun"))


def test_a_damaged_record_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InheritError, match="failed with exit code 1"):
        train(recipe, tmp_path / "run", options=stand_in("Out of luck"))
    path = tmp_path / "run/launch.json"
    good = path.read_text()
    for key in ("recipe", "start", "data", "launches", "fingerprint", "manifest_sha256"):
        path.write_text(good.replace(f'"{key}":', '"kez":'))
        with pytest.raises(InheritError, match=r"launch\.json is damaged: expected the recipe"):
            train(recipe, tmp_path / "run")


class Rank:
    """What Stoppable asks of Fabric, on one device."""

    world_size = 1

    def print(self, *_: object, **__: object) -> None: ...

    def barrier(self) -> None: ...


@pytest.mark.parametrize(("begun_at", "done", "saved"), [(0, 0, False), (6, 6, False), (0, 6, True), (6, 8, True)])
def test_a_signal_before_the_first_step_saves_nothing(
    begun_at: int, done: int, saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """step-00000000 is no checkpoint that a run can go on from, and a resumed one is there already."""
    paths: list[Path] = []
    monkeypatch.setattr("litgpt.pretrain.save_checkpoint", lambda fabric, state, tokenizer, path: paths.append(path))
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    state = {"iter_num": begun_at, "step_count": begun_at // 2}
    loaders = {f"{split}_dataloader": torch.utils.data.DataLoader(range(20)) for split in ("train", "val")}
    rest: dict[str, Any] = {"state": state, "fabric": Rank(), "out_dir": tmp_path, "tokenizer_dir": None}
    loader = patched_litgpt.Stoppable(loaders | rest, iterations=2)
    if begun_at == done:
        loader._ask(signal.SIGTERM, None)

    def fit() -> None:
        for _ in loader:
            state.update(iter_num=state["iter_num"] + 1, step_count=(state["iter_num"] + 1) // 2)
            if state["iter_num"] == done:
                loader._ask(signal.SIGTERM, None)
            assert state["iter_num"] <= done, "it went on"

    with pytest.raises(SystemExit) as ended:
        fit()
    assert ended.value.code == 143
    assert paths == [tmp_path / f"step-{done // 2:08d}" / "lit_model.pth"] * saved


def test_what_makes_a_checkpoint_unusable(recipe: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    config, path = Recipe.of(recipe).config, tmp_path / "step-00000016/lit_model.pth"
    path.parent.mkdir()
    good = torch.load(whole / "step-00000016/lit_model.pth", weights_only=True)

    def refused(match: str, **changes: Any) -> None:
        torch.save(good | changes, path)
        with pytest.raises(InheritError, match=match):
            resume.check(path, config, recipe["train"])

    torch.save(good, path)
    assert resume.check(path, config, recipe["train"]).step == 16
    name = "lm_head.weight"
    refused("lm_head.weight.* of .* holds .* NaN", model=good["model"] | {name: good["model"][name] * torch.nan})
    refused("lm_head.weight has shape", model=good["model"] | {name: good["model"][name][:-1]})
    refused("lm_head.weight is missing", model={k: v for k, v in good["model"].items() if k != name})
    refused("loader is at sample 60, its step 16 of 4 ends at 64", train_dataloader={"consumed": 60})
    refused("iter_num is 32.0, step_count is None, expected a whole", iter_num=32.0, step_count=None)
    refused(r"its loader is \[1\], expected a whole", train_dataloader=[1])
    refused("33 micro-iterations do not make 16 whole steps", iter_num=33)
    refused("it is of step 8, and its folder is named step-00000016", step_count=8, train_dataloader={"consumed": 32})
    state = {i: entry | {"exp_avg": entry["exp_avg"] * torch.inf} for i, entry in good["optimizer"]["state"].items()}
    refused("exp_avg.* holds .* NaN or infinite", optimizer=good["optimizer"] | {"state": state})
    content = bytearray((whole / "step-00000016/lit_model.pth").read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InheritError, match="CRC-32"):
        resume.check(path, config, recipe["train"])


def test_the_newest_that_verifies(
    recipe: dict[str, Any], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = Recipe.of(recipe).config, interrupted(whole, tmp_path / "run", 16)

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
    with pytest.raises(InheritError, match=r"none that it can resume from:\n.*17 micro-iterations do not make 8"):
        newest()
    assert (run / "step-00000008").is_dir(), "whole ones are not given up by themselves"
    os.truncate(run / "step-00000008" / WEIGHTS, 1000)
    (run / "step-00000004").mkdir()  # killed before its first byte
    assert newest() is None
    assert sorted(f.name for f in run.glob(".torn-*")) == [f".torn-step-{step:08d}" for step in (4, 8, 16)]


@pytest.mark.parametrize("call", ["_EndRecData", "_RealGetContents", "testzip"])
def test_a_disk_that_fails_is_no_torn_checkpoint(
    call: str, recipe: dict[str, Any], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    run = interrupted(whole, tmp_path / "run", 16)
    monkeypatch.setattr(zipfile if call == "_EndRecData" else zipfile.ZipFile, call, stale)
    with pytest.raises(Unreadable, match=r"Can't read .*step-00000016/lit_model.pth: Stale file handle"):
        resume.newest(run, Recipe.of(recipe).config, recipe["train"], STEPS)
    assert not list(run.glob(".torn-*"))


def test_no_room_for_converted_counters(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(content: object, path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0")

    monkeypatch.setattr(torch, "save", no_room)
    path = whole / "step-00000016/lit_model.pth"
    with pytest.raises(InheritError, match=r"Can't write .*\(PytorchStreamWriter failed.*[GM]iB until the next"):
        resume.convert(resume.Checkpoint(path, 32, 16, 2), 4, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_model_of_a_final_checkpoint_that_a_kill_left_half(
    recipe: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    """litGPT writes model_config.yaml and copies the tokenizer after the weights."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "model")
    for name in ("run.json", "final/model_config.yaml"):
        (run / name).unlink()
    for name in ("tokenizer.json", "config.json"):
        os.truncate(run / "final" / name, 10)
    train(recipe, run)
    assert {f.name for f in (run / "model").iterdir()} == {f.name for f in (whole / "model").iterdir()}
    for name in ("tokenizer.json", "config.json", "tokenizer_config.json"):
        assert (run / "model" / name).read_text() == (whole / "final" / name).read_text()
    assert (run / "model/model_config.yaml").read_text() == (whole / "final/model_config.yaml").read_text()
    (run / "final/tokenizer.json").unlink()
    gone = recipe | {"tokenizer_dir": str(tmp_path / "gone")}
    with pytest.raises(InheritError, match=r"No tokenizer for the model of .*final: expected tokenizer.json .*/gone"):
        finish.bare_model(run / "final", tmp_path / "model", Recipe.of(recipe).config, gone, {})
    assert not (tmp_path / "model").exists()


def test_which_checkpoints_stay(
    recipe: dict[str, Any],
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert stays([100, 200, 300, 400, 500], 2, 300) == {300, 400, 500}
    assert stays([100, 200], 1, None) == {200}
    run = interrupted(whole, tmp_path / "run", 24)
    config = Recipe.of(recipe).config

    def copy(saved: Path, out_dir: Path) -> None:
        finish.bare_model(saved, out_dir, config, recipe, {})

    def full(saved: Path, out_dir: Path) -> None:
        raise OSError(errno.ENOSPC, f"No space left on device: {out_dir}")

    def busy(folder: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(errno.ENOTEMPTY, "Directory not empty")

    def whole_one(folder: Path) -> None: ...

    def torn(folder: Path) -> None:
        raise InheritError("torn")

    (run / "step-mine").mkdir()
    (run / ".removed-step-00000004").mkdir()
    tidy(run, 1, None, torn, copy)
    assert not (run / ".removed-step-00000004").exists(), "what a killed launch left"
    (run / "step-mine").rmdir()
    assert "All checkpoints stay for now: torn" in capsys.readouterr().out
    assert len(list(run.glob("step-*"))) == 3
    tidy(run, 1, 8, whole_one, copy)
    assert len(list(run.glob("step-*"))) == len(list(run.glob("weights/*"))) == 3
    shutil.rmtree(run / "weights")
    tidy(run, 2, None, lambda folder: torn(folder) if folder.name == "step-00000016" else None, copy)
    assert len(list(run.glob("step-*"))) == 3, "two whole ones have to stay"
    capsys.readouterr()
    tidy(run, 2, None, whole_one, full)
    assert capsys.readouterr().out.count("No space left on device") == 2
    assert len(list(run.glob("step-*"))) == 2, "what need not stay made room"
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", busy)
        tidy(run, 1, None, whole_one, copy)
    assert "step-00000016 stays for now: [Errno 39] Directory not empty" in capsys.readouterr().out
    tidy(run, 1, None, whole_one, copy)
    assert not list(run.glob(".removed-*"))
    assert [folder.name for folder in run.glob("*-*")] == ["step-00000024"]
    assert same_weights(run / "weights/00000024", whole / "step-00000024")
    assert [folder.name for folder in run.glob("weights/*")] == ["00000024"]


def test_windows_of_a_step_are_those_that_the_loader_reads(recipe: dict[str, Any]) -> None:
    windows = Windows(Manifest(Path(recipe["data"]["init_args"]["data_path"])), "train", LENGTH)
    order = list(GlobalOrder(windows, seed=42, epochs=8, batch_size=1))
    plan = plan_here(recipe)
    assert windows_of(plan, 3, 4) == order[2 * BATCH : 4 * BATCH]
    assert windows_of(plan, 1, STEPS) == order


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
    plan = plan_here(recipe)
    assert speed(plan, 10, 2.0, []) == {"tokens_per_second": 10 * BATCH * LENGTH / 2, "mfu": None}
    fast = speed(plan, 10, 1e-6, ["NVIDIA H100 80GB HBM3"])
    parameters = 2 * (4 * 32 * 32 + 3 * 32 * 48) + 32 * 64  # of the matrices, without the embedding
    attention = 2 * 2 * LENGTH * 32 * LENGTH  # 2 blocks, 2 products, over all pairs of positions
    flops = 3 * 2 * (parameters * LENGTH + attention) * 10 * BATCH / 1e-6  # three passes, two FLOPs a product
    assert fast["mfu"] == pytest.approx(flops / 989.4e12, rel=1e-3)
    assert speed(plan, 0, 0.0, []) == {"tokens_per_second": None, "mfu": None}
