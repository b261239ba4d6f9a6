"""`inheritune demo`: the whole way on a real small model and real text, on a laptop.

It runs the commands that a user would type, one after the other, prints each before it runs, and compares two models of
the same shape trained on the same batches: one that starts from the reference's blocks, one that starts at random.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import write_json
from inheritune_lit.base.folders import locked
from inheritune_lit.base.units import gib
from inheritune_lit.demo import after
from inheritune_lit.demo.inputs import convert, fetch, write_text
from inheritune_lit.demo.stages import DATA_RECIPE, RECIPE, Paths, prepare, surgery, train

STAGES = 11
ROOM = 6 * 2**30  # bytes; the demo's folder ends at 5 GiB


def demo(out_dir: Path = Path("demo"), *, layers: str = "15", steps: int = 40) -> None:
    """Inheritune in small, from nothing: a real model and real text, cut, trained, compared with a random start.

    The model is SmolLM2-135M, the text Shakespeare's, with Hamlet held out. Each stage is a command that is printed
    before it runs. A stage whose result is whole is not done again, so that a demo that was stopped goes on where it
    was. Run it where the recipes are, in the repository's root.

    Args:
        out_dir: The folder for all it writes, about 5 GiB: OUT_DIR/results.json and OUT_DIR/loss_curves.png in the end.
        layers: Which of the reference's 30 blocks to keep, as for `inheritune surgery`: 15, 0-10,26-29, ::2 …
        steps: Optimizer steps of each of the two runs, 2,048 tokens a step.
    """
    paths = Paths(Path(out_dir), layers, steps)
    _check_place(paths.out_dir)
    stages: dict[str, dict[str, Any]] = {}

    @contextmanager
    def stage(name: str) -> Iterator[dict[str, Any]]:
        print(f"\n[{len(stages) + 1}/{STAGES}] {name}", flush=True)
        stages[name] = {"reused": False}
        start = time.perf_counter()
        yield stages[name]
        stages[name]["seconds"] = round(time.perf_counter() - start, 1)
        reused = " (was there already)" if stages[name]["reused"] else ""
        print(f"      {stages[name]['seconds']:.0f} s{reused}", flush=True)

    with locked(paths.out_dir):
        with stage("Fetch the model and the text") as done:
            done["reused"] = fetch(paths.downloads)
            write_text(paths.downloads, paths.text)
        with stage("Convert the reference to litGPT") as done:
            done["reused"] = convert(paths.downloads, paths.reference)
        with stage("Turn the text into token shards") as done:
            done["reused"] = prepare(paths)
        with stage("Cut the reference") as done:
            done["reused"] = surgery(paths)
        with stage("Train the inherited start") as done:
            done["reused"] = train(paths, inherited=True)
        with stage("Train a random start of the same shape on the same batches") as done:
            done["reused"] = train(paths, inherited=False)
        with stage("Compare on the held-out play"):
            from inheritune_lit.demo.results import compare, draw, table

            results = compare(paths)
            draw(results, paths.out_dir / "loss_curves")
        with stage("Ask the models what comes next in the held-out play"):
            after.evaluate(paths)
        with stage("Export the trained model to Hugging Face's format") as done:
            done["reused"] = after.export(paths)  # with the answers in its model card
        with stage("Which blocks are lazy, before and after?") as done:
            done["reused"] = after.analyze(paths)
        with stage("Put it all on one page"):
            page = after.report(paths)
        results["stages"] = stages
        write_json(paths.out_dir / "results.json", results)
    print(f"\n{table(results)}\n")
    print(f"The page to look at: {page}")
    print(f"Curves: {paths.out_dir / 'loss_curves.png'}; all numbers: {paths.out_dir / 'results.json'}")
    print(f"All stages together took {sum(done['seconds'] for done in stages.values()) / 60:.1f} min. Let it write:")
    print(f"  litgpt generate {paths.run(inherited=True) / 'final'} --prompt 'To be, or not to be'")


def _check_place(out_dir: Path) -> None:
    for recipe in (RECIPE, DATA_RECIPE):
        if not recipe.is_file():
            raise InheritError(
                f"No {recipe} in {Path.cwd()}: the demo runs the repository's recipes. Run it in the repository's root."
            )
    place = next(folder for folder in (out_dir.absolute(), *out_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < ROOM and not (out_dir / "results.json").exists():
        raise InheritError(
            f"{out_dir} needs about {gib(ROOM)}, its disk has {gib(free)} free. Free some space, "
            "or choose a folder on another disk: inheritune demo --out_dir FOLDER."
        )
