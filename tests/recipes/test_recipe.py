"""A recipe's numbers: those it states, litGPT's where it says nothing, and what follows from both."""

from pathlib import Path
from typing import Any

import pytest
from helpers.recipes import PRETRAIN, parse
from litgpt.args import TrainArgs

from inheritune_lit.base.errors import InheritError
from inheritune_lit.recipes.recipe import Recipe, train_defaults


@pytest.mark.parametrize("path", PRETRAIN, ids=lambda path: path.name)
def test_shipped_recipes_have_litgpts_numbers(path: Path) -> None:
    recipe, parsed = Recipe.read(path), parse(path)
    train = parsed.train
    assert recipe.step_tokens == train.global_batch_size * train.max_seq_length
    assert recipe.steps == train.max_tokens // recipe.step_tokens
    assert recipe.accumulation(1) == train.gradient_accumulation_iters(1)
    assert recipe.block_size == parsed.model_config.block_size


def test_what_is_left_out_is_litgpts() -> None:
    model = {"block_size": 32}
    assert Recipe.of({"model_config": model}).sequence == 32
    assert Recipe.of({"model_config": model, "train": {"max_seq_length": None}}).sequence == 32
    assert Recipe.of({"model_name": "pythia-14m"}).sequence == 512
    defaults = train_defaults()
    assert Recipe.of({}).global_batch == defaults["global_batch_size"] == 512
    assert Recipe.of({}).tokens == defaults["max_tokens"] == int(3e12)
    assert Recipe.of({}).steps is None, "of a model that is not known"


@pytest.mark.parametrize("wrong", [0, -1, "8", True, None, [8], 2**70])
def test_what_is_no_number_is_none(wrong: Any) -> None:
    recipe = Recipe.of({"model_config": {"block_size": 8}, "train": {"global_batch_size": wrong, "max_tokens": 80}})
    assert (recipe.global_batch, recipe.step_tokens, recipe.steps) == (None, None, None)
    with pytest.raises(InheritError, match="expected whole numbers from 1 on"):
        recipe.accumulation(1)


@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 5, 8])
def test_micro_batches_are_litgpts_or_refused(gpus: int) -> None:
    settings = {"global_batch_size": 24, "micro_batch_size": 3}
    recipe = Recipe.of({"train": settings})
    if 24 % (3 * gpus):
        with pytest.raises(InheritError, match=f"whole micro-batches of 3 on {gpus} GPUs"):
            recipe.accumulation(gpus)
    else:
        assert recipe.accumulation(gpus) == TrainArgs(**settings).gradient_accumulation_iters(gpus)
