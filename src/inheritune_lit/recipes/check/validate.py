"""All that can be known of a `litgpt pretrain` recipe without a GPU, at once."""

from collections.abc import Sequence
from pathlib import Path

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.yaml_document import Document, read_document
from inheritune_lit.recipes.check.findings import Finding, warning

# A setting that only the recipes of another command have
OTHERS = {"recipe": "grow", "source_dir": "surgery", "input_dir": "prepare"}


def validate_file(path: Path, devices: int | None = None, nodes: int | None = None) -> tuple[list[Finding], Document]:
    """Every finding on a recipe, and the recipe as it stands in its file.

    Raises:
        InheritError: the file can't be read as YAML, or is a recipe of another command.
    """
    document = read_document(path)
    for key, command in OTHERS.items():
        if document.states(key) and not document.states("train"):
            raise InheritError(
                f"{path} is no recipe of `litgpt pretrain`, but of `inheritune {command}`, which checks it itself: "
                f"`inheritune {command} --config {path} --dry_run`."
            )
    return check_machine(document, check_document(document, devices, nodes)), document


def check_document(document: Document, devices: int | None = None, nodes: int | None = None) -> list[Finding]:
    """All that can be known without importing litGPT."""
    from inheritune_lit.recipes.check.folders import check_folders
    from inheritune_lit.recipes.check.keys import check_keys
    from inheritune_lit.recipes.check.model import check_model
    from inheritune_lit.recipes.check.training import check_training
    from inheritune_lit.recipes.recipe import Recipe

    recipe = Recipe(document)
    return [
        *check_keys(document),
        *check_model(recipe),
        *check_training(recipe, devices, nodes),
        *check_folders(recipe),
    ]


def check_machine(document: Document, findings: Sequence[Finding]) -> list[Finding]:
    """The findings, and a warning if this machine's CPU is slow with the recipe's precision.

    Folders that are missing show that the recipe is to run elsewhere. Timing takes PyTorch: done only if it counts.
    """
    precision = str(document.get("precision"))
    if not precision.startswith("bf16-") or any(finding.elsewhere for finding in findings):
        return list(findings)
    from inheritune_lit.base.precision import slowdown

    if (slower := slowdown()) is None or slower < 1.5:
        return list(findings)
    text = (
        "This machine has no GPU, and its CPU is slow with bfloat16: a product, with its gradients, takes "
        f"{slower:.2g} times as long as in float32, and so would about the whole run."
    )
    # that bf16-true should be bf16-mixed would be no help here
    others = [finding for finding in findings if (finding.key, finding.severity) != ("precision", "warning")]
    return [*others, warning("precision", text, "To run it here, write precision: 32-true.")]
