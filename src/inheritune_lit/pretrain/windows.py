"""Which windows of the training data a step used, and where their text is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError
from inheritune_lit.pretrain.settings import Settings

SHOWN = 64  # windows that are named one by one


def windows_of(recipe: Mapping[str, Any], settings: Settings, first: int, last: int) -> list[int]:
    """The windows that the optimizer steps `first` to `last`, from 1, were trained on, in order.

    Raises:
        InheritError: the recipe's data are not PackedTokens, or are not at hand.
    """
    from inheritune_lit.data.manifest import Manifest
    from inheritune_lit.data.order import epoch_order

    options = (recipe.get("data") or {}).get("init_args") or {}
    if "data_path" not in options:
        raise InheritError("which windows they used is known for PackedTokens only.")
    manifest = Manifest(Path(str(options["data_path"])))
    windows, seed = manifest.splits["train"].windows(settings.sequence), int(options.get("seed", 42))
    positions = range((first - 1) * settings.global_batch, last * settings.global_batch)
    orders = {epoch: epoch_order(windows, seed, epoch) for epoch in {position // windows for position in positions}}
    return [int(orders[position // windows][position % windows]) for position in positions]


def describe(recipe: Mapping[str, Any], settings: Settings, first: int, last: int) -> str:
    """One sentence that names the windows of some steps, and how to find them."""
    steps = f"Step {last}" if first == last else f"The steps {first} to {last}"
    try:
        taken = windows_of(recipe, settings, first, last)
    except InheritError as error:
        return f"{steps}: {error}"
    named = ", ".join(map(str, taken[:SHOWN])) + (f" and {len(taken) - SHOWN} more" if len(taken) > SHOWN else "")
    path = recipe["data"]["init_args"]["data_path"]
    return (
        f"{steps} used the windows {named} of {path}: window w holds the tokens w × {settings.sequence} to "
        f"(w + 1) × {settings.sequence} of the train split's stream."
    )
