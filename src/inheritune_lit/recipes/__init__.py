"""`inheritune recipes`: list, copy and validate recipes."""

import difflib
import shutil
import sys
from pathlib import Path

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.text_table import aligned
from inheritune_lit.base.yaml_document import read_document
from inheritune_lit.recipes.listing import LOCK, listed, recipes, shipped


def list_recipes() -> None:
    """Lists the shipped recipes: what each trains, for how long, and what of the paper it reproduces."""
    table = listed()
    print("\n".join(aligned(table, left=len(table[0]))))


def copy(name: str, out_dir: Path) -> None:
    """Copies a shipped recipe into a folder of yours, with its lock, its surgery recipe, or what a growth trains.

    Args:
        name: As `inheritune recipes list` shows it.
        out_dir: The folder; files of these names must not be in it yet.
    """
    source = shipped() / f"{name}.yaml"
    if not source.is_file():
        names = [path.relative_to(shipped()).with_suffix("").as_posix() for path in recipes(shipped())]
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`inheritune recipes list` shows them."
        raise InheritError(f"No recipe is named {name!r}. {hint}")
    files, recipe = [source, *source.parent.glob(f"{source.stem}{LOCK}")], read_document(source)
    cut = f"{Path(recipe.get('tokenizer_dir') or '').name}.yaml"  # surgery's folder, of random starts too
    if (shipped() / "surgery" / cut).is_file():
        files.append(shipped() / "surgery" / cut)
    if base := recipe.get("recipe"):  # what a growth trains
        files.append(shipped().joinpath(*Path(base).parts[1:]))
    targets = [out_dir / file.relative_to(shipped()) for file in files]
    if existing := [str(target) for target in targets if target.exists()]:
        raise InheritError(f"{' and '.join(existing)} exist already. Choose another folder, or remove them first.")
    for file, target in zip(files, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        print(target)


def validate(recipe: Path, devices: int | None = None, nodes: int | None = None) -> None:
    """Checks any `litgpt pretrain` recipe for all that can be known without a GPU, and says everything at once.

    An error is what litGPT refuses or silently does otherwise than written; it makes the exit code 1. A warning runs as
    written, but hardly as meant. A note is what can't be checked here. Where the folders that the recipe names are on
    this machine, a precision that its CPU is slow with is a warning, too.

    Args:
        recipe: The YAML file.
        devices: GPUs of a node that it will run on, if the recipe leaves it to litGPT.
        nodes: Nodes, likewise.
    """
    from inheritune_lit.recipes.check.findings import report
    from inheritune_lit.recipes.check.validate import validate_file

    findings, document = validate_file(recipe, devices, nodes)
    print(report(recipe, findings, document))
    if any(finding.severity == "error" for finding in findings):
        sys.exit(1)


COMMANDS = {"list": list_recipes, "copy": copy, "validate": validate}
