"""The folders that a recipe names: their checkpoint and data, as far as they are on this machine."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json
from inheritune_lit.checkpoint.folder import (
    HF_CONFIG,
    MODEL_CONFIG,
    RECEIPT,
    checkpoint_folder,
    load_config,
    refuse_code,
)
from inheritune_lit.checkpoint.receipt import read_receipt
from inheritune_lit.recipes.check.findings import Finding, error, note, warning
from inheritune_lit.recipes.check.start import no_start
from inheritune_lit.recipes.litgpt_settings import PACKED
from inheritune_lit.recipes.recipe import TEACHER, Recipe, in_range

if TYPE_CHECKING:
    from inheritune_lit.data.manifest import Manifest


def check_folders(recipe: Recipe) -> Iterator[Finding]:
    # Each reads what others wrote: what is damaged there is told with the key that names it
    for key, check, fix in (
        ("initial_checkpoint_dir", _initial, "Write the folder again, or copy it again."),
        ("tokenizer_dir", _tokenizer, "Write the folder again, or copy it again."),
        ("data.init_args.data_path", _data, "Prepare it again, or name another folder."),
        (TEACHER, _teacher, "Name another teacher, or write its folder again."),
    ):
        try:
            yield from check(recipe, key)
        except InheritError as problem:
            yield error(key, str(problem), fix)


def _absent(key: str, folder: Path) -> Finding:
    if folder.exists():
        return error(key, f"{folder} is a file.", f"Name its folder: {folder.parent}.")
    text = f"{folder} is not on this machine."
    return note(key, text, "Check the recipe again where it is to run.", elsewhere=True)


def _initial(recipe: Recipe, key: str) -> Iterator[Finding]:
    if (value := recipe.document.get(key)) is None:
        return
    if not (folder := checkpoint_folder(value)).is_dir():
        yield _absent(key, folder)
    elif found := no_start(key, folder):
        yield from found
    else:
        yield from _model_differs(recipe, folder)
        yield from _receipt(key, folder)


def _receipt(key: str, folder: Path) -> Iterator[Finding]:
    """Sizes only: `inheritune verify` hashes."""
    if not (folder / RECEIPT).is_file():
        text = f"{folder} has no receipt, so that nothing says which blocks it holds."
        yield note(key, text, "`inheritune surgery` writes one.")
        return
    files = {folder / name: entry["bytes"] for name, entry in read_receipt(folder)["files"].items()}
    if wrong := [path.name for path, size in files.items() if not path.is_file() or path.stat().st_size != size]:
        text = f"{folder} is not what its receipt says: {', '.join(wrong)} differ in size."
        yield error(key, text, f"`inheritune verify {folder}` says more; write it again.")


def _model_differs(recipe: Recipe, folder: Path) -> Iterator[Finding]:
    """The recipe's model beside the one that the checkpoint is of."""
    from inheritune_lit.gpt2.options import is_gpt2

    there = load_config(folder)
    if not isinstance(recipe.document.get("model_config"), dict):
        return
    try:
        own = recipe.config
    except InheritError:  # said already, of the block itself
        return
    # a GPT-2's hf_config says how it computes, and its block_size how many positions it has learned
    aside = ("name",) if is_gpt2(there) else ("name", "hf_config", "block_size")
    for key, value in dataclasses.asdict(there).items():
        if key not in aside and (mine := getattr(own, key)) != value:
            text = f"It makes {mine!r}, the checkpoint in {folder} ({MODEL_CONFIG}) has {value!r}."
            yield error(f"model_config.{key}", text, f"Write {key}: {value}, or name its folder.")


def _tokenizer(recipe: Recipe, key: str) -> Iterator[Finding]:
    initial, value = recipe.document.get("initial_checkpoint_dir"), recipe.document.get(key)
    if value is None:
        text = "It is left out: the tokenizer goes unchecked, and checkpoints get no config.json and no tokenizer."
        yield warning(key, text, "Name the folder that surgery wrote.")
        return
    if not (folder := checkpoint_folder(value)).is_dir():
        if initial and value != initial:
            text = f"It is {value}, not initial_checkpoint_dir: litGPT copies config.json, with its depth, from there."
            yield warning(key, text, f"Write {initial}, whose config.json states the true depth.")
        elif value != initial:
            yield _absent(key, folder)
        return
    if (blocks := recipe.document.get("model_config.n_layer")) is None or not (folder / HF_CONFIG).is_file():
        return
    stated = read_json(folder / HF_CONFIG, HF_CONFIG)
    refuse_code(folder)  # it goes into RUN/model, which could not be exported
    language = inner if isinstance(inner := stated.get("text_config"), dict) else stated
    depth = language.get("num_hidden_layers", language.get("n_layer"))  # the latter is GPT-2's
    if depth not in (None, blocks):
        text = (
            f"{folder / HF_CONFIG} states {depth} blocks, the recipe {blocks}. litGPT copies it into every checkpoint, "
            "and evaluation would fill up the missing blocks with random ones."
        )
        yield error(key, text, "Name the folder that surgery wrote, or mend n_layer.")
    if not recipe.is_gpt2:
        yield from _tied(folder, stated, wanted=bool(recipe.document.get("train.tie_embeddings")))


def _tied(folder: Path, stated: Mapping[str, Any], *, wanted: bool) -> Iterator[Finding]:
    tied = stated.get("tie_word_embeddings")
    if tied is not None and bool(tied) != wanted:
        text = f"It is {str(wanted).lower()}, {folder / HF_CONFIG} states {str(tied).lower()}."
        yield warning("train.tie_embeddings", text, f"Write {str(tied).lower()}, as the reference was trained.")


def _data(recipe: Recipe, key: str) -> Iterator[Finding]:
    from inheritune_lit.data.manifest import Manifest

    class_path, value = recipe.document.get("data.class_path"), recipe.document.get(key)
    if class_path is None:
        return
    if str(class_path) not in PACKED:
        text = f"What {class_path} holds can't be known from here."
        yield note("data", text, "Check that it holds tokens for the whole budget.")
    elif value is not None and not Path(str(value)).is_dir():
        yield _absent(key, Path(str(value)))
    elif value is not None:
        manifest = Manifest(Path(str(value)))
        manifest.check_files()
        yield from _budget(recipe, manifest)
        size, largest = recipe.document.get("model_config.padded_vocab_size"), _largest_id(manifest)
        if isinstance(size, int) and largest >= size:
            text = f"It is {size:,}, and {manifest.folder} has token ids up to {largest:,}: another tokenizer's."
            yield error("model_config.padded_vocab_size", text, "Prepare the data with the model's tokenizer.")


def _budget(recipe: Recipe, manifest: "Manifest") -> Iterator[Finding]:
    """PackedTokens cuts windows of max_seq_length + 1 tokens that overlap by one; without enough of them it stops."""
    tokens, sequence, epochs = recipe.tokens, recipe.sequence, recipe.document.get("data.init_args.epochs", 1)
    if not tokens or not sequence or not in_range("data.init_args.epochs", epochs):
        return
    epoch = manifest.splits["train"].windows(sequence) * sequence
    if not epoch:
        text = f"{manifest.folder} holds too few training tokens for one window of {sequence:,}."
        yield error("data.init_args.data_path", text, "Prepare more text.")
        return
    needed, key = -(-tokens // epoch), "data.init_args.epochs"
    if needed > epochs:
        text = (
            f"{epochs} epoch{'s' * (epochs > 1)} over {manifest.folder} are {epochs * epoch:,} tokens, and max_tokens "
            f"is {tokens:,}: the run would stop with an error before its end, without a last checkpoint."
        )
        yield error(key, text, f"Write {needed}, or lower train.max_tokens to {epochs * epoch}.")
    elif needed < epochs:
        text = f"It allows {epochs} epochs; max_tokens, {tokens:,}, ends in epoch {needed} of {epoch:,} tokens each."
        yield warning(key, text, f"Write {needed}, or raise train.max_tokens to {epochs * epoch}.")


def _largest_id(manifest: "Manifest") -> int:
    return max(split.max_token_id for split in manifest.splits.values())


def _teacher(recipe: Recipe, key: str) -> Iterator[Finding]:
    """Its weights and its tokenizer are looked into by preflight only."""
    from inheritune_lit.data.manifest import MANIFEST, Manifest
    from inheritune_lit.data.teacher import check_teacher

    if (folder := recipe.teacher) is None:
        return
    if not folder.is_dir():
        yield _absent(key, folder)
        return
    data = Path(str(recipe.data.get("data_path", "")))
    largest = _largest_id(Manifest(data)) if (data / MANIFEST).is_file() else 0
    check_teacher(folder, recipe.sequence or 1, largest)
