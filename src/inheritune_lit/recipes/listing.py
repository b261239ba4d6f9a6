"""The recipes that travel with the package: where they are, what each is, in a row. No torch, no litGPT."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from inheritune_lit.recipes.table import Run, run_named, runs


def shipped() -> Path:
    """The folder of the shipped recipes: recipes/ of a source tree, its copy in an installed package."""
    return Path(str(files("inheritune_lit.recipes") / "shipped"))


def parameters(model: Mapping[str, Any]) -> tuple[int, int]:
    """Parameters of a LLaMA-like model without biases, in all and without embedding and head, from its model_config.

    The tests compare it with litGPT's own model for every recipe; `inheritune plan` counts that one.
    """
    width, inner, vocabulary = model["n_embd"], model["intermediate_size"], model["padded_vocab_size"]
    heads, groups, size = model["n_head"], model["n_query_groups"], model["head_size"]
    attention = width * (heads + 2 * groups) * size + heads * size * width
    block = attention + 3 * width * inner + 2 * width
    inside = model["n_layer"] * block + width
    return inside + 2 * vocabulary * width, inside


@dataclass(frozen=True)
class Row:
    """What `inheritune recipes list` and the README's table say of a recipe."""

    name: str
    reference: str
    n_layer: int
    start: str
    """inherited or random"""
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


def row(path: Path) -> Row:
    """Reads a shipped recipe."""
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    model, train = recipe["model_config"], recipe["train"]
    run = run_named(path.stem)
    total, _ = parameters(model)
    tied = model["padded_vocab_size"] * model["n_embd"] if train["tie_embeddings"] else 0
    return Row(
        name=path.stem,
        reference=run.reference.title if run else model["name"],
        n_layer=model["n_layer"],
        start="inherited" if recipe["initial_checkpoint_dir"] else "random",
        parameters=total - tied,
        tokens=train["max_tokens"],
        batch=train["global_batch_size"] * train["max_seq_length"],
        reproduces=_reproduces(run),
        result=run.result if run else "printed by `inheritune demo`",
    )


def rows(folder: Path) -> list[Row]:
    """All `litgpt pretrain` recipes of a folder, in the table's order, those written by hand last."""
    order = {run.name: i for i, run in enumerate(runs())}
    paths = sorted(folder.glob("*.yaml"), key=lambda path: (order.get(path.stem, len(order)), path.stem))
    return [row(path) for path in paths]


def _reproduces(run: Run | None) -> str:
    if run is None:
        return "the method in ten minutes, on a laptop"
    return f"comparison for {run.name.removesuffix('_random')}" if run.random else run.reproduces
