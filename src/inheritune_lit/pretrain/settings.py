"""What a recipe comes to once litGPT's defaults and this machine are known."""

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import config_of
from inheritune_lit.pretrain.record import gpu_names
from inheritune_lit.recipes.recipe import Recipe

if TYPE_CHECKING:
    from litgpt.config import Config


@dataclass(frozen=True)
class Settings:
    """A run's arithmetic."""

    config: "Config"
    world_size: int
    sequence: int
    """Tokens of a window"""
    global_batch: int
    steps: int
    accumulation: int
    """Micro-batches that each device takes an optimizer step"""
    data: Mapping[str, Any]
    """The data module's settings"""

    def windows(self, first: int, last: int) -> list[int]:
        """The windows that the optimizer steps `first` to `last`, from 1, were trained on, in order.

        Raises:
            InheritError: the recipe's data are not PackedTokens, or are not at hand.
        """
        from inheritune_lit.data.manifest import Manifest
        from inheritune_lit.data.order import epoch_order

        if "data_path" not in self.data:
            raise InheritError("which windows they used is known for PackedTokens only.")
        windows = Manifest(Path(str(self.data["data_path"]))).splits["train"].windows(self.sequence)
        places = [divmod(i, windows) for i in range((first - 1) * self.global_batch, last * self.global_batch)]
        seed = int(self.data.get("seed", 42))
        orders = {epoch: epoch_order(windows, seed, epoch) for epoch in {epoch for epoch, _ in places}}
        return [int(orders[epoch][position]) for epoch, position in places]


def settings_of(recipe: Mapping[str, Any]) -> Settings:
    """The arithmetic of a recipe.

    Raises:
        InheritError: litGPT would refuse its model or its train block, or shrink its batch.
    """
    from litgpt.args import TrainArgs

    try:
        config = config_of(recipe)
        TrainArgs(**recipe["train"])
    except Exception as error:  # litGPT checks with asserts and lets the constructors' errors through
        raise InheritError(
            f"litGPT does not accept the recipe: {type(error).__name__}: {error}. `inheritune recipes validate` lists "
            "all that is wrong with it."
        ) from error
    numbers = Recipe.of(recipe)
    if not numbers.sequence or not numbers.global_batch or numbers.steps is None:
        raise InheritError(
            "The recipe's batch, budget or sequence is no number: `inheritune recipes validate` says which."
        )
    world_size = device_count(recipe.get("devices", "auto")) * (recipe.get("num_nodes") or 1)
    return Settings(
        config=config,
        world_size=world_size,
        sequence=numbers.sequence,
        global_batch=numbers.global_batch,
        steps=numbers.steps,
        accumulation=numbers.accumulation(world_size),
        data=numbers.data,
    )


def device_count(devices: Any) -> int:
    """How many devices of this machine litGPT will take, as its parse_devices says, without asking torch."""
    if isinstance(devices, int) and devices > 0:
        return devices
    return visible_gpus(len(gpu_names())) or 1


def visible_gpus(there: int) -> int:
    """How many of a machine's GPUs CUDA_VISIBLE_DEVICES leaves."""
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return there
    named = itertools.takewhile(lambda part: part and part != "-1", map(str.strip, setting.split(",")))  # as CUDA does
    return min(there, len(list(named)))
