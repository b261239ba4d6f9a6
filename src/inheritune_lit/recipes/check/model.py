"""The model: litGPT fills a partial model_config with Config's defaults, not with those of the model it names."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import PER_LAYER
from inheritune_lit.recipes.check.findings import Finding, error, note, warning
from inheritune_lit.recipes.litgpt_settings import config_class
from inheritune_lit.recipes.recipe import Recipe, in_range

SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "padded_vocab_size")
"""What a GPT-2's recipe has to state, as litGPT's own values are of no GPT-2"""
SHAPES = {
    *("n_embd", "n_head", "n_query_groups", "head_size", "intermediate_size", "padded_vocab_size", "bias"),
    *("norm_class_name", "mlp_class_name", "lm_head_bias", "attn_bias"),
}


def check_model(recipe: Recipe) -> Iterator[Finding]:
    name, model = recipe.document.get("model_name"), recipe.document.get("model_config")
    if name is None:
        return  # said already
    if model is None:
        yield _named(str(name))
    elif isinstance(model, dict) and in_range("model_config.n_layer", model.get("n_layer") or 1):
        yield from _shape(model)
        stated = model.get("name")
        if stated is None:
            text = "It is left out, and litGPT behaves by the family in the name for some models."
            yield warning("model_config.name", text, f"Write name: {name}.")
        elif stated != name:
            text = f"It is {name!r}, model_config.name is {stated!r}: litGPT goes by the latter and ignores the former."
            yield warning("model_name", text, f"Write {stated} in both.")
        yield from _gpt2(recipe, model) if recipe.is_gpt2 else _against_reference(recipe, model, str(stated or name))


def _known(name: str) -> Any:
    try:
        return config_class().from_name(name)
    except ValueError:
        return None


def _named(name: str) -> Finding:
    if _known(name):
        text = f"None is given: litGPT trains {name} whole, with all of its blocks."
        return warning("model_config", text, "For a shorter one give the whole block, n_layer in it.")
    fix = "`litgpt pretrain list` shows those it knows; another one needs its whole model_config."
    return error("model_name", f"litGPT knows no model {name!r}.", fix)


def _shape(model: Mapping[str, Any]) -> Iterator[Finding]:
    """Contradictions within the block itself."""
    number = {k: v for k, v in model.items() if isinstance(v, int) and not isinstance(v, bool) and v}
    heads, groups, width, blocks = map(number.get, ("n_head", "n_query_groups", "n_embd", "n_layer"))
    if heads and groups and heads % groups:
        text = f"{heads} heads can't share {groups} groups of keys and values evenly."
        yield error("model_config.n_query_groups", text, f"Choose a divisor of n_head, {heads}.")
    if heads and width and "head_size" not in model and width % heads:
        text = f"Without head_size, n_embd {width} must divide by n_head {heads}."
        yield error("model_config.n_head", text, "State head_size, or mend n_head.")
    for key in PER_LAYER:
        if blocks and isinstance(entries := model.get(key), list) and len(entries) != blocks:
            text = f"It has {len(entries)} entries for {blocks} blocks."
            yield error(f"model_config.{key}", text, "Write one for each block, as surgery does.")
    vocabulary, padded = map(number.get, ("vocab_size", "padded_vocab_size"))
    if vocabulary and padded and vocabulary > padded:
        text = f"It is smaller than vocab_size, {vocabulary}: token ids would lie beyond the embedding."
        yield error("model_config.padded_vocab_size", text, f"Write {vocabulary} or more.")


def _against_reference(recipe: Recipe, model: Mapping[str, Any], name: str) -> Iterator[Finding]:
    """The block beside litGPT's own config of that name: what is left out falls back to another model's value."""
    if (reference := _known(name)) is None:
        text = f"litGPT knows no model {name!r} to compare the block with."
        yield note("model_config.name", text, "Make sure that it states everything that its model needs.")
        return
    try:
        actual = recipe.config
    except InheritError as problem:
        yield error("model_config", str(problem), "Mend what it names.")
        return
    for key, own in dataclasses.asdict(reference).items():
        value, where = getattr(actual, key), f"model_config.{key}"
        if value == own or key in ("n_layer", "hf_config", "name", "padding_multiple"):
            continue
        if key not in model:
            text = f"It is left out, and litGPT then takes {value!r}, not {name}'s {own!r}."
            yield error(where, text, f"Write {key}: {_yaml(own)}.")
        elif key != "block_size" and not isinstance(own, list):
            text = f"It is {value!r}, {name} has {own!r}: weights cut from it would not fit, or mean something else."
            kind = error if recipe.document.get("initial_checkpoint_dir") and key in SHAPES else warning
            yield kind(where, text, f"Write {_yaml(own)}, unless you mean another model.")
    if model.get("n_layer") is None:
        text = f"It is left out, and litGPT then takes {actual.n_layer} blocks."
        yield error("model_config.n_layer", text, "Write how many blocks the model has.")
    elif actual.n_layer > reference.n_layer:
        text = f"It is {actual.n_layer}, but {name} has only {reference.n_layer} blocks to inherit."
        yield warning("model_config.n_layer", text, f"Write {reference.n_layer} or fewer.")


def _gpt2(recipe: Recipe, model: Mapping[str, Any]) -> Iterator[Finding]:
    """A GPT-2: litGPT has none, fills in GPT-NeoX's settings, and finds ours by an import that the recipe causes."""
    if not (path := str(recipe.document.get("data.class_path"))).startswith("inheritune_lit."):
        text = (
            f"It is {path}. litGPT gets its GPT-2 from inheritune_lit.data, which is imported because data.class_path "
            "lies there; else it trains a model without positions, and does not say so."
        )
        yield error("data.class_path", text, "Write inheritune_lit.data.PackedTokens.")
    if recipe.document.get("train.tie_embeddings"):
        text = "A GPT-2 here has no head beside its token embedding: litGPT finds nothing to tie, and stops at once."
        yield error("train.tie_embeddings", text, "Write false.")
    from inheritune_lit.gpt2.options import FIXED, check

    try:
        actual = recipe.config
    except InheritError as problem:
        yield error("model_config", str(problem), "Mend what it names.")
        return
    wrong = {key: "" for key in SIZES if key not in model}
    wrong |= {key: f"; a GPT-2's is {_yaml(own)}" for key, own in FIXED.items() if getattr(actual, key) != own}
    for key, wanted in wrong.items():
        taken = "It is" if key in model else "It is left out, and litGPT then takes"
        fix = f"Write {key}: {_yaml(FIXED[key])}." if wanted else "Write what you mean."
        value = getattr(actual, key)
        shown = f"{value:,}" if key in SIZES else _yaml(value)
        yield error(f"model_config.{key}", f"{taken} {shown}{wanted}.", fix)
    if not wrong:  # its options
        try:
            check(actual)
        except Exception as problem:  # values of another kind, too
            text = str(problem) if isinstance(problem, InheritError) else f"A value is of another kind: {problem}."
            yield error("model_config.hf_config", text, "Mend what it names.")


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
