"""The folders that a recipe names: their checkpoint and data, as far as they are on this machine."""

import dataclasses
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.base.yaml_document import Document
from inheritune_lit.checkpoint.folder import (
    HF_CONFIG,
    MODEL_CONFIG,
    RECEIPT,
    checkpoint_folder,
    load_config,
    refuse_code,
)
from inheritune_lit.checkpoint.receipt import read_receipt
from inheritune_lit.recipes.check.findings import Finding
from inheritune_lit.recipes.check.gpt2 import states_gpt2
from inheritune_lit.recipes.check.start import no_start
from inheritune_lit.recipes.litgpt_settings import PACKED, config_class
from inheritune_lit.recipes.recipe import TEACHER, Recipe


def check_folders(document: Document) -> list[Finding]:
    return _initial(document) + _tokenizer(document) + _data(document)


def _absent(key: str, folder: Path) -> Finding:
    if folder.exists():
        return Finding("error", key, f"{folder} is a file.", f"Name its folder: {folder.parent}.")
    text = f"{folder} is not on this machine."
    return Finding("note", key, text, "Check the recipe again where it is to run.", elsewhere=True)


def _initial(document: Document) -> list[Finding]:
    key = "initial_checkpoint_dir"
    if (value := document.get(key)) is None:
        return []
    folder = checkpoint_folder(value)
    if not folder.is_dir():
        return [_absent(key, folder)]
    if findings := no_start(key, folder):
        return findings
    try:
        there = load_config(folder)
    except InheritError as error:
        return [*findings, Finding("error", key, str(error), "Write the folder again.")]
    stated = document.get("model_config")
    if isinstance(stated, dict):
        findings += _model_differs(stated, there, folder)
    return findings + _receipt(folder)


def _receipt(folder: Path) -> list[Finding]:
    """Sizes only: `inheritune verify` hashes."""
    key, fix = "initial_checkpoint_dir", f"`inheritune verify {folder}` says more; write it again."
    if not (folder / RECEIPT).is_file():
        text = f"{folder} has no receipt, so that nothing says which blocks it holds."
        return [Finding("note", key, text, "`inheritune surgery` writes one.")]
    try:
        files = read_receipt(folder)["files"]
    except InheritError as error:
        return [Finding("error", key, str(error), fix)]
    sizes = {name: (folder / name).stat().st_size if (folder / name).is_file() else None for name in files}
    wrong = [name for name, entry in files.items() if sizes[name] != entry["bytes"]]
    if wrong:
        return [
            Finding("error", key, f"{folder} is not what its receipt says: {', '.join(wrong)} differ in size.", fix)
        ]
    return []


def _model_differs(stated: dict[str, Any], there: Any, folder: Path) -> list[Finding]:
    """The recipe's model beside the one that the checkpoint is of."""
    from inheritune_lit.gpt2.options import is_gpt2

    Config = config_class()
    try:
        known = {f.name for f in dataclasses.fields(Config)}
        own = Config(**{key: value for key, value in stated.items() if key in known})
    except Exception:  # said already, of the block itself
        return []
    findings = []
    # a GPT-2's hf_config says how it computes, and its block_size how many positions it has learned
    aside = ("name",) if is_gpt2(there) else ("name", "hf_config", "block_size")
    for key, value in dataclasses.asdict(there).items():
        if key not in aside and (mine := getattr(own, key)) != value:
            text = f"It makes {mine!r}, the checkpoint in {folder} ({MODEL_CONFIG}) has {value!r}."
            findings.append(Finding("error", f"model_config.{key}", text, f"Write {key}: {value}, or name its folder."))
    return findings


def _tokenizer(document: Document) -> list[Finding]:
    key, initial = "tokenizer_dir", document.get("initial_checkpoint_dir")
    if (value := document.get(key)) is None:
        text = "It is left out: the tokenizer goes unchecked, and checkpoints get no config.json and no tokenizer."
        return [Finding("warning", key, text, "Name the folder that surgery wrote.")]
    folder = checkpoint_folder(value)
    if not folder.is_dir():
        absent = [_absent(key, folder)] if value != initial else []
        if initial and value != initial:
            text = f"It is {value}, not initial_checkpoint_dir: litGPT copies config.json, with its depth, from there."
            absent = [Finding("warning", key, text, f"Write {initial}, whose config.json states the true depth.")]
        return absent
    blocks = document.get("model_config.n_layer")
    if not (folder / HF_CONFIG).is_file() or blocks is None:
        return []
    try:
        stated = read_json(folder / HF_CONFIG, HF_CONFIG)
        refuse_code(folder)  # it goes into RUN/model, which could not be exported
    except InheritError as error:
        return [Finding("error", key, str(error), "Write the folder again, or copy it again.")]
    tied = [] if states_gpt2(document) else _tied(folder, stated, bool(document.get("train.tie_embeddings")))
    return _depth(folder, stated, blocks) + tied


def _tied(folder: Path, stated: dict[str, Any], wanted: bool) -> list[Finding]:
    tied = stated.get("tie_word_embeddings")
    if tied is None or bool(tied) == wanted:
        return []
    text = f"It is {str(wanted).lower()}, {folder / HF_CONFIG} states {str(tied).lower()}."
    fix = f"Write {str(tied).lower()}, as the reference was trained."
    return [Finding("warning", "train.tie_embeddings", text, fix)]


def _depth(folder: Path, stated: dict[str, Any], blocks: int) -> list[Finding]:
    language = inner if isinstance(inner := stated.get("text_config"), dict) else stated
    depth = language.get("num_hidden_layers", language.get("n_layer"))  # the latter is GPT-2's
    if depth is not None and depth != blocks:
        text = (
            f"{folder / HF_CONFIG} states {depth} blocks, the recipe {blocks}. litGPT copies it into every checkpoint, "
            "and evaluation would fill up the missing blocks with random ones."
        )
        return [Finding("error", "tokenizer_dir", text, "Name the folder that surgery wrote, or mend n_layer.")]
    return []


def _data(document: Document) -> list[Finding]:
    from inheritune_lit.data.manifest import Manifest

    class_path = document.get("data.class_path")
    if class_path is None:
        return []
    if str(class_path) not in PACKED:
        text = f"What {class_path} holds can't be known from here."
        return [Finding("note", "data", text, "Check that it holds tokens for the whole budget.")]
    key, value = "data.init_args.data_path", document.get("data.init_args.data_path")
    if value is None:
        return [Finding("error", key, "PackedTokens requires it.", "Name the folder that `inheritune prepare` wrote.")]
    if not Path(str(value)).is_dir():
        return [_absent(key, Path(str(value))), *_teacher(document, largest_id=0)]
    try:
        manifest = Manifest(Path(str(value)))
        manifest.check_files()
    except InheritError as error:
        return [Finding("error", key, str(error), "Prepare it again, or name another folder.")]
    largest_id = max(split.max_token_id for split in manifest.splits.values())
    return _budget(document, manifest) + _vocabulary(document, manifest, largest_id) + _teacher(document, largest_id)


def _teacher(document: Document, largest_id: int) -> list[Finding]:
    """Its weights and its tokenizer are looked into by preflight only."""
    from inheritune_lit.data.teacher import check_teacher

    recipe = Recipe(document)
    if (folder := recipe.teacher) is None:
        return []
    if not folder.is_dir():
        return [_absent(TEACHER, folder)]
    try:
        check_teacher(folder, recipe.sequence or 1, largest_id)
    except InheritError as error:
        return [Finding("error", TEACHER, str(error), "Name another teacher, or write its folder again.")]
    return []


def _budget(document: Document, manifest: Any) -> list[Finding]:
    """PackedTokens cuts windows of max_seq_length + 1 tokens that overlap by one; without enough of them it stops."""
    tokens, sequence = document.get("train.max_tokens"), document.get("train.max_seq_length")
    epochs = document.get("data.init_args.epochs", 1)
    if not all(isinstance(value, int) and value > 0 for value in (tokens, sequence, epochs)):
        return []
    windows, key = manifest.splits["train"].windows(sequence), "data.init_args.epochs"
    if windows < 1:
        text = f"{manifest.folder} holds too few training tokens for one window of {sequence:,}."
        return [Finding("error", "data.init_args.data_path", text, "Prepare more text.")]
    epoch = windows * sequence
    needed = -(-tokens // epoch)
    if needed > epochs:
        text = (
            f"{epochs} epoch{'s' * (epochs > 1)} over {manifest.folder} are {epochs * epoch:,} tokens, and max_tokens "
            f"is {tokens:,}: the run would stop with an error before its end, without a last checkpoint."
        )
        return [Finding("error", key, text, f"Write {needed}, or lower train.max_tokens to {epochs * epoch}.")]
    if needed < epochs:
        text = f"It allows {epochs} epochs; max_tokens, {tokens:,}, ends in epoch {needed} of {epoch:,} tokens each."
        return [Finding("warning", key, text, f"Write {needed}, or raise train.max_tokens to {epochs * epoch}.")]
    return []


def _vocabulary(document: Document, manifest: Any, largest_id: int) -> list[Finding]:
    size = document.get("model_config.padded_vocab_size")
    if isinstance(size, int) and largest_id >= size:
        text = f"It is {size:,}, and {manifest.folder} has token ids up to {largest_id:,}: another tokenizer's."
        return [
            Finding("error", "model_config.padded_vocab_size", text, "Prepare the data with the model's tokenizer.")
        ]
    return []
