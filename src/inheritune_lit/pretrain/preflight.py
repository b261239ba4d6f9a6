"""All that can be known before a GPU is touched, at once: the recipe, its folders, the run's folder, disk and memory.

What needs no import of litGPT comes first, and is reported within seconds if there is an error in it. The rest, which
can only be computed for a recipe that litGPT accepts, follows.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, sha256_file
from inheritune_lit.base.yaml_document import Document
from inheritune_lit.checkpoint.folder import HF_CONFIG, RECEIPT, WEIGHTS, checkpoint_folder
from inheritune_lit.checkpoint.receipt import check_files, read_receipt
from inheritune_lit.checkpoint.weights import zip_records
from inheritune_lit.data.manifest import Manifest
from inheritune_lit.pretrain.cluster import check_cluster
from inheritune_lit.pretrain.devices import gpu_names, visible_gpus
from inheritune_lit.pretrain.disk_and_memory import check_disk_and_memory
from inheritune_lit.pretrain.options import Request
from inheritune_lit.pretrain.record import ORPHAN, check_same, read_record, run_lock
from inheritune_lit.recipes.check.findings import Finding
from inheritune_lit.recipes.check.validate import check_document, check_machine
from inheritune_lit.recipes.litgpt_settings import PACKED
from inheritune_lit.recipes.recipe import TEACHER, Recipe
from inheritune_lit.surgery.plain_llama import is_plain_llama


def preflight(document: Document, run: Path, request: Request) -> list[Finding]:
    """Every finding on a launch.

    Args:
        document: The recipe, as it stands in its file.
        run: The run's folder.
        request: What was asked for.
    """
    findings = check_machine(document, check_document(document, request.devices, request.nodes))
    if not request.dry_run:  # what may be missing where a recipe is written may not where it runs
        fix = "Bring it here, or correct the path."
        findings = [Finding("error", f.key, f.problem, fix) if f.elsewhere else f for f in findings]
    findings += _bytes(document, request.verify) + _saving(document) + _gpus(document, request)
    findings += check_cluster(document, request)
    wrong = any(finding.severity == "error" for finding in findings)
    # a killed launch's training ends within seconds
    findings += _folder(document, run, request, wait=0 if wrong else ORPHAN)
    if any(finding.severity == "error" for finding in findings):
        text = "Its tensors' shapes, its tokenizer, disk and memory are checked once litGPT would take it."
        return [*findings, Finding("note", "recipe", text, "Mend the errors first.")]
    findings += _headers(document) + _tokenizer(document) + _exportable(document)
    return findings + check_disk_and_memory(document, run, request)


def _bytes(document: Document, verify: str) -> list[Finding]:
    """The checkpoint's and the data's files: whole by their directory, or by every byte with `--verify full`."""
    findings, data = [], document.get("data.init_args.data_path")
    for key, folder in Recipe(document).checkpoints.items():
        if not (folder / WEIGHTS).is_file():  # said already
            continue
        fix = "Write the folder again, or copy it again."
        findings += _tried(key, fix, partial(zip_records, folder / WEIGHTS))
        if verify == "full" and (folder / RECEIPT).is_file():
            findings += _tried(key, fix, partial(_check_receipt, folder))
        if verify == "full":
            findings += _tried(key, "Use another checkpoint.", partial(_check_finite, folder / WEIGHTS))
    if verify == "full" and data and Path(str(data)).is_dir():
        fix = "Copy the folder again, or prepare it again."
        findings += _tried("data.init_args.data_path", fix, lambda: _hash_shards(Manifest(Path(str(data)))))
    return findings


def _tried(key: str, fix: str, check: Callable[[], object]) -> list[Finding]:
    try:
        check()
    except InheritError as error:
        return [Finding("error", key, str(error), fix)]
    return []


def _check_receipt(folder: Path) -> None:
    check_files(folder, read_receipt(folder)["files"])


def _check_finite(path: Path) -> None:
    from inheritune_lit.checkpoint.copy import check_finite
    from inheritune_lit.checkpoint.weights import Weights

    for name, tensor in Weights(path).items():
        check_finite(tensor, name, path)


def _hash_shards(manifest: Manifest) -> None:
    manifest.check_files()
    for split in manifest.splits.values():
        for shard in split.shards:
            if (found := sha256_file(manifest.folder / shard.path)) != shard.sha256:
                raise InheritError(
                    f"{manifest.folder / shard.path} has SHA-256 {found[:16]}…, the manifest {shard.sha256[:16]}…."
                )


def _saving(document: Document) -> list[Finding]:
    key, interval = "train.save_interval", document.get("train.save_interval")
    steps = Recipe(document).steps
    if not document.states(key) or not steps:  # what is left out was said already
        return []
    if interval is None or (isinstance(interval, int) and interval >= steps):
        text = f"It is {'null' if interval is None else interval}, of {steps:,} steps: the run saves at its end only."
        fix = f"Write {max(1, steps // 20)} or so, if the run takes longer than you want to lose."
        return [Finding("note" if steps < 100 else "warning", key, text, fix)]
    return []


def _gpus(document: Document, request: Request) -> list[Finding]:
    """What litGPT's FSDP wants: it runs on GPUs only, and shards within all those that are visible."""
    stated, nodes = Recipe(document).machines(request.devices, request.nodes)
    if not isinstance(stated, int) or not isinstance(nodes, int):
        return []
    names, setting = gpu_names(), os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = visible_gpus(len(names))
    where = "of this machine" if setting is None else f"that CUDA_VISIBLE_DEVICES={setting} leaves"
    if stated > 1 and visible < stated:
        text = f"It is {stated}, and there are {visible} GPUs {where}: litGPT's FSDP runs on GPUs only."
        return [Finding("error", "devices", text, f"Write {max(1, visible)}, or run it where they are.")]
    if stated * nodes > 1 and visible and (stated * nodes) % visible:
        text = f"{stated * nodes} processes on nodes with {visible} GPUs {where}: HYBRID_SHARD refuses it."
        fix = f"Set CUDA_VISIBLE_DEVICES={','.join(map(str, range(stated)))}, or use all {visible}."
        return [Finding("error", "devices", text, fix)]
    return []


def _folder(document: Document, run: Path, request: Request, wait: float) -> list[Finding]:
    """The run's folder: free, writable, and of this recipe."""
    place = next(folder for folder in (run.absolute(), *run.absolute().parents) if folder.exists())
    if not os.access(place, os.W_OK):
        return [Finding("error", "out_dir", f"{place} can't be written to.", "Choose another out_dir.")]

    def check() -> None:
        with run_lock(run, wait):
            if not request.restart and (before := read_record(run)):
                check_same(run, before, document.content, before)

    return _tried("out_dir", "Or choose another out_dir.", check) if place == run.absolute() else []


def _headers(document: Document) -> list[Finding]:
    """The checkpoints' tensors beside their model_config.yaml, by name and shape."""
    from inheritune_lit.checkpoint.opening import open_weights

    there = {key: folder for key, folder in Recipe(document).checkpoints.items() if folder.is_dir()}
    return [
        f
        for key, folder in there.items()
        for f in _tried(key, "Write the folder again.", partial(open_weights, folder))
    ]


def _exportable(document: Document) -> list[Finding]:
    """What `inheritune export` would refuse at the end, for all that is known now: config.json and the tokenizer."""
    from inheritune_lit.checkpoint.hugging_face import check_describes, read_hf_config
    from inheritune_lit.data.encoding import check_rows

    if not (stated := document.get("tokenizer_dir")) or not (folder := checkpoint_folder(stated)).is_dir():
        return []
    config = Recipe(document).config

    def describes() -> None:
        path = folder / HF_CONFIG
        if path.is_file() and not is_plain_llama(read_json(path, "Hugging Face config"), config):
            check_describes(read_hf_config(folder, config), config, folder)

    def rows() -> None:
        check_rows(_opened(folder), config.padded_vocab_size, folder)

    fix = "Export would refuse it after the training: name the folder that surgery wrote, or mend that file."
    return _tried("tokenizer_dir", fix, describes) + _tried("tokenizer_dir", fix, rows)


def _tokenizer(document: Document) -> list[Finding]:
    """The data module's own checks: the tokenizer of the data is the checkpoint's, and the teacher's."""
    recipe, tokenizer_dir = Recipe(document), document.get("tokenizer_dir")
    name, settings = PACKED.get(str(document.get("data.class_path"))), recipe.data
    if not name or not Path(str(settings.get("data_path"))).is_dir() or not tokenizer_dir:
        return []
    if not (folder := checkpoint_folder(tokenizer_dir)).is_dir():
        return []
    from inheritune_lit import data
    from inheritune_lit.data.tokens import PackedTokens

    module = getattr(data, name)(**settings)
    connect = partial(PackedTokens.connect, module, max_seq_length=recipe.sequence)
    fix = "Prepare the data with the model's tokenizer."
    findings = _tried("data.init_args.data_path", fix, lambda: connect(_opened(folder)))
    if findings or not recipe.teacher or not recipe.teacher.is_dir():
        return findings
    return _tried(TEACHER, "Name a teacher with the tokenizer of the data.", module.find_teacher)


def _opened(folder: Path) -> Any:
    """litGPT's Tokenizer of a folder."""
    from inheritune_lit.data.tokenizer import Tokenizer

    try:
        return Tokenizer(folder)
    except Exception as error:  # litGPT's and tokenizers' own, of any kind
        raise InheritError(f"litGPT can't read the tokenizer in {folder}: {error}") from error
