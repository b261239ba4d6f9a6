"""Locks of recipes that nobody has run: what can be known without a run, and what was published of it."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from litgpt.config import Config

from inheritune_lit.base.yaml_document import Loader, read_document
from inheritune_lit.plan.model import count_parameters
from inheritune_lit.published import losses, scores
from inheritune_lit.recipes.listing import LOCK
from inheritune_lit.reproduce.document import lock_text
from inheritune_lit.reproduce.facts import recipe_hashes
from inheritune_lit.reproduce.locking import MADE
from recipes import gpt2, low_data

SHIPPED = Path(__file__).parents[2] / "recipes"
LICENCES = {"openllama3b": "apache-2.0", "openllama7b": "apache-2.0", "llama2_7b": "llama2"}


def render(files: dict[str, str]) -> dict[str, str]:
    """Path in recipes/ → text, of a lock beside each recipe of the tables, whose texts `files` has."""
    runs: list[Any] = [*low_data.runs(), *gpt2.runs()]
    return {f"{run.name}{LOCK}": lock_text(_content(run, files)) for run in runs}


def _content(run: Any, files: dict[str, str]) -> dict[str, Any]:
    settings = yaml.load(files[f"{run.name}.yaml"], Loader)
    low = isinstance(run, low_data.Run)
    cut = files.get(f"surgery/{run.target}.yaml")
    surgery = {"start": "inherit", "layers": yaml.safe_load(cut)["layers"]} if cut else {}
    data = read_document(SHIPPED / "data" / f"{run.corpus.name}.yaml").content
    kept = {name: value for name, value in data.items() if name not in ("out_dir", "tokenizer_dir")}
    if "://" not in kept["input_dir"]:
        del kept["input_dir"]
    return {
        "name": run.name.rpartition("/")[2],
        "status": "not run",
        "exact": {
            **dict.fromkeys(("reference", "teacher", "tokenizer", "train", "val")),
            "start": None if settings["initial_checkpoint_dir"] else "random",
            "recipe": recipe_hashes(settings),
            "batches": [],
            "versions": {},
        },
        "first_steps": {
            **{"untrained": None, "losses": {}, "bands": {}, "repeats": 0, "deviation": {}, "numerics": {}},
            "allowed": {},
        },
        "whole_run": {"runs": 0, "curve": [], "domains": {}, **_published(run)},
        "made": dict.fromkeys(("machine", *MADE)),
        "inputs": {"reference": _reference(run, low), "surgery": surgery, "data": kept},
    }


def _reference(run: Any, low: bool) -> dict[str, Any]:
    name = run.reference.model_name if low else run.reference_name
    size = _bytes(name) if low else None
    hub = run.reference.repository if low else "openai-community/gpt2" if run.target is None else None
    licence = LICENCES[run.reference_key] if low else "mit" if hub else None
    return {"name": name, "hub": hub, "package": None, "licence": licence, "bytes": size}


@cache
def _bytes(name: str) -> int:
    """Of a reference's weights in 16 bits."""
    return 2 * count_parameters(Config.from_name(name)).total


def _published(run: Any) -> dict[str, Any]:
    validation, suites, source = {}, {}, None
    if isinstance(run, gpt2.Run) and run.published:
        loss = {"tokens": run.max_tokens, "loss": run.published.loss, "band": None}
        validation, source = {"100": loss}, f"{losses('gpt2_losses').source}: {run.published.log}"
    elif isinstance(run, low_data.Run) and run.reproduces == low_data.MAIN:
        table = scores("low_data")
        model = next(
            model for model in table.models if model.role == "paper" and model.reference == run.reference.title
        )
        suites = {
            "low_data": {
                name: {"metric": task.metric, "num_fewshot": task.num_fewshot, "value": model.scores[name] / 100}
                | {"stderr": None}
                for name, task in table.tasks.items()
            }
        }
        source = f"{table.source}: {model.name}"
    return {"validation": validation, "scores": suites, "source": source}
