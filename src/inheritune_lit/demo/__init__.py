"""`inheritune demo`: the whole way on a real small model and real text, on a laptop.

It runs the commands that a user would type, one after the other, prints each before it runs, and compares three models
of the same shape trained on the same batches: from chosen blocks of the reference, from its first ones, and from random
weights.
"""

import shutil
import textwrap
import time
from pathlib import Path

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.base.folders import locked
from inheritune_lit.base.units import gib

ROOM = 7 * 2**30  # bytes; the demo's folder ends at 5.7 GiB


def demo(out_dir: Path = Path("demo"), *, layers: str = "0-3,19-29", steps: int = 30) -> None:
    """Inheritune in small, from nothing: a real model and real text, cut, trained, compared with other starts.

    The model is SmolLM2-135M, the text Shakespeare's, with Hamlet held out. Each stage is a command that is printed
    before it runs. Given again, the demo resumes where it stopped: a command whose result is whole leaves it, and
    refuses one of other inputs or versions; delete that then. Run it where the recipes are, in the repository's root.

    Args:
        out_dir: The folder for all it writes, about 6 GiB: OUT_DIR/report and OUT_DIR/results.json in the end.
        layers: Which of the reference's 30 blocks to keep, as for `inheritune surgery`: 0-10,26-29, ::2 …; compared
            with as many of the first blocks, which the paper keeps. `inheritune choose` found the default.
        steps: Optimizer steps of each run, 2,048 tokens a step.
    """
    from inheritune_lit.demo.inputs import check_recipes
    from inheritune_lit.demo.results import RESULTS, table
    from inheritune_lit.demo.stages import DATA_RECIPE, RECIPE, STAGES, Paths

    paths = Paths(Path(out_dir), layers, steps)
    check_recipes(RECIPE, DATA_RECIPE)
    _check_room(paths.out_dir)
    began = time.perf_counter()
    with locked(paths.out_dir):
        for number, (title, work) in enumerate(STAGES.items(), start=1):
            print(f"\n[{number}/{len(STAGES)}] {title}", flush=True)
            start = time.perf_counter()
            work(paths)
            print(f"      {time.perf_counter() - start:.0f} s", flush=True)
    results = read_json(paths.out_dir / RESULTS, "results")
    print(f"\n{table(results)}\n")
    print(f"The page to look at: {paths.report / 'report.html'}")
    print(f"Curves: {paths.report / 'plots/loss_tokens.png'}; all numbers: {paths.out_dir / RESULTS}")
    print(f"All stages together took {(time.perf_counter() - began) / 60:.1f} min. Let it write:")
    print(f"  litgpt generate {paths.best / 'final'} --prompt 'To be, or not to be'")
    print("", *(textwrap.fill(sentence, 110) for sentence in results["verdicts"]), sep="\n")


def _check_room(out_dir: Path) -> None:
    place = next(folder for folder in (out_dir.absolute(), *out_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < ROOM and not (out_dir / "results.json").exists():
        raise InheritError(
            f"{out_dir} needs about {gib(ROOM)}, its disk has {gib(free)} free. Free some space, "
            "or choose a folder on another disk: inheritune demo --out_dir FOLDER."
        )
