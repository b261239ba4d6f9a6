"""A run's folder, read: curves joined across resumes, out of litGPT's logs as they are."""

import shutil
from pathlib import Path

import pytest
import yaml

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import write_json
from inheritune_lit.runs.folder import read_run, share_of_training

HEADER = "iter,loss,step,total_tokens,val_loss\n"
RECIPE = {"train": {"max_tokens": 6 * 64, "global_batch_size": 4, "max_seq_length": 16, "micro_batch_size": 2}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(yaml.dump(RECIPE))
    write_json(tmp_path / "launch.json", {"kind": "launch", "validation_loss_untrained": 6.5})
    return tmp_path


def log(run: Path, version: int, *rows: str) -> None:
    """iter, loss, step, total_tokens, val_loss: two micro-iterations a step, numbered from 0 in the column `step`"""
    folder = run / f"logs/csv/version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(HEADER + "\n".join(rows))


def test_curves_are_joined_across_resumes(run: Path) -> None:
    log(run, 0, "2,5.0,1,64,", "4,4.5,3,128,", ",,3,,4.75", "6,4.0,5,192,", "8,3.9,7,2")  # killed in its last row
    # version 10 comes after 9; it went on after step 2
    log(run, 10, "10,3.0,9,320,", "12,2.5,11,384,", ",,12,,2.25", "")
    log(run, 9, "6,4.1,5,192,", "8,3.5,7,256,", "10,9.9,9,320,", "")
    shutil.copytree(run / "logs/csv/version_9", run / "logs/csv/version_9_backup")  # the user's: not looked at
    curves = read_run(run).curves
    training = [(1, 5.0), (2, 4.5), (3, 4.1), (4, 3.5), (5, 3.0), (6, 2.5)]
    assert curves["training"] == [(step, step * 64, loss) for step, loss in training]
    # the last validation's row is numbered by the number of iterations, the others by that of the last one
    assert curves["validation"] == [(0, 0, 6.5), (2, 128, 4.75), (6, 384, 2.25)]
    assert read_run(run).name == run.name
    assert not read_run(run).finished


def test_which_part_of_a_batch_its_training_loss_is_of(run: Path) -> None:
    launches = [(0, 8, 1), (8, 16, 4), (16, 16, 2), (16, 24, 4)]  # the third made no step
    made = [dict(zip(("from_step", "to_step", "world_size"), launch, strict=True)) for launch in launches]
    write_json(run / "launch.json", {"kind": "launch", "launches": [*made, {"from_step": 24}, "damaged"]})
    assert read_run(run).ranks == (1, 4)
    assert share_of_training((1, 4)) == "of all or 1/4 of each batch"
    assert share_of_training((2,)) == "of 1/2 of each batch"
    assert share_of_training((1,)) == share_of_training(()) == ""


def test_what_no_csv_has_is_taken_from_what_litgpt_printed(run: Path) -> None:
    (run / "pretrain.log").write_text(
        "Epoch 1 | iter 2 step 1 | loss train: 5.001, val: n/a | iter time: 1.00 ms (step) remaining time: 0:00:00\n"
        "iter 2: val loss 4.9000, val time: 1.00 ms\n"
        "Epoch 1 | iter 4 step 2 | loss train: 4.501, val: 4.900 | iter time: 1.00 ms (step) remaining time: 0:00:00\n"
        "Final evaluation | val loss: 4.200 | val ppl: 66.7\n"
    )
    log(run, 0, "4,4.5012,3,128,", "")
    assert read_run(run).curves == {
        "training": [(1, 64, 5.001), (2, 128, 4.5012)],
        "validation": [(0, 0, 6.5), (1, 64, 4.9), (2, 128, 4.2)],
    }


def test_a_validation_between_logged_steps_is_not_there_twice(run: Path) -> None:
    """With log_interval 2, litGPT prints that of step 3 after step 2; its CSV says 3."""
    (run / "pretrain.log").write_text(
        "Epoch 1 | iter 4 step 2 | loss train: 4.5, val: n/a |\niter 5: val loss 4.2, val time: 1 ms\n"
        "Epoch 1 | iter 8 step 4 | loss train: 4.0, val: 4.2 |\n"
    )
    alone = read_run(run).curves["validation"]
    assert [step for step, _, _ in alone] == [0, 2]
    log(run, 0, "4,4.5,3,128,", ",,5,,4.25", "8,4.0,7,256,", "")
    assert read_run(run).curves["validation"] == [(0, 0, 6.5), (3, 192, 4.25)]


def test_what_is_no_run(tmp_path: Path, run: Path) -> None:
    log(run, 0, "2,much,1,64,", "")
    with pytest.raises(InheritError, match=r"Can't read the loss curves from .*metrics.csv"):
        read_run(run).curves  # noqa: B018
    with pytest.raises(InheritError, match=r"nowhere is no run: can't read .*recipe.yaml"):
        read_run(tmp_path / "nowhere")
    for unreadable in (f"seed: {'1' * 5000}\n", "[" * 5000):
        (run / "recipe.yaml").write_text(unreadable)
        with pytest.raises(InheritError, match=r"is no run: can't read .*recipe.yaml"):
            read_run(run)
    (run / "recipe.yaml").write_text("- a\n")
    with pytest.raises(InheritError, match="is no recipe: expected litGPT.s settings, with train.max_tokens"):
        read_run(run)


def test_results_lie_beside_a_runs_model(tmp_path: Path) -> None:
    from inheritune_lit.runs.folder import results_dir

    for folder in (tmp_path / "run/model", tmp_path / "other/model"):
        folder.mkdir(parents=True)
    (tmp_path / "run/recipe.yaml").touch()
    assert results_dir(tmp_path / "run", "analysis") == tmp_path / "run/analysis"
    assert results_dir(tmp_path / "run/model", "analysis") == tmp_path / "run/analysis"
    assert results_dir(tmp_path / "other/model", "analysis") == tmp_path / "other/model/analysis", "no run's"
