"""Is an exported folder the model that litGPT has? Opened in a new process, and compared: depth, token ids, logits.

Both sides compute in float32, from the very same weights (rounded to the exported type), so that one tight bound holds
for every type. What the rounding itself did to the logits is another number, with a bound for each type.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import HF_CONFIG, MODEL_CONFIG, WEIGHTS, find_checkpoint, load_config
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.export.reload import SAMPLES, Reloaded, reload_in_new_process

if TYPE_CHECKING:
    import torch

# The largest difference of a logit, relative to the largest logit. Llamas agree to the bit on one CPU, the least exact
# family, Phi, to 1e-5; a wrong rotary base, norm or tensor makes 1e-2 and more.
LOGITS_BOUND = 1e-4
# Measured 2e-3 to 7e-3 for bfloat16 on SmolLM2-135M, whole, cut and trained; float16 has 3 bits more, so an eighth.
ROUNDING_BOUND = {"float32": 0.0, "bfloat16": 0.05, "float16": 0.05 / 8}


def check_export(folder: Path, checkpoint: Path, dtype: str) -> tuple[Reloaded, dict[str, Any]]:
    """Opens an exported folder in a new process and compares it with the litGPT checkpoint that it was made from.

    Returns:
        What transformers found, and the entry `check` of the receipt.

    Raises:
        InheritError: transformers can't open it, or its depth, token ids or logits are not litGPT's.
    """
    reloaded = reload_with_tokenizer_of(folder, checkpoint)
    config = load_config(checkpoint)
    if reloaded.depth != config.n_layer or reloaded.dtype != dtype:
        raise InheritError(
            f"{folder} came back with {reloaded.depth} blocks in {reloaded.dtype}, expected {config.n_layer} in "
            f"{dtype}."
        )
    exact = litgpt_logits(checkpoint, reloaded.window, None)
    rounded = exact if dtype == "float32" else litgpt_logits(checkpoint, reloaded.window, dtype)
    conversion, rounding = difference(reloaded.logits, rounded), difference(rounded, exact)
    # a GPT-2's queries are divided by their block's number before they are rounded, litGPT's after
    bound = max(LOGITS_BOUND, ROUNDING_BOUND[dtype]) if gpt2.is_gpt2(config) else LOGITS_BOUND
    if not conversion <= bound:  # NaN is not within it either
        raise InheritError(
            f"The logits of {folder} differ from litGPT's with the same weights by {conversion:.2g} of the largest, "
            f"expected {bound:.0e} at most: {HF_CONFIG} and {MODEL_CONFIG} in {checkpoint} describe two models."
        )
    if not rounding <= ROUNDING_BOUND[dtype]:
        raise InheritError(
            f"Rounding the weights to {dtype} changes the logits by {rounding:.2g} of the largest, expected "
            f"{ROUNDING_BOUND[dtype]:.0e} at most. Export with --dtype float32."
        )
    check = {
        "depth": reloaded.depth,
        "tokens": len(reloaded.window),
        "logits": {"relative_difference": conversion, "bound": bound},
        "rounding": {"relative_difference": rounding, "bound": ROUNDING_BOUND[dtype]},
    }
    return reloaded, check


def verify_export(folder: Path, receipt: Mapping[str, Any], checkpoint: Path | None) -> None:
    """Opens an exported folder again: does it hold the model of its receipt and, if it is given, of the checkpoint?

    Raises:
        InheritError: it does not.
    """
    if checkpoint is None:
        reloaded = reload_with_tokenizer_of(folder, folder)
    else:
        checkpoint = find_checkpoint(checkpoint)
        if (found := Weights(checkpoint / WEIGHTS).fingerprint()) != receipt["source"]["fingerprint"]:
            raise InheritError(
                f"{checkpoint} is not the source of {folder}: its fingerprint is {found[:16]}…, the receipt has "
                f"{receipt['source']['fingerprint'][:16]}…."
            )
        reloaded, check = check_export(folder, checkpoint, receipt["dtype"])
        print(f"{folder}: logits differ from litGPT's by {check['logits']['relative_difference']:.1e} of the largest")
    if (reloaded.depth, reloaded.parameters) != (receipt["check"]["depth"], receipt["parameters"]):
        raise InheritError(
            f"{folder} came back with {reloaded.depth} blocks and {reloaded.parameters:,} parameters, its receipt has "
            f"{receipt['check']['depth']} and {receipt['parameters']:,}. Export it again."
        )
    print(f"{folder}: {reloaded.depth} blocks, all tensors there and none left over, token ids as litGPT's")


def reload_with_tokenizer_of(folder: Path, checkpoint: Path) -> Reloaded:
    """Reloads `folder` with whichever tokenizer, fast or slow, gives the token ids of litGPT's in `checkpoint`.

    OpenLLaMA's SentencePiece model is one for which transformers' conversion into a fast tokenizer is not exact.

    Raises:
        InheritError: neither gives them.
    """
    from inheritune_lit.data.tokenizer import Tokenizer

    tokenizer = Tokenizer(checkpoint)
    expected = [tokenizer.encode(text, bos=False).tolist() for text in SAMPLES]
    for use_fast in (True, False):
        reloaded = reload_in_new_process(folder, use_fast=use_fast)
        if [list(ids) for ids in reloaded.ids] == expected:
            return reloaded
    differing = next(i for i, ids in enumerate(reloaded.ids) if list(ids) != expected[i])
    raise InheritError(
        f"AutoTokenizer in {folder} is not litGPT's tokenizer in {checkpoint}: {SAMPLES[differing][:40]!r}… "
        f"is {list(reloaded.ids[differing][:8])}… and {expected[differing][:8]}…. One of the tokenizer files is "
        "another model's."
    )


def litgpt_logits(checkpoint: Path, ids: Sequence[int], dtype: str | None) -> "torch.Tensor":
    """litGPT's logits (T, V) of token ids, computed in float32 from the weights after rounding to `dtype`."""
    import torch

    model = load_model(checkpoint)
    for parameter in model.parameters():  # not .to(dtype), which would round the rotary tables too
        rounded = parameter.data if dtype is None else parameter.data.to(getattr(torch, dtype))
        parameter.data = rounded.to(torch.float32)
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([list(ids)]))[0]
    return logits


def difference(found: "torch.Tensor", expected: "torch.Tensor") -> float:
    """The largest difference of two models' logits (T, V), relative to the largest logit.

    The second may have more columns: litGPT pads the vocabulary of some families.
    """
    return float((found - expected[:, : found.shape[-1]]).abs().max() / expected.abs().max())
