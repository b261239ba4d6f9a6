"""This machine's devices: which of them litGPT will take, and a recipe's plan on them. Imports no torch."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inheritune_lit.plan import plan_on
from inheritune_lit.plan.machines import Gpu
from inheritune_lit.recipes.recipe import Recipe

if TYPE_CHECKING:
    from inheritune_lit.plan.figures import Plan

HERE = Gpu("this machine", 0, 0, "")  # a run asks its plan for steps and FLOPs; memory and time it will find out


def plan_here(recipe: Mapping[str, Any]) -> "Plan":
    """A recipe's figures on the devices of this machine, whatever they are.

    Raises:
        InheritError: a number of the recipe is none, or litGPT would shrink its batch.
    """
    asked = Recipe.of(recipe)
    devices, nodes = asked.machines(None, None)  # None where litGPT takes all, which torch is not asked for
    return plan_on(asked, HERE, devices or visible_gpus(len(gpu_names())) or 1, nodes)


def visible_gpus(there: int) -> int:
    """How many of a machine's GPUs CUDA_VISIBLE_DEVICES leaves."""
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return there
    named = itertools.takewhile(lambda part: part and part != "-1", map(str.strip, setting.split(",")))  # as CUDA does
    return min(there, len(list(named)))


def gpu_names() -> list[str]:
    """As the driver names them; asking torch would take up memory on one of them for as long as we live."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines() if done.returncode == 0 else []
