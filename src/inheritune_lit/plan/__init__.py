"""`inheritune plan`: what a recipe will take, before a GPU is rented."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING

from inheritune_lit.base.errors import InheritError
from inheritune_lit.plan.machines import Gpu, gpu_named
from inheritune_lit.recipes.recipe import Recipe

if TYPE_CHECKING:
    from inheritune_lit.plan.figures import Plan


def plan(
    recipe: Path,
    gpu: str = "a6000",
    devices: int | None = None,
    nodes: int | None = None,
    json: bool = False,
) -> None:
    """Parameters, steps, FLOPs, memory, time and disk of a `litgpt pretrain` recipe.

    Args:
        recipe: The YAML file.
        gpu: a6000, a40, a100-40, a100-80, h100, h100-pcie, h200, l40s or rtx3090.
        devices: GPUs of a node; the recipe's own if it states a number, else 1.
        nodes: Nodes; the recipe's own if left out.
        json: Print the figures as JSON, in plain units: bytes, seconds, tokens, FLOPs.
    """
    from inheritune_lit.plan.report import as_json, table

    figures = plan_recipe(recipe, gpu=gpu, devices=devices, nodes=nodes)
    if json:
        print(json_format.dumps(as_json(figures), indent=2, ensure_ascii=False))
    else:
        print(f"{recipe}\n\n{table(figures)}")


def plan_recipe(path: Path, *, gpu: str = "a6000", devices: int | None = None, nodes: int | None = None) -> "Plan":
    """What a recipe takes on GPUs of one kind.

    Raises:
        InheritError: litGPT refuses the recipe, its batch does not divide by the GPUs, or the GPU is not known here.
    """
    machine, recipe = gpu_named(gpu), Recipe.read(path)
    from inheritune_lit.recipes.check.findings import report
    from inheritune_lit.recipes.check.keys import check_keys
    from inheritune_lit.recipes.check.model import check_model

    findings = [*check_keys(recipe.document), *check_model(recipe)]
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise InheritError(f"litGPT does not accept the recipe.\n{report(path, errors, recipe.document)}")
    known, nodes = recipe.machines(devices, nodes)
    return plan_on(recipe, machine, known or 1, nodes, gpu=gpu.lower())


def plan_on(recipe: Recipe, machine: Gpu, devices: int, nodes: int, *, gpu: str = "") -> "Plan":
    """What a recipe takes on so many devices of each node.

    Raises:
        InheritError: its batch does not divide by them, or it does not say how long it trains on what.
    """
    from inheritune_lit.plan.figures import Plan

    accumulation = recipe.accumulation(devices * nodes)
    sequence, tokens, micro_batch = recipe.sequence, recipe.tokens, recipe.micro_batch
    if not sequence or not tokens or not micro_batch:
        raise InheritError("The recipe does not say how many tokens to train on, or in which windows and batches.")
    return Plan(recipe, sequence, tokens, micro_batch, accumulation, gpu, machine, devices, nodes)
