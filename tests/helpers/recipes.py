"""The shipped recipes, by kind, and small shards for recipes under test."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from litgpt.pretrain import setup as litgpt_pretrain

from helpers.models import ROOT
from inheritune_lit.grow import grow
from inheritune_lit.prepare.command import prepare
from inheritune_lit.recipes.listing import LOCK, recipes
from inheritune_lit.surgery.command import surgery

EVAL = sorted((ROOT / "recipes/eval").rglob("*.yaml"))


def shards(folder: Path, tokens: int) -> None:
    """A manifest and files of the right size: two domains, one of them a quarter."""
    splits = {}
    for split, size in (("train", tokens), ("val", 4096)):
        splits[split] = []
        for domain, share in (("books", size // 4), ("web", size - size // 4)):
            path = folder / domain / split / "0.ds"
            path.parent.mkdir(parents=True)
            path.write_bytes(bytes(2 * share))
            entry = {"path": str(path.relative_to(folder)), "tokens": share, "sha256": ""}
            splits[split].append(
                {"domain": domain, "tokens": share, "documents": 1, "max_token_id": 9, "shards": [entry]}
            )
    tokenizer = {"identity": "", "vocab_size": 32000}
    content = {"format": 1, "dtype": "uint16", "tokenizer": tokenizer, "splits": splits}
    (folder / "manifest.json").write_text(json.dumps(content))


COMMANDS: dict[str, Callable[..., Any]] = {
    **{".": litgpt_pretrain, "gpt2": litgpt_pretrain, "surgery": surgery, "data": prepare, "growth": grow}
}


LOCKS = sorted((ROOT / "recipes").rglob(f"*{LOCK}"))


RECIPES = sorted({*(ROOT / "recipes").rglob("*.yaml")} - {*EVAL, *LOCKS})


PRETRAIN = recipes(ROOT / "recipes")


def parse(path: Path) -> Namespace:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(COMMANDS[str(path.parent.relative_to(ROOT / "recipes"))], fail_untyped=False)
    config = parser.parse_args(["--config", str(path)])
    return parser.instantiate_classes(config)
