"""Two labs: one locks and ships a run of a small model, the other makes it again, or something else."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.models import make_checkpoint, make_tokenizer, make_tokens

from inheritune_lit.__main__ import main
from inheritune_lit.base.errors import InheritError
from inheritune_lit.pretrain import train
from inheritune_lit.reproduce import lock, ship, stages
from inheritune_lit.reproduce.compare import CODES
from inheritune_lit.reproduce.document import read_lock
from inheritune_lit.reproduce.stages import Lab
from inheritune_lit.runs.folder import read_run
from inheritune_lit.surgery.command import surgery

STEPS, BATCH, LENGTH = 34, 4, 16  # a few steps more than are compared


@dataclass(frozen=True)
class Shipped:
    """What the first lab has, and what it sends."""

    folder: Path
    package: Path
    recipe: dict[str, Any]

    @property
    def reference(self) -> Path:
        return self.folder / "reference"

    @property
    def text(self) -> Path:
        return self.folder / "made/text"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    folder = tmp_path_factory.mktemp("one")
    reference = make_tokenizer(make_checkpoint(folder / "reference", n_layer=4))
    make_tokens(folder / "made", reference, documents=30)
    surgery(reference, layers="0,3", out_dir=folder / "target")
    recipe = {
        "model_name": "small",
        "model_config": yaml.safe_load((folder / "target/model_config.yaml").read_text()) | {"name": "small"},
        "initial_checkpoint_dir": str(folder / "target"),
        "tokenizer_dir": str(folder / "target"),
        "precision": "32-true",
        "data": {
            "class_path": "inheritune_lit.data.PackedTokens",
            "init_args": {"data_path": str(folder / "made/tokens"), "epochs": 8, "num_workers": 0},
        },
        "train": {
            **{"max_tokens": STEPS * BATCH * LENGTH, "max_seq_length": LENGTH},
            **{"global_batch_size": BATCH, "micro_batch_size": 2, "lr_warmup_steps": 2, "min_lr": 1e-4},
            **{"save_interval": None, "log_interval": 1, "max_norm": 1.0},
        },
        "eval": {"interval": 10, "max_iters": 1, "initial_validation": True, "final_validation": True},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}},
        "logger_name": "csv",
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    train(recipe, folder / "run", environment={"TORCHDYNAMO_DISABLE": "1"})
    lock([folder / "run"], recipe=path, licence="apache-2.0")
    ship(str(path), out_dir=folder / "sent.zip")
    return Shipped(folder, folder / "sent.zip", recipe)


def reproduce(package: Path, work: Path, *options: object) -> "subprocess.CompletedProcess[str]":
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "inheritune_lit",
        "reproduce",
        package,
        "--work_dir",
        work,
        *options,
    ]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def test_the_lock_says_what_the_run_was(shipped: Shipped) -> None:
    content, run = read_lock(shipped.folder / "small.lock.yaml"), read_run(shipped.folder / "run")
    assert len(content["exact"]["batches"]) == len(set(content["exact"]["batches"])) == 30
    logged = {step: loss for step, _, loss in run.curves["training"]}
    noted = content["first_steps"]["losses"]
    assert [*map(int, noted)] == [1, 2, 5, 10, 20, 30]
    assert noted == pytest.approx({str(step): logged[step] for step in (1, 2, 5, 10, 20, 30)}, abs=1e-6)
    last = run.curves["validation"][-1][2]
    assert content["whole_run"]["validation"]["100"]["loss"] == pytest.approx(last, rel=1e-7)
    assert {share: of["tokens"] for share, of in content["whole_run"]["validation"].items()} == {
        "50": 10 * BATCH * LENGTH,
        "100": STEPS * BATCH * LENGTH,
    }, "no validation before a quarter of the tokens"


def test_what_is_sent_names_nothing_of_the_machine(shipped: Shipped, tmp_path: Path) -> None:
    ship(str(shipped.folder / "small.yaml"), out_dir=tmp_path / "sent")
    files = {path.name: path for path in (tmp_path / "sent").rglob("*") if path.is_file()}
    assert {"small.yaml", "small.lock.yaml", "surgery.yaml", "data.yaml", "README.md", "validation.csv"} <= files.keys()
    for path in files.values():
        content = path.read_bytes()
        for word in (str(shipped.folder), str(Path.home()) + "/", "/tmp"):
            assert word.encode() not in content, (path, word)
    assert "inheritune surgery --config surgery.yaml" in files["README.md"].read_text()


def test_another_lab_gets_the_same_run(shipped: Shipped, tmp_path: Path) -> None:
    places = ("--reference", shipped.reference, "--text", shipped.text)
    first = reproduce(shipped.package, tmp_path / "two", *places)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "small: same run" in first.stdout
    assert "inheritune surgery --config" in first.stdout
    verdict = json.loads((tmp_path / "two/smoke/verdict.json").read_text())
    losses = [row for row in verdict["rows"] if row["what"].startswith("loss at step")]
    assert len(losses) == 6
    assert all(row["got"] == pytest.approx(row["expected"], abs=1e-6) for row in losses)
    assert "same run" in (tmp_path / "two/report/report.html").read_text()
    again = reproduce(shipped.package, tmp_path / "two", *places)
    assert again.returncode == 0, again.stderr
    assert "the first 30 steps are trained" in again.stdout


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to work in, where our commands run in this process: importing torch takes longer than they do."""
    monkeypatch.setattr(stages, "inheritune", lambda *words: main([*map(str, words)]))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "two"


def test_another_reference_is_named_before_anything_is_trained(shipped: Shipped, tmp_path: Path, here: Path) -> None:
    other = make_tokenizer(make_checkpoint(tmp_path / "other", n_layer=4, seed=1))
    lab = Lab.open(str(shipped.package), here, other, shipped.text, None)
    verdict = lab.run(fetch=False, smoke=True, full=False)
    assert (verdict.result, CODES[verdict.result]) == ("differs", 1)
    assert "Another reference" in str(verdict)
    assert "What differs first: L0 exact" in str(verdict)
    assert not (here / "tokens").exists()
    assert not (here / "smoke").exists()


def test_without_the_text_all_before_it_is_compared(shipped: Shipped, here: Path) -> None:
    verdict = Lab.open(str(shipped.package), here, shipped.reference, None, None).run(
        fetch=False, smoke=True, full=False
    )
    assert (verdict.result, CODES[verdict.result]) == ("unknown", 2)
    assert "The text is not here" in str(verdict)
    rows = {row["what"]: row["result"] for row in json.loads((here / "verdict.json").read_text())["rows"]}
    assert (rows["start"], rows["reference"], rows["train"]) == ("same", "same", "unknown")


def test_without_the_reference_it_says_what_to_fetch(shipped: Shipped, tmp_path: Path) -> None:
    found = reproduce(shipped.package, tmp_path / "two")
    assert found.returncode == 2, found.stdout + found.stderr
    assert "The reference is not here" in found.stdout
    assert "licence: apache-2.0" in found.stdout


def test_another_learning_rate_is_seen_where_it_begins(shipped: Shipped, here: Path) -> None:
    """Planted in what trains, not in the recipe: as another version of litGPT could have it."""
    lab = Lab.open(str(shipped.package), here, shipped.reference, shipped.text, None)
    lab.settings["optimizer"]["init_args"]["lr"] = 4.5e-3
    verdict = lab.run(fetch=False, smoke=True, full=False)
    assert verdict.result == "differs"
    assert "loss at step 1 equal, apart from step 2 on: optimizer or learning rate" in " ".join(verdict.reasons)


def test_a_reference_elsewhere_gives_tokenizer_and_teacher_too(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    lab = Lab.open("gpt2/medium_n12_kd", tmp_path / "two", elsewhere, None, None)
    assert lab.settings["tokenizer_dir"] == lab.settings["data"]["init_args"]["teacher_dir"] == str(elsewhere)
    lab = Lab.open("openllama3b_n13", tmp_path / "three", elsewhere, None, None)
    assert lab.settings["tokenizer_dir"] == "start", "surgery's folder has it"


def test_a_recipe_that_was_changed_after_its_lock_is_refused(shipped: Shipped, tmp_path: Path) -> None:
    ship(str(shipped.folder / "small.yaml"), out_dir=tmp_path / "sent")
    path = tmp_path / "sent/small.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["train"]["lr_warmup_steps"] = 3
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(InheritError, match=r"is not what .* was made from: its train differs"):
        Lab.open(str(tmp_path / "sent"), tmp_path / "two", None, None, None)
