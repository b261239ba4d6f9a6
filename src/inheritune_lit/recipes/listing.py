"""The recipes that travel with the package: where they are, what each is, in a row. No torch, no litGPT."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from inheritune_lit.recipes import table, table_gpt2


def shipped() -> Path:
    """The folder of the shipped recipes: recipes/ of a source tree, its copy in an installed package."""
    return Path(str(files("inheritune_lit.recipes") / "shipped"))


def parameters(model: Mapping[str, Any]) -> tuple[int, int]:
    """Parameters of a model without biases, LLaMA-like or GPT-2, in all and within the blocks and the final norm.

    The tests compare it with the model itself for every recipe; `inheritune plan` counts that one.
    """
    width, inner, vocabulary = model["n_embd"], model["intermediate_size"], model["padded_vocab_size"]
    heads, groups, size = model["n_head"], model["n_query_groups"], model["head_size"]
    attention = width * (heads + 2 * groups) * size + heads * size * width
    gpt2 = model["hf_config"].get("model_type") == "gpt2"
    block = attention + (2 if gpt2 else 3) * width * inner + 2 * width
    inside = model["n_layer"] * block + width
    outside = vocabulary + model["block_size"] if gpt2 else 2 * vocabulary  # positions, and a head that is no other
    return inside + outside * width, inside


def run_named(name: str) -> "table.Run | table_gpt2.Run | None":
    """The run of either table that a recipe of this name was rendered from; None if it was written by hand."""
    return next((run for run in _runs() if run.name == name), None)


def _runs() -> "list[table.Run | table_gpt2.Run]":
    return [*table.runs(), *table_gpt2.runs()]


# Recipes that are in no table: what they reproduce, and their result.
HAND_WRITTEN = {
    "demo": ("the method in ten minutes, on a laptop", "printed by `inheritune demo`"),
    "gpt2/demo_k8": ("growth in a quarter of an hour, on a laptop", "printed by `inheritune grow-demo`"),
}


@dataclass(frozen=True)
class Row:
    """What `inheritune recipes list` and the README's table say of a recipe."""

    name: str
    """Its path in the folder, without .yaml"""
    model: str
    start: str
    """inherited, random or random (reference)"""
    parameters: int
    """With each of embedding and head, unless they are tied"""
    tokens: int
    batch: int
    """Tokens an optimizer step"""
    reproduces: str
    result: str

    @property
    def steps(self) -> int:
        return self.tokens // self.batch


def row(path: Path, name: str) -> Row:
    """Reads a shipped recipe."""
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    model, train = recipe["model_config"], recipe["train"]
    run = run_named(name)
    total, _ = parameters(model)
    tied = model["padded_vocab_size"] * model["n_embd"] if train["tie_embeddings"] else 0
    return Row(
        name=name,
        model=run.model if run else f"{model['name']} → {model['n_layer']}",
        start=run.start if run else "inherited" if recipe["initial_checkpoint_dir"] else "random (reference)",
        parameters=total - tied,
        tokens=train["max_tokens"],
        batch=train["global_batch_size"] * train["max_seq_length"],
        reproduces=run.reproduces if run else HAND_WRITTEN[name][0],
        result=run.result if run else HAND_WRITTEN[name][1],
    )


def rows(folder: Path) -> list[Row]:
    """All `litgpt pretrain` recipes of a folder, in the tables' order, those written by hand after their table."""
    order = {run.name: i for i, run in enumerate(_runs())}
    names = {path.relative_to(folder).with_suffix("").as_posix(): path for path in recipes(folder)}
    listed = sorted(names, key=lambda name: ("/" in name, order.get(name, len(order)), name))
    return [row(names[name], name) for name in listed]


def recipes(folder: Path) -> list[Path]:
    """The `litgpt pretrain` recipes of a folder; in its other folders are those of other commands."""
    return [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("gpt2/*.yaml"))]
