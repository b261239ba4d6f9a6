"""A recipe that another lab can trust: `inheritune lock`, `inheritune recipes ship`, `inheritune reproduce`.

Importing this module imports neither torch nor litGPT.
"""

import sys
from pathlib import Path

from inheritune_lit import recipes


def lock(
    runs: list[Path],
    *,
    recipe: Path | None = None,
    reference: str | None = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write NAME.lock.yaml beside a recipe: what a run of it was made from, exactly, and how it went.

    `inheritune reproduce` compares another lab's run with it, layer by layer; `inheritune recipes ship` sends both.

    Args:
        runs: The run that is locked, a folder of `inheritune pretrain`, finished or not, with its data at hand; then
            more runs of the recipe. Those with the same seeds say how far computing otherwise (precision, compiling,
            ranks, micro-batch, device) moves the first losses; those with other seeds, how far luck moves the whole
            run's.
        recipe: The recipe's file, whose settings must be the run's; by default the frozen one in its folder.
        reference: Where another lab finds the reference: ORG/NAME[@REVISION] on the Hugging Face hub; demo and
            growth-demo are those that the demos fetch. By default what the recipe's model_config names.
        licence: The reference's, by the hub's identifiers.
        overwrite: Replace a lock that is there.
    """
    from inheritune_lit.reproduce.locking import write_lock

    write_lock(runs[0], runs[1:], recipe, reference, licence, overwrite=overwrite)


def ship(name: str, *, out_dir: Path, overwrite: bool = False) -> None:
    """Writes a recipe and its lock as a folder, or a .zip, with all that another lab needs to check it; no weights.

    The folder has the recipes of surgery, prepare and pretrain, the suites, scores and curve, and a README.md with the
    commands. Nothing in it names a path of this machine.

    Args:
        name: A shipped recipe's name, or a recipe's file, with its lock beside it.
        out_dir: The folder to write, or the file, if its name ends in .zip.
        overwrite: Replace OUT_DIR if it exists.
    """
    from inheritune_lit.recipes.listing import shipped
    from inheritune_lit.reproduce.bundle import ship

    ship(Path(name) if name.endswith((".yaml", ".yml")) else shipped() / f"{name}.yaml", out_dir, overwrite)
    print(f"Wrote {out_dir}")


def reproduce(
    recipe: str,
    *,
    work_dir: Path | None = None,
    reference: Path | None = None,
    text: Path | None = None,
    smoke: bool = True,
    full: bool = False,
    fetch: bool = False,
    micro_batch_size: int | None = None,
) -> None:
    """Is a run of this recipe, made here, the run that was locked? And if not, where did it leave the path?

    Stage by stage: the reference's fingerprint, the start that surgery makes of it, the shards, the first batches; then
    the losses of the first 30 steps, trained here. Each stage is a command that is printed, and is skipped when it is
    done. WORK_DIR/verdict.json and the run's report have the verdict. The exit code is 0 for the same run, 1 for
    another, 2 if it could not be told.

    Args:
        recipe: A folder or a .zip that `inheritune recipes ship` wrote, or a shipped recipe's name.
        work_dir: Where everything is made; by default reproduced/NAME.
        reference: The reference's folder; by default WORK_DIR/reference.
        text: The text's; by default WORK_DIR/text.
        smoke: Train the first steps. With --no-smoke, only what can be compared without training is.
        full: Train all of it, with `inheritune pretrain`, and compare validation losses and scores too.
        fetch: Fetch a reference that is not here. Without it, what to fetch is said.
        micro_batch_size: Windows that a device takes at a time, if the recipe's do not fit.
    """
    from inheritune_lit.reproduce.compare import CODES
    from inheritune_lit.reproduce.stages import Lab

    lab = Lab.open(recipe, work_dir, reference, text, micro_batch_size)
    verdict = lab.run(fetch=fetch, smoke=smoke or full, full=full)
    print(f"\n{verdict}")
    sys.exit(CODES[verdict.result])


RECIPES = {**recipes.COMMANDS, "ship": ship}
