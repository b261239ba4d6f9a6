"""What a recipe comes to once litGPT's defaults and this machine are known."""

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.pretrain.record import gpu_names
from inheritune_lit.pretrain.schedule import Schedule, schedule

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
    schedule: Schedule


def settings_of(recipe: Mapping[str, Any]) -> Settings:
    """The arithmetic of a recipe.

    Raises:
        InheritError: litGPT would refuse its model or its train block, or shrink its batch.
    """
    from litgpt.args import TrainArgs
    from litgpt.config import Config

    try:
        model = recipe.get("model_config")
        config = Config(**model) if model else Config.from_name(recipe["model_name"])
        train = TrainArgs(**recipe["train"])
    except Exception as error:  # litGPT checks with asserts and lets the constructors' errors through
        raise InheritError(
            f"litGPT does not accept the recipe: {type(error).__name__}: {error}. `inheritune recipes validate` lists "
            "all that is wrong with it."
        ) from error
    world_size = device_count(recipe.get("devices", "auto")) * (recipe.get("num_nodes") or 1)
    sequence = train.max_seq_length or config.block_size
    counted = schedule(vars(train), world_size, sequence, _loader_windows(recipe, sequence))
    return Settings(
        config=config,
        world_size=world_size,
        sequence=sequence,
        global_batch=train.global_batch_size,
        steps=counted.max_iters // counted.accumulation,
        schedule=counted,
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


def _loader_windows(recipe: Mapping[str, Any], sequence: int) -> int | None:
    """Windows of all epochs of PackedTokens; None where lr_warmup_fraction is not used."""
    from inheritune_lit.data.manifest import Manifest

    if not recipe["train"].get("lr_warmup_fraction"):
        return None
    options = (recipe.get("data") or {}).get("init_args") or {}
    if "data_path" not in options:
        raise InheritError("train.lr_warmup_fraction is known for PackedTokens only: write lr_warmup_steps instead.")
    tokens = Manifest(Path(str(options["data_path"]))).splits["train"].tokens
    return int(options.get("epochs", 1)) * ((tokens - 1) // sequence)
