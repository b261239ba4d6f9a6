"""Export: a Hugging Face folder out of a litGPT checkpoint, reloaded in a new process and compared before it appears.

litGPT's own converter names and splits the tensors, transformers writes them. What is ours is the doubt: config.json
must describe the weights, the tokenizer must be the one that litGPT used, and the logits must be litGPT's.
"""

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file, write_json
from inheritune_lit.base.folders import refuse_to_replace, staging
from inheritune_lit.checkpoint.folder import (
    RECEIPT,
    WEIGHTS,
    check_names_and_shapes,
    checkpoint_folder,
    copy_tokenizer,
    find_checkpoint,
    load_config,
)
from inheritune_lit.checkpoint.hugging_face import (
    cast,
    convert,
    hugging_face_versions,
    is_tied,
    read_hf_config,
    write_model,
)
from inheritune_lit.checkpoint.receipt import check_files, read_receipt, versions
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.export.card import check_metadata, render_card
from inheritune_lit.export.parity import check_export
from inheritune_lit.export.reload import Reloaded, attention_of
from inheritune_lit.runs.lineage import Lineage, read_lineage

if TYPE_CHECKING:
    from litgpt.config import Config

CARD = "README.md"
TEMPLATE = "chat_template.jinja"
DTYPES = ("float32", "bfloat16", "float16")


def export(
    checkpoint: Path,
    *,
    out_dir: Path,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    license: str | None = None,
    base_model: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Write a Hugging Face folder of a checkpoint: safetensors, config, tokenizer, model card, receipt.

    The folder is opened again by transformers in a new process, and appears only if no tensor is missing or left over
    and its logits equal litGPT's. `inheritune verify` checks it again later.

    Arguments:
        checkpoint: A litGPT checkpoint folder (surgery's; final or step-* of a run), or the folder of a finished run.
        out_dir: The folder to write. It appears when it is whole.
        dtype: Convert the weights to this type. Without it they keep their own.
        license: The licence for the model card, by the Hugging Face hub's identifiers: apache-2.0, llama2, … The
            reference's binds its blocks. Without it the card says that it is unknown.
        base_model: The reference's name on the Hugging Face hub for the model card, as openlm-research/open_llama_3b.
        overwrite: Replace OUT_DIR if it exists.
        dry_run: Check the checkpoint, say what would be written, and write nothing.
    """
    folder = find_checkpoint(Path(checkpoint))
    if dry_run:
        check_metadata(license, base_model)
        config, weights, _ = open_checkpoint(folder)
        check_tokenizer(folder, config, read_lineage(folder))
        print(f"{folder}: {config.n_layer} blocks in {dtype or common_dtype(weights)}; would write {out_dir}")
        return
    receipt = export_checkpoint(
        folder, Path(out_dir), dtype=dtype, license=license, base_model=base_model, overwrite=overwrite
    )
    check = receipt["check"]
    print(
        f"Wrote {out_dir}: {check['depth']} blocks, {receipt['parameters']:,} parameters in {receipt['dtype']}. "
        f"Reloaded: logits differ from litGPT's by {check['logits']['relative_difference']:.1e} of the largest."
    )


def export_checkpoint(
    checkpoint: Path,
    out_dir: Path,
    *,
    dtype: str | None = None,
    license: str | None = None,
    base_model: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """`export` for programs: writes `out_dir` and returns its receipt.

    Raises:
        InheritError: the checkpoint or its config.json is not what it should be, or what was written is not, or
            `out_dir` holds results of an evaluation.
    """
    check_metadata(license, base_model)
    checkpoint = find_checkpoint(checkpoint)
    refuse_to_replace(out_dir, checkpoint)
    if overwrite and any((out_dir / "evaluation").glob("*.json")):
        raise InheritError(
            f"--overwrite would delete the results of `inheritune evaluate` in {out_dir / 'evaluation'}. "
            "Move them away, or choose another --out_dir."
        )
    config, weights, hf_config = open_checkpoint(checkpoint)
    lineage = read_lineage(checkpoint)
    check_tokenizer(checkpoint, config, lineage)
    dtype = dtype or common_dtype(weights)
    with staging(out_dir, overwrite=overwrite) as folder:
        _check_room(folder, weights)
        write_model(cast(convert(weights, config, hf_config, checkpoint), dtype), hf_config, folder)
        copy_tokenizer(checkpoint, folder)  # generation_config.json too: it replaces the one that transformers made up
        _copy_chat_template(lineage, checkpoint, folder)
        reloaded, check = check_export(folder, checkpoint, dtype)
        source = {"name": lineage.name, "n_layer": config.n_layer, "fingerprint": weights.fingerprint()}
        receipt = _receipt(source, lineage, reloaded, check)
        card = render_card(
            receipt,
            lineage,
            name=out_dir.name,
            context=config.block_size,
            architecture=hf_config.model_type,
            attention=attention_of(hf_config),
            license=license,
            base_model=base_model,
        )
        (folder / CARD).write_text(card, encoding="utf-8")
        receipt["files"] = _files(folder)
        write_json(folder / RECEIPT, receipt)
    return receipt


def open_checkpoint(folder: Path) -> "tuple[Config, Weights, Any]":
    """A checkpoint's litGPT Config, its tensors, and its Hugging Face config, each checked against the others.

    Raises:
        InheritError: a file is missing, damaged or not what the receipt says, or config.json states another depth.
    """
    if (folder / RECEIPT).is_file():
        check_files(folder, read_receipt(folder)["files"])
    config, weights = load_config(folder), Weights(folder / WEIGHTS)
    check_names_and_shapes(weights, config, folder)
    if not (folder / RECEIPT).is_file():
        _check_bytes(weights)
    hf_config = read_hf_config(folder, config)
    hf_config.tie_word_embeddings = is_tied(weights)
    return config, weights, hf_config


def common_dtype(weights: Weights) -> str:
    """The one floating-point type of all tensors.

    Raises:
        InheritError: there are several.
    """
    names = sorted({str(weights.dtype(name)).removeprefix("torch.") for name in weights})
    if len(names) > 1 or names[0] not in DTYPES:
        raise InheritError(f"{weights.path} holds {', '.join(names)}: pass --dtype, one of {', '.join(DTYPES)}.")
    return names[0]


def check_tokenizer(checkpoint: Path, config: "Config", lineage: Lineage) -> None:
    """The tokenizer is the one of the training data and of the checkpoint that training began with, if known.

    Raises:
        InheritError: it is another, or can't be opened.
    """
    from inheritune_lit.data.encoding import check_rows, is_tokenizer_of, open_tokenizer
    from inheritune_lit.data.tokenizer import Tokenizer

    entry = open_tokenizer(checkpoint, bos=False)[1]
    file = checkpoint / entry["file"]
    tokenizer = Tokenizer(checkpoint)
    check_rows(tokenizer, config.padded_vocab_size, file)
    if (data := lineage.manifest) is not None and not is_tokenizer_of(tokenizer, data.tokenizer):
        raise InheritError(f"{file} is not the tokenizer of the training data in {data.folder}. Copy that one there.")
    known = ((lineage.start or {}).get("files") or {}).get(entry["file"])
    if known is not None and entry["sha256"] != known["sha256"]:
        raise InheritError(
            f"{file} is not the file of the checkpoint that training began with: its SHA-256 is "
            f"{entry['sha256'][:16]}…, expected {known['sha256'][:16]}…. Copy that one there."
        )


def _receipt(
    source: Mapping[str, Any], lineage: Lineage, reloaded: Reloaded, check: Mapping[str, Any]
) -> dict[str, Any]:
    """All but the files."""
    start = lineage.start  # without its files, which are not here
    return {
        "format": 1,
        "kind": "export",
        "source": source,
        "inheritance": None if start is None else {name: value for name, value in start.items() if name != "files"},
        "dtype": reloaded.dtype,
        "parameters": reloaded.parameters,
        "tokenizer": {"use_fast": reloaded.use_fast},
        "check": check,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions() | hugging_face_versions(),
    }


def _copy_chat_template(lineage: Lineage, checkpoint: Path, folder: Path) -> None:
    """From the recipe's tokenizer_dir, as litGPT does not copy it into checkpoints."""
    place = checkpoint_folder((lineage.recipe or {}).get("tokenizer_dir") or checkpoint)
    if not (folder / TEMPLATE).is_file() and (place / TEMPLATE).is_file():
        shutil.copyfile(place / TEMPLATE, folder / TEMPLATE)


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """All but the card, which is for people to edit."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.iterdir())
        if path.name != CARD
    }


def _check_bytes(weights: Weights) -> None:
    """Reads every tensor once, as a checkpoint without a receipt has only the CRC-32s of its zip file to go by."""
    buffer = memoryview(bytearray(max(weights.record(name).size for name in weights)))
    for name in weights:
        weights.read(name, buffer)


def _check_room(folder: Path, weights: Weights) -> None:
    needed = sum(weights.numel(name) * weights.dtype(name).itemsize for name in weights)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InheritError(f"The export needs {needed:,} bytes, the disk has {free:,} free. Free some space.")


if __name__ == "__main__":
    from inheritune_lit.base.command_line import run

    run(export, "python -m inheritune_lit.export.command")
