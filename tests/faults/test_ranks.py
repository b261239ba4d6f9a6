"""Two ranks under FSDP, on the CPU as in tests/helpers/fsdp: stopped by a scheduler, gone on with elsewhere."""

from pathlib import Path

import pytest
import yaml
from helpers.faults import Fault
from helpers.two_ranks import BATCH, CLOSE, LENGTH, ON_CPU, difference, write_recipe
from helpers.watching import Enough

from inheritune_lit.pretrain import Options, Progress, train
from inheritune_lit.runs.folder import read_run


@pytest.mark.faults_long
def test_saved_at_a_signal_on_two_ranks_and_ended_on_one_device(tmp_path: Path, fault: Fault) -> None:
    recipe = yaml.safe_load(write_recipe(tmp_path, "llama").read_text())
    recipe["train"] |= {"max_tokens": 100 * BATCH * LENGTH, "save_interval": 1000}
    recipe["data"]["init_args"]["epochs"] = 22
    as_two = recipe["train"] | {"micro_batch_size": 2}  # two micro-batches a step: the same learning rates
    train(recipe | {"devices": 1, "train": as_two}, tmp_path / "alone")

    def stop(progress: Progress) -> None:
        if progress.loss is not None:
            raise Enough

    run = tmp_path / "run"
    with pytest.raises(Enough):
        train(recipe | {"devices": 2}, run, environment=ON_CPU, on_progress=stop, options=Options(save_on_signal=True))
    (saved,) = run.glob("step-*")
    with fault(saved):
        train(recipe | {"devices": 1, "train": as_two}, run)
    assert read_run(run).ranks == (1, 2)
    assert difference(tmp_path / "alone", run) <= CLOSE
