"""What transformers makes of a Hugging Face folder, found out in a process of its own.

`reload` opens the folder as any user would, and refuses what transformers only warns of. A process that has just
written the model could answer from its memory; a new one can't.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError, first_few
from inheritune_lit.base.files import read_json
from inheritune_lit.base.folders import natural
from inheritune_lit.checkpoint.folder import HF_CONFIG, refuse_code
from inheritune_lit.checkpoint.hugging_face import weight_files

if TYPE_CHECKING:
    import torch

TEXT = """A river begins as a thread of water between two stones. It follows the shortest way down, and where the ground
is soft it cuts a bed that the next rain will find again. After 40 miles it is wide enough to carry a boat; after 400 it
has a name, a port, and a history that its neighbours dispute. Nobody planned its course. Ask why it bends at the mill
and you are told of a ridge of harder rock, or of a field that was flooded in 1784, or of nothing at all.
"""
# Where two implementations of one tokenizer come apart: runs of spaces, line breaks, digits, letters beyond ASCII.
SAMPLES = (
    TEXT,
    "Two  spaces, three   spaces,\ta tab;  and a space at the end ",
    "def area(r):\n    return 3.14159 * r ** 2  # m²\n\n\nprint(area(10))",
    "naïve café – “quoted” don't they'll 1,234.5 % 东京 Привет 🙂",
)


@dataclass(frozen=True)
class Reloaded:
    """A Hugging Face folder as transformers opened it."""

    depth: int
    """Blocks that the model was built with, every tensor of which was in the files"""
    parameters: int
    dtype: str
    """Of every tensor in the files, as config.json says it"""
    use_fast: bool
    """Whether AutoTokenizer's own choice, the fast tokenizer, was used"""
    ids: tuple[tuple[int, ...], ...]
    """Token ids of SAMPLES, without special tokens"""
    window: tuple[int, ...]
    """The ids of TEXT that went into the model: all that its context holds"""
    logits: "torch.Tensor"
    """Of the window, (T, V), computed in float32"""


def reload_in_new_process(folder: Path, *, use_fast: bool = True) -> Reloaded:
    """`reload` in a fresh Python process that has no network.

    Raises:
        InheritError: what `reload` raised there, or that the process died.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_offline) as pool:
        try:
            return pool.submit(reload, Path(folder).resolve(), use_fast=use_fast).result()
        except BrokenProcessPool as error:
            raise InheritError(
                f"The process in which transformers opened {folder} died. Was the memory full?"
            ) from error


def _offline() -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}


def reload(folder: Path, *, use_fast: bool = True) -> Reloaded:
    """Opens a Hugging Face folder with transformers: no tensor missing, none left over, none of another shape or type.

    Raises:
        InheritError: saying what transformers could not use or would have made up.
    """
    import torch

    refuse_code(folder)
    model = open_model(folder, torch.float32)
    dtype = _dtype(folder)
    ids = _token_ids(folder, use_fast)
    window = ids[0][: getattr(model.config, "max_position_embeddings", None)]
    rows, largest = model.get_input_embeddings().weight.shape[0], max(map(max, filter(None, ids)), default=0)
    if not window or largest >= rows:
        raise InheritError(
            f"The tokenizer in {folder} gives ids up to {largest}, the model has embeddings for {rows} tokens: this is "
            "another model's tokenizer."
        )
    try:
        with torch.inference_mode():
            logits = model(torch.tensor([window])).logits[0]
    except Exception as error:  # a config.json whose parts do not fit together
        raise InheritError(f"transformers can't run the model in {folder}: {type(error).__name__}: {error}") from error
    return Reloaded(
        model.config.num_hidden_layers, model.num_parameters(), dtype, use_fast, ids, window, logits.float()
    )


def attention_of(hf_config: Any) -> str | None:
    """What to pass as `attn_implementation`: None is transformers' own choice, SDPA.

    SDPA has no soft cap, and transformers leaves a Gemma 2's out under it, as it does a GPT-2's inverse-layer scale:
    another model.
    """
    language = hf_config.get_text_config(decoder=True)
    left_out = ("attn_logit_softcapping", "scale_attn_by_inverse_layer_idx")
    return "eager" if any(getattr(language, key, None) for key in left_out) else None


def open_model(folder: Path, dtype: Any) -> Any:
    """transformers' model of a folder that `refuse_code` has passed, in evaluation mode.

    transformers fills tensors that are not in the files with random numbers and only warns; here it is an error.

    Raises:
        InheritError: transformers can't load it, or its weights are not those that its config.json describes.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention_of(config),
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        model, info = loaded
    except Exception as error:  # transformers and safetensors raise whatever the damage makes them raise
        reason = f"{type(error).__name__}: {error}"
        if "trust_remote_code" in reason:
            reason = "it needs code of its own repository, and only models that transformers itself has are opened."
        raise InheritError(f"transformers can't open {folder}: {reason}") from error
    problems = [f"{name} is missing" for name in sorted(info["missing_keys"], key=natural)]
    problems += [f"{name} belongs to no block" for name in sorted(info["unexpected_keys"], key=natural)]
    problems += [f"{key[0]} has another shape" for key in sorted(info["mismatched_keys"], key=lambda k: natural(k[0]))]
    if problems := [*problems, *info["error_msgs"]]:
        raise InheritError(
            f"{folder / HF_CONFIG} (depth {model.config.num_hidden_layers}) does not describe the weights beside it: "
            f"{'; '.join(first_few(problems))}. transformers would fill what is missing with random numbers."
        )
    return model.eval()


def _dtype(folder: Path) -> str:
    from safetensors import safe_open

    config = read_json(folder / HF_CONFIG, "Hugging Face config")
    stated = str(config.get("dtype", config.get("torch_dtype")))
    short = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}.get(stated, stated)
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  not a dict
                if (found := file.get_slice(name).get_dtype()) != short:
                    raise InheritError(f"{path}: {name} is {found}, {HF_CONFIG} says {stated}.")
    return stated


def _token_ids(folder: Path, use_fast: bool) -> tuple[tuple[int, ...], ...]:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, use_fast=use_fast, local_files_only=True, trust_remote_code=False
        )
        return tuple(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in SAMPLES)
    except Exception as error:
        raise InheritError(f"transformers can't open the tokenizer in {folder}: {error}") from error
