"""The stages of Algorithm 2: what each trains, from what, in which folder. Pure: nothing is read or written here."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from inheritune_lit.base.errors import InheritError
from inheritune_lit.recipes.recipe import Recipe

Mode = Literal["restart", "continue"]
Comparison = Literal["random", "random_2t"]
REFERENCE = "reference"


@dataclass(frozen=True)
class Settings:
    """A growth recipe, checked. `base` is the `litgpt pretrain` recipe that all stages share."""

    base: Mapping[str, Any]
    out_dir: Path
    reference_dir: Path | None
    start_layers: int
    step: int
    max_layers: int
    tolerance: float
    mode: Mode
    compare: tuple[Comparison, ...]

    @property
    def blocks(self) -> int:
        """k, the reference's."""
        return int(self.base["model_config"]["n_layer"])

    @property
    def data_path(self) -> Path:
        return Path(self.base["data"]["init_args"]["data_path"])

    def identity(self) -> dict[str, Any]:
        """What all stages depend on. max_layers and compare say only how much is done: they may change.

        Nor does it matter where folders lie; what they hold is compared for every stage.
        """
        from inheritune_lit.pretrain.record import identity_of

        return {
            "start_layers": self.start_layers,
            "step": self.step,
            "tolerance": self.tolerance,
            "mode": self.mode,
            "reference": "trained" if self.reference_dir is None else "given",
            "recipe": identity_of(self.base),
        }


@dataclass(frozen=True)
class Stage:
    """One training: a model of `blocks` blocks from a start, for `times` · T steps."""

    name: str
    blocks: int
    start: Literal["random", "inherit", "grow"]
    times: int = 1
    """Of the recipe's budget; the learning rate's schedule spans all of it"""
    grown_from: str | None = None
    """The stage whose trained model `grow` puts more of the reference's blocks on"""

    @property
    def title(self) -> str:
        if self.name == REFERENCE:
            return "from scratch"
        starts = {"random": "random start", "inherit": "inherited", "grow": "grown"}
        return starts[self.start] + (f", {self.times}T" if self.times > 1 else "")


def make_settings(
    base: Mapping[str, Any],
    out_dir: Path,
    *,
    reference_dir: Path | None,
    start_layers: int | None,
    step: int,
    max_layers: int | None,
    tolerance: float,
    mode: Mode,
    compare: list[Comparison] | None,
) -> Settings:
    """Fills in what depends on the reference's depth: n starts at k/2, and ends below k.

    Raises:
        InheritError: the numbers don't fit the reference.
    """
    blocks = base["model_config"]["n_layer"]
    start = blocks // 2 if start_layers is None else start_layers
    last = max(start, blocks - step) if max_layers is None else max_layers
    if step < 1 or not 1 <= start <= last <= blocks:
        raise InheritError(
            f"start_layers {start}, step {step}, max_layers {last}: expected 1 ≤ start_layers ≤ max_layers ≤ {blocks}, "
            "the reference's blocks, and a step of at least 1."
        )
    if not 0 <= tolerance < math.inf:
        raise InheritError(f"tolerance is {tolerance}, expected nats: a finite number, 0 or more.")
    wanted = tuple(dict.fromkeys(compare or ()))
    return Settings(base, out_dir, reference_dir, start, step, last, tolerance, mode, wanted)


def reference(settings: Settings) -> Stage:
    return Stage(REFERENCE, settings.blocks, "random")


def targets(settings: Settings) -> list[Stage]:
    """A target for each n; the last is max_layers, whatever the step.

    v1 of the paper inherits each anew from the reference; v2 goes on with what is trained already.
    """
    found: list[Stage] = []
    for blocks in (*range(settings.start_layers, settings.max_layers, settings.step), settings.max_layers):
        if found and settings.mode == "continue":
            found.append(Stage(f"n{blocks}", blocks, "grow", grown_from=found[-1].name))
        else:
            found.append(Stage(f"n{blocks}", blocks, "inherit"))
    return found


def comparison(kind: Comparison, blocks: int) -> Stage:
    times = {"random": 1, "random_2t": 2}[kind]
    return Stage(f"n{blocks}_{kind}", blocks, "random", times)


def possible(settings: Settings) -> list[Stage]:
    """All stages there are if par is never reached before max_layers."""
    trained = [reference(settings)] if settings.reference_dir is None else []
    return [*trained, *targets(settings), *(comparison(kind, settings.max_layers) for kind in settings.compare)]


def folder(settings: Settings, stage: Stage) -> Path:
    """The stage's run."""
    return settings.out_dir / stage.name


def start_folder(settings: Settings, blocks: int) -> Path:
    """The checkpoint that the target of so many blocks starts from."""
    return settings.out_dir / "starts" / f"n{blocks}"


def recipe_of(settings: Settings, stage: Stage) -> dict[str, Any]:
    """The stage's `litgpt pretrain` recipe: the base, and what differs.

    A random start takes tokenizer_dir from the inherited start of as many blocks, as litGPT copies the config.json
    there into every checkpoint, and the reference's states another depth.
    """
    recipe: dict[str, Any] = deepcopy(dict(settings.base))
    recipe["out_dir"] = str(folder(settings, stage))
    recipe["initial_checkpoint_dir"] = None
    recipe["train"]["max_tokens"] *= stage.times
    data = recipe["data"]["init_args"]
    data["epochs"] = data.get("epochs", 1) * stage.times
    if stage.name != REFERENCE:
        recipe["model_config"] = shorter(settings.base["model_config"], stage.blocks)
        start = str(start_folder(settings, stage.blocks))
        recipe["tokenizer_dir"] = start
        recipe["initial_checkpoint_dir"] = None if stage.start == "random" else start
    return recipe


def shorter(model_config: Mapping[str, Any], blocks: int) -> dict[str, Any]:
    """The model_config of the first `blocks` blocks: n_layer and, for architectures that have them, per-layer lists."""
    from inheritune_lit.checkpoint.layers import slice_config

    whole = Recipe.of({"model_config": model_config}).config
    before, after = asdict(whole), asdict(slice_config(whole, range(blocks)))
    return {**model_config, **{key: value for key, value in after.items() if value != before[key]}}


def with_changes(
    base: Mapping[str, Any],
    *,
    steps: int | None = None,
    data_path: Path | None = None,
    tokenizer_dir: Path | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """The base recipe with what was asked for instead: T in steps, folders, seed of initialisation and data's order.

    With another T, the warm-up keeps its share of it.
    """
    recipe = deepcopy(dict(base))
    if steps is not None:
        train = recipe["train"]
        tokens = steps * (Recipe.of(recipe).step_tokens or 0)
        if train.get("lr_warmup_steps"):
            train["lr_warmup_steps"] = max(1, round(train["lr_warmup_steps"] * tokens / train["max_tokens"]))
        train["max_tokens"] = tokens
    if data_path is not None:
        recipe["data"]["init_args"]["data_path"] = str(data_path)
    if tokenizer_dir is not None:
        recipe["tokenizer_dir"] = str(tokenizer_dir)
    if seed is not None:
        recipe["seed"] = recipe["data"]["init_args"]["seed"] = seed
    return recipe


def parameters(recipe: Mapping[str, Any]) -> int:
    """Of the recipe's model, tied weights once; it is built without data."""
    from inheritune_lit.plan.model import count_parameters

    return count_parameters(Recipe.of(recipe).config, tied=bool(recipe["train"].get("tie_embeddings"))).total
