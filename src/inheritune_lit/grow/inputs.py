"""What a growth is given, checked before anything is trained: the base recipe, the data, a trained reference."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.yaml_document import Document
from inheritune_lit.checkpoint.folder import find_checkpoint, load_config
from inheritune_lit.data.manifest import MANIFEST
from inheritune_lit.grow.stages import Settings
from inheritune_lit.recipes.check.findings import Finding, report
from inheritune_lit.recipes.recipe import Recipe

NEEDED = (
    *("model_config.n_layer", "data.init_args.data_path", "train.max_tokens", "train.max_seq_length"),
    *("train.global_batch_size", "train.micro_batch_size"),
)
"""What litGPT takes from elsewhere if a recipe leaves it out, and growth computes with"""


def check_recipe(path: Path, document: Document, check: Callable[[Document], list[Finding]]) -> None:
    """What `inheritune recipes validate` calls an error would otherwise be found after the stages before it.

    Raises:
        InheritError: a check finds an error, the recipe lacks what growth needs, or it starts from a checkpoint.
    """
    for key in NEEDED:
        if document.get(key) is None:
            raise InheritError(f"The base recipe does not state {key}, which growth needs. Add it.")
    if errors := [finding for finding in check(document) if finding.severity == "error"]:
        raise InheritError(report(path, errors, document))
    if start := document.get("initial_checkpoint_dir"):
        raise InheritError(
            f"{path} starts from a checkpoint, initial_checkpoint_dir {start}, and growth trains its reference from "
            "random weights. Give the whole model's recipe, with initial_checkpoint_dir: null; a reference that is "
            "trained already is --reference_dir."
        )


def missing_data(settings: Settings) -> str | None:
    """What to say if the data are not there."""
    manifest = settings.data_path / MANIFEST
    return None if manifest.is_file() else f"{manifest} is missing: write the data with `inheritune prepare` first."


def check_reference(settings: Settings) -> None:
    """The reference, if it is not trained here.

    Raises:
        InheritError: it is missing, is not the recipe's model, or has no tokenizer.
    """
    if settings.reference_dir is None:
        return
    reference = find_checkpoint(settings.reference_dir)
    _check_same_model(reference, settings.base["model_config"])
    # all starts take theirs from the reference, and litGPT opens it
    if not any((reference / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise InheritError(
            f"{reference} has no tokenizer, neither tokenizer.json nor tokenizer.model, which the stages take from it. "
            f"Copy the recipe's there, from {settings.base.get('tokenizer_dir')}."
        )


def _check_same_model(reference: Path, model_config: Mapping[str, Any]) -> None:
    """A given reference is the base recipe's model, whatever it is called.

    Raises:
        InheritError: naming what differs.
    """
    there, stated = asdict(load_config(reference)), asdict(Recipe.of({"model_config": model_config}).config)
    for config in (there, stated):
        config["hf_config"] = {key: value for key, value in config["hf_config"].items() if key not in ("name", "org")}
        del config["name"]
    if found := [
        f"{key} is {there[key]!r}, the recipe's {stated[key]!r}" for key in stated if there[key] != stated[key]
    ]:
        raise InheritError(f"{reference} is not the recipe's model: {'; '.join(found)}. Give the recipe it came from.")
