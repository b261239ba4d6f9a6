"""A GPT-2: litGPT has none, fills in GPT-NeoX's settings, and finds ours by an import that the recipe has to cause."""

import dataclasses
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.yaml_document import Document
from inheritune_lit.recipes.check.findings import Finding
from inheritune_lit.recipes.litgpt_settings import config_class

SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "padded_vocab_size")


def states_gpt2(document: Document) -> bool:
    return bool(document.get("model_config.hf_config.model_type") == "gpt2")


def check_gpt2(document: Document) -> list[Finding]:
    """What stands in the way of a recipe whose model_config.hf_config.model_type is gpt2."""
    return _model(document.content["model_config"]) + _placed(document) + _tied(document)


def _model(model: dict[str, Any]) -> list[Finding]:
    from inheritune_lit.gpt2.options import FIXED, check

    Config = config_class()
    known = {f.name for f in dataclasses.fields(Config)}
    try:
        actual = Config(**{key: value for key, value in model.items() if key in known})
    except Exception as error:  # litGPT checks with asserts and lets the constructor's errors through
        return [Finding("error", "model_config", f"litGPT can't make a model of it: {error}.", "Mend what it names.")]
    findings = []
    for key in SIZES:
        if key not in model:
            text = f"It is left out, and litGPT then takes {getattr(actual, key):,}."
            findings.append(Finding("error", f"model_config.{key}", text, "Write what you mean."))
    for key, value in FIXED.items():
        if (found := getattr(actual, key)) != value:
            taken = f"It is {found!r}" if key in model else f"It is left out, and litGPT then takes {found!r}"
            shown = str(value).lower() if isinstance(value, bool) else "null" if value is None else value
            findings.append(
                Finding("error", f"model_config.{key}", f"{taken}; a GPT-2's is {shown}.", _write(key, shown))
            )
    if not findings:  # its options
        try:
            check(actual)
        except Exception as error:  # values of another kind, too
            text = str(error) if isinstance(error, InheritError) else f"A value in it is of another kind: {error}."
            findings.append(Finding("error", "model_config.hf_config", text, "Mend what it names."))
    return findings


def _write(key: str, value: Any) -> str:
    return f"Write {key}: {value}."


def _placed(document: Document) -> list[Finding]:
    path = str(document.get("data.class_path"))
    if path.startswith("inheritune_lit."):
        return []
    text = (
        f"It is {path}. litGPT gets its GPT-2 from inheritune_lit.data, which is imported because data.class_path lies "
        "there; else it trains a model without positions, and does not say so."
    )
    return [Finding("error", "data.class_path", text, "Write inheritune_lit.data.PackedTokens.")]


def _tied(document: Document) -> list[Finding]:
    if not document.get("train.tie_embeddings"):
        return []
    text = "A GPT-2 here has no head beside its token embedding: they are tied by themselves, and litGPT stops at once."
    return [Finding("error", "train.tie_embeddings", text, "Write false.")]
