"""`train`: one recipe, run to its end in its folder, from where it was."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from inheritune_lit.pretrain.finish import finish
from inheritune_lit.pretrain.launch import Launch
from inheritune_lit.pretrain.options import Options
from inheritune_lit.pretrain.record import check_same, parents, read_record, run_lock, set_aside
from inheritune_lit.pretrain.settings import settings_of
from inheritune_lit.pretrain.watch import Progress
from inheritune_lit.runs.folder import RUN_RECEIPT


def train(
    recipe: Mapping[str, Any],
    run: Path,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    environment: Mapping[str, str] = {},
    recipe_file: Path | None = None,
    options: Options = Options(),  # noqa: B008  # frozen
) -> dict[str, Any]:
    """Runs `litgpt pretrain` to the recipe's end, from the newest checkpoint of the run that verifies, if it has one.

    A finished run with the same recipe and parents is returned as it is.

    Args:
        recipe: litGPT's settings; `out_dir` becomes `run`.
        run: The folder of the run, made if it is missing.
        on_progress: Called for each line that litGPT prints, and about every second in which there is none.
        environment: Variables for the training, beside this process' own.
        recipe_file: Where the recipe comes from, to record the commit of its repository.
        options: How it is run.

    Returns:
        The receipt, `run/run.json`.

    Raises:
        InheritError: the folder is in use, or is of another recipe or parents; litGPT failed, or was stopped, with what
            to do to go on; the loss went wrong.
    """
    run = Path(run)
    recipe = {**recipe, "out_dir": str(run), "resume": False}
    with run_lock(run) as lock:
        if options.restart:
            set_aside(run)
        before = read_record(run)
        now = parents(recipe, before)
        if before:
            check_same(run, before, recipe, now)
            if (run / RUN_RECEIPT).is_file():
                return before
        launch = Launch(recipe, run, settings_of(recipe), options, environment, on_progress)
        launch.prepare(before, now, recipe_file)
        checkpoint = launch.newest()
        if checkpoint is None or checkpoint.step < launch.settings.steps or checkpoint.accumulation is not None:
            launch.run_litgpt(checkpoint, lock)
        launch.tidy()
        return finish(run, recipe, launch.settings, launch.record)
