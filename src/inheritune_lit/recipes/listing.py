"""The recipes that travel with the package, and where they are. No torch, no litGPT."""

from importlib.resources import files
from pathlib import Path

LOCK = ".lock.yaml"
"""How the lock that stands beside a recipe is named, after the recipe"""


def shipped() -> Path:
    """The folder of the shipped recipes: recipes/ of a source tree, its copy in an installed package."""
    return Path(str(files("inheritune_lit.recipes") / "shipped"))


def recipes(folder: Path) -> list[Path]:
    """The `litgpt pretrain` recipes of a folder; in its other folders are those of other commands."""
    found = [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("gpt2/*.yaml"))]
    return [path for path in found if not path.name.endswith(LOCK)]


def listed() -> list[list[str]]:
    """What README.md's tables say of each recipe, a row each, below their titles."""
    lines = (shipped() / "README.md").read_text(encoding="utf-8").splitlines()
    table = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    titles = table[0]
    return [titles, *(row for row in table if row != titles)]
