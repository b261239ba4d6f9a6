"""All that can be known of a `litgpt pretrain` recipe without a GPU, at once."""

from pathlib import Path

from inheritune_lit.commit import InheritError
from inheritune_lit.recipes.findings import Finding
from inheritune_lit.recipes.reading import Document, parse_recipe, read_document


def validate_file(path: Path, devices: int | None = None, nodes: int | None = None) -> tuple[list[Finding], Document]:
    """Every finding on a recipe, and the recipe as it stands in its file.

    Raises:
        InheritError: the file can't be read as YAML.
    """
    from inheritune_lit.recipes.check_folders import check_folders
    from inheritune_lit.recipes.check_keys import check_keys
    from inheritune_lit.recipes.check_model import check_model
    from inheritune_lit.recipes.check_training import check_training

    document = read_document(path)
    findings = check_keys(document)
    findings += check_model(document)
    findings += check_training(document, devices, nodes)
    findings += check_folders(document)
    if not any(finding.severity == "error" for finding in findings):  # whatever we did not think of
        findings += _refused(path)
    return findings, document


def _refused(path: Path) -> list[Finding]:
    try:
        parse_recipe(path)
    except InheritError as error:
        message = str(error).splitlines()[0]
        return [Finding("error", "recipe", message, "Change what the message names.")]
    return []
