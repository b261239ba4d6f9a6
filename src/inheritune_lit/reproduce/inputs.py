"""What a run was made from, as settings that make it again: of surgery and of prepare, and where the reference is."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.layers import layers_argument
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.plan.model import count_parameters
from inheritune_lit.prepare.settings import PrepareSettings
from inheritune_lit.recipes.recipe import Recipe
from inheritune_lit.reproduce.facts import tokenizers_receipt
from inheritune_lit.runs.folder import Run
from inheritune_lit.surgery.starts import RULES

PACKAGES = ("demo", "growth-demo")
"""References that come as packages of the index, which `inheritune demo` and `grow-demo` fetch"""
FOLDERS = {"text": "text", "start": "start", "tokens": "tokens", "run": "run"}
"""Where a shipped recipe has everything, beside each other and the reference's"""


def reference_folder(wanted: Mapping[str, Any]) -> str:
    """The reference's folder, called as the model is: its name may be all that tells which it is.

    Args:
        wanted: A lock's `inputs.reference`.
    """
    return str(Path("reference", Path(wanted["name"] or "").name))


def inputs_of_run(run: Run, manifest: Manifest, reference: str | None, licence: str | None) -> dict[str, Any]:
    """What a lock says of a run's inputs.

    Args:
        run: The run.
        manifest: Of its data.
        reference: Where the reference is: ORG/NAME[@REVISION] on the Hugging Face hub, or one of PACKAGES.
        licence: The reference's.
    """
    receipt = (run.receipt.get("start") or {}).get("inheritance") or tokenizers_receipt(run.recipe)
    return {
        "reference": _reference(run, receipt, reference, licence),
        "surgery": _surgery(receipt or {}),
        "data": data_settings(manifest.content),
    }


def _reference(
    run: Run, receipt: Mapping[str, Any] | None, reference: str | None, licence: str | None
) -> dict[str, Any]:
    origin = (run.recipe.get("model_config") or {}).get("hf_config") or {}
    known = f"{origin['org']}/{origin['name']}" if {"org", "name"} <= origin.keys() else None
    source = (receipt or {}).get("source") or {}
    size = None
    if source.get("n_layer") and reference not in PACKAGES:
        config = Recipe.of(run.recipe).config
        size = 2 * count_parameters(replace(config, n_layer=source["n_layer"])).total  # in 16 bits
    return {
        "name": source.get("name"),
        "hub": None if reference in PACKAGES else reference or known,
        "package": reference if reference in PACKAGES else None,
        "licence": licence,
        "bytes": size,
    }


def _surgery(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """surgery's settings out of its receipt; none where one command alone does not make the start again."""
    start, blocks = receipt.get("start"), receipt.get("blocks")
    rule = RULES.get(start)  # type: ignore[arg-type]
    if rule is None or rule.grows or not isinstance(blocks, list):
        return {}
    layers = None if rule.halves else layers_argument(blocks) if rule.place is None else str(len(blocks))
    settings = {"start": start, "layers": layers, "dtype": receipt.get("dtype"), "seed": receipt.get("seed")}
    return {name: value for name, value in settings.items() if value is not None}


def data_settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """prepare's settings out of a manifest."""
    names = {field.name for field in fields(PrepareSettings)} & manifest.keys()
    settings = {name: manifest[name] for name in sorted(names) if manifest[name] is not None}
    return settings | {"bos": manifest["tokenizer"].get("bos", False)}


def folders_of(settings: Mapping[str, Any], *, tokenizer: str, teacher: str) -> dict[str, Any]:
    """A recipe whose folders stand beside each other, by FOLDERS: nothing of the machine it ran on is left in it.

    Raises:
        InheritError: its data are not PackedTokens, of which alone it is known what they are made of.
    """
    data = settings.get("data")
    if not isinstance(data, Mapping) or not str(data.get("class_path", "")).startswith("inheritune_lit.data."):
        raise InheritError(
            "The recipe's data are not inheritune_lit.data.PackedTokens: what they are can't be shipped."
        )
    arguments = {**data["init_args"], "data_path": FOLDERS["tokens"]}
    if "teacher_dir" in arguments:
        arguments["teacher_dir"] = teacher
    start = settings.get("initial_checkpoint_dir") and FOLDERS["start"]
    return {
        **{key: value for key, value in settings.items() if key not in ("resume", "logger")},
        "initial_checkpoint_dir": start,
        "tokenizer_dir": tokenizer,
        "out_dir": FOLDERS["run"],
        "data": {**data, "init_args": arguments},
    }
