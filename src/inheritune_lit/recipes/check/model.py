"""The model: litGPT fills a partial model_config with Config's defaults, not with those of the model it names."""

import dataclasses
from typing import Any

from inheritune_lit.base.yaml_document import Document
from inheritune_lit.checkpoint.folder import PER_LAYER
from inheritune_lit.recipes.check.findings import Finding
from inheritune_lit.recipes.check.gpt2 import check_gpt2, states_gpt2
from inheritune_lit.recipes.check.numbers import in_range
from inheritune_lit.recipes.litgpt_settings import config_class


def check_model(document: Document) -> list[Finding]:
    name, model = document.get("model_name"), document.get("model_config")
    if name is None:
        return [Finding("error", "model_name", "litGPT requires it, even beside model_config.", "Name the reference.")]
    if model is None:
        return _named(str(name))
    if not isinstance(model, dict):
        return []  # said already
    if model.get("n_layer") is not None and not in_range("model_config.n_layer", model["n_layer"]):
        return []  # said among the numbers; what follows makes lists of so many
    findings = _shape(model)
    stated = model.get("name")
    if stated is None:
        findings.append(_unnamed(str(name)))
    elif stated != name:
        text = f"It is {name!r}, model_config.name is {stated!r}: litGPT goes by the latter and ignores the former."
        findings.append(Finding("warning", "model_name", text, f"Write {stated} in both."))
    if states_gpt2(document):
        return findings + check_gpt2(document)
    return findings + _against_reference(model, str(stated or name), document)


def _known(name: str) -> Any:
    try:
        return config_class().from_name(name)
    except ValueError:
        return None


def _named(name: str) -> list[Finding]:
    if _known(name):
        text = f"None is given: litGPT trains {name} whole, with all of its blocks."
        return [Finding("warning", "model_config", text, "For a shorter one give the whole block, n_layer in it.")]
    fix = "`litgpt pretrain list` shows those it knows; another one needs its whole model_config."
    return [Finding("error", "model_name", f"litGPT knows no model {name!r}.", fix)]


def _unnamed(name: str) -> Finding:
    text = "It is left out, and litGPT behaves by the family in the name for some models."
    return Finding("warning", "model_config.name", text, f"Write name: {name}.")


def _shape(model: dict[str, Any]) -> list[Finding]:
    """Contradictions within the block itself."""
    findings = []

    def number(key: str) -> int | None:
        value = model.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    heads, groups, width = number("n_head"), number("n_query_groups"), number("n_embd")
    if heads and groups and heads % groups:
        text = f"{heads} heads can't share {groups} groups of keys and values evenly."
        findings.append(Finding("error", "model_config.n_query_groups", text, f"Choose a divisor of n_head, {heads}."))
    if heads and width and "head_size" not in model and width % heads:
        text = f"Without head_size, n_embd {width} must divide by n_head {heads}."
        findings.append(Finding("error", "model_config.n_head", text, "State head_size, or mend n_head."))
    blocks = number("n_layer")
    for key in PER_LAYER:
        if blocks and isinstance(entries := model.get(key), list) and len(entries) != blocks:
            text = f"It has {len(entries)} entries for {blocks} blocks."
            findings.append(Finding("error", f"model_config.{key}", text, "Write one for each block, as surgery does."))
    vocabulary, padded = number("vocab_size"), number("padded_vocab_size")
    if vocabulary and padded and vocabulary > padded:
        text = f"It is smaller than vocab_size, {vocabulary}: token ids would lie beyond the embedding."
        findings.append(Finding("error", "model_config.padded_vocab_size", text, f"Write {vocabulary} or more."))
    return findings


def _against_reference(model: dict[str, Any], name: str, document: Document) -> list[Finding]:
    """The block beside litGPT's own config of that name: what is left out falls back to another model's value."""
    reference = _known(name)
    if reference is None:
        text = f"litGPT knows no model {name!r} to compare the block with."
        return [Finding("note", "model_config.name", text, "Make sure that it states everything that its model needs.")]
    Config = config_class()
    known = {f.name for f in dataclasses.fields(Config)}
    try:
        actual = Config(**{key: value for key, value in model.items() if key in known})
    except Exception as error:  # litGPT checks with asserts and lets the constructor's errors through
        return [Finding("error", "model_config", f"litGPT can't make a model of it: {error}.", "Mend what it names.")]
    findings = []
    for key, own in dataclasses.asdict(reference).items():
        value = getattr(actual, key)
        if (
            value == own
            or key in ("n_layer", "hf_config", "name", "padding_multiple")
            or (isinstance(own, list) and key in model)
        ):
            continue
        where = f"model_config.{key}"
        if key not in model:
            text = f"It is left out, and litGPT then takes {value!r}, not {name}'s {own!r}."
            findings.append(Finding("error", where, text, f"Write {key}: {_yaml(own)}."))
        elif key != "block_size":
            text = (
                f"It is {value!r}, {name} has {own!r}: weights cut from {name} would not fit, or mean something else."
            )
            severity: Any = "error" if document.get("initial_checkpoint_dir") and _is_shape(key) else "warning"
            findings.append(Finding(severity, where, text, f"Write {_yaml(own)}, unless you mean another model."))
    return findings + _depth(actual.n_layer, reference.n_layer, name, model.get("n_layer") is not None)


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _is_shape(key: str) -> bool:
    return key in {
        *("n_embd", "n_head", "n_query_groups", "head_size", "intermediate_size", "padded_vocab_size", "bias"),
        *("norm_class_name", "mlp_class_name", "lm_head_bias", "attn_bias"),
    }


def _depth(blocks: int, available: int, name: str, stated: bool) -> list[Finding]:
    if not stated:
        text = f"It is left out, and litGPT then takes {blocks} blocks."
        return [Finding("error", "model_config.n_layer", text, "Write how many blocks the model has.")]
    if blocks > available:
        text = f"It is {blocks}, but {name} has only {available} blocks to inherit."
        return [Finding("warning", "model_config.n_layer", text, f"Write {available} or fewer.")]
    return []
