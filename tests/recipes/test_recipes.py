"""Every recipe in the repository, found by a glob: parsed by the parser of its command, its arithmetic checked."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.models import ROOT, SMALL, make_checkpoint, make_tokenizer, make_tokens
from helpers.recipes import EVAL, PRETRAIN, RECIPES, parse
from jsonargparse import Namespace
from litgpt.args import TrainArgs
from litgpt.config import Config
from recipes.low_data import runs
from recipes.render import render_all

from inheritune_lit.checkpoint.layers import parse_layers, slice_config
from inheritune_lit.evaluate.suites import read_suite
from inheritune_lit.gpt2 import build
from inheritune_lit.recipes.listing import listed
from inheritune_lit.surgery.command import surgery

LOW_DATA = [path for path in PRETRAIN if path.parent.name == "recipes"]


class UniqueKeys(yaml.SafeLoader):
    """YAML takes the last of two equal keys in silence, and so does litGPT."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"duplicate key in {sorted(keys)}"
        return super().construct_mapping(node, deep)


def test_count() -> None:
    """A recipe that the glob no longer finds is a recipe that nothing checks."""
    counts = Counter(path.parent.name for path in RECIPES)
    # low data: 19 runs, each from both starts, the demo, 3 with better blocks; one surgery for each of 10 + 3 targets
    # GPT-2: 5 references and 7 targets, each of these with a random start, on OpenWebText with a longer one too;
    # the distilled one, and the growth demo's
    assert counts == {
        "recipes": 2 * 19 + 1 + 3,
        "gpt2": 5 + 2 * 7 + 5 + 1 + 1,
        "surgery": 13 + 7,
        "data": 6,
        "growth": 4,
    }
    assert len(PRETRAIN) == 42 + 26
    names = [str(path.relative_to(ROOT / "recipes/eval")) for path in EVAL]
    assert names == ["gpt2.yaml", "low_data.yaml", "smoke.yaml", "tasks/next_line.yaml"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_parses_and_tells_how_to_run_it(path: Path) -> None:
    parse(path)
    yaml.load(path.read_text(), UniqueKeys)
    header = path.read_text().split("\n\n")[0]
    assert header.startswith("# ")
    assert str(path.relative_to(ROOT)) in path.read_text(), "the header gives the command"


@pytest.mark.parametrize("path", EVAL, ids=lambda path: path.name)
def test_suite_tells_how_to_run_it(path: Path) -> None:
    """What is in the suites, and whether lm-eval has it, is tested in test_evaluation.py."""
    content = yaml.load(path.read_text(), UniqueKeys)
    assert str(path.relative_to(ROOT)) in path.read_text(), "the header gives the command"
    if "tasks" in content:
        assert [task.name for task in read_suite(str(path)).tasks] == list(content["tasks"])
        assert read_suite(path.stem).tasks == read_suite(str(path)).tasks, "it is found by its name"


@pytest.mark.parametrize("path", LOW_DATA, ids=lambda path: path.name)
def test_model_and_start(path: Path) -> None:
    recipe = parse(path)
    config = recipe.model_config
    # model_config is what surgery writes: litGPT fills in Config's defaults, not the named model's
    run = next((run for run in runs() if run.name == path.stem), None)
    surgery_recipe = parse(ROOT / f"recipes/surgery/{run.target}.yaml") if run else None
    layers = surgery_recipe.layers if surgery_recipe else str(config.n_layer)
    reference = Config.from_name(config.name)
    expected = slice_config(reference, parse_layers(layers, reference.n_layer))
    assert dataclasses.asdict(config) == dataclasses.asdict(expected)
    assert recipe.model_name == config.name
    # the tokenizer's folder holds the config.json that states the true depth: surgery's, for random starts too
    assert recipe.initial_checkpoint_dir in (recipe.tokenizer_dir, None)
    assert (recipe.initial_checkpoint_dir is None) == path.stem.endswith("_random")
    assert surgery_recipe is None or surgery_recipe.out_dir == recipe.tokenizer_dir


@pytest.mark.parametrize("path", PRETRAIN, ids=lambda path: path.name)
def test_training(path: Path) -> None:
    recipe = parse(path)
    config, train = recipe.model_config, recipe.train
    # a partial train block would silently keep litGPT's defaults
    stated = yaml.safe_load(path.read_text())["train"].keys()
    unsupported = {"lr_warmup_fraction", "epochs", "max_steps", "max_time"}
    assert stated == {field.name for field in dataclasses.fields(TrainArgs)} - unsupported
    assert train.global_batch_size % train.micro_batch_size == 0
    step_tokens = train.global_batch_size * train.max_seq_length
    assert train.lr_warmup_steps < train.max_tokens // step_tokens
    assert train.max_seq_length <= config.block_size
    assert train.min_lr < recipe.optimizer.init_args.lr if isinstance(recipe.optimizer, Namespace) else True
    assert recipe.precision in ("bf16-mixed", "32-true")  # with bf16-true AdamW stalls
    assert f"{step_tokens:,}" in path.read_text(), "the header gives the token arithmetic"


def test_rendered_files_are_what_the_table_says() -> None:
    """After a change of a table or of its rendering: `make recipes`."""
    for name, text in render_all().items():
        assert (ROOT / "recipes" / name).read_text() == text, f"recipes/{name} is stale: run `make recipes`"


def test_a_random_start_differs_in_its_start_alone() -> None:
    for run in runs():
        if run.random:
            random, inherited = (
                yaml.safe_load((ROOT / f"recipes/{name}.yaml").read_text())
                for name in (run.name, run.name.removesuffix("_random"))
            )
            differing = {key for key in random if random[key] != inherited[key]}
            assert differing == {"initial_checkpoint_dir", "out_dir"}


def test_the_table_holds_the_papers_low_data_runs() -> None:
    inherited = [run for run in runs() if run.start == "inherited"]
    assert len({run.name for run in runs()}) - 3 == 2 * len(inherited) == 38
    main = {
        run.n_layer for run in inherited if (run.reference_key, run.subset_key, run.epochs) == ("openllama3b", "1b", 8)
    }
    assert main == {4, 6, 8, 10, 13, 16, 18, 20}
    epochs = {run.epochs for run in inherited if run.target == "openllama3b_n13" and run.subset_key == "1b"}
    assert epochs == {1, 2, 4, 5, 8, 10, 20}
    for subset in ("1b", "50b"):
        assert {"openllama7b_n7", "llama2_7b_n7", "openllama3b_n13"} <= {
            run.target for run in inherited if run.subset_key == subset
        }


@pytest.mark.parametrize("path", PRETRAIN, ids=lambda path: path.name)
def test_listed_with_its_parameters_and_steps(path: Path) -> None:
    recipe = yaml.safe_load(path.read_text())
    with torch.device("meta"):
        model = build(Config(**recipe["model_config"]))
    train, total = recipe["train"], sum(parameter.numel() for parameter in model.parameters())
    if train["tie_embeddings"]:
        total -= model.lm_head.weight.numel()
    steps = train["max_tokens"] // (train["global_batch_size"] * train["max_seq_length"])
    titles, *rows = listed()
    row = dict(zip(titles, next(row for row in rows if f"{row[0]}.yaml" == path_in_recipes(path)), strict=True))
    assert (row["parameters"], row["steps"]) == (f"{total / 1e9:.3f}B", f"{steps:,}")


def path_in_recipes(path: Path) -> str:
    return path.relative_to(ROOT / "recipes").as_posix()


def test_main_recipe_is_the_papers() -> None:
    """arXiv 2404.08634, section 3 and appendix: the 1B-token run."""
    recipe = parse(ROOT / "recipes/openllama3b_n13.yaml")
    train, optimizer = recipe.train, recipe.optimizer
    assert train.global_batch_size * train.max_seq_length == 131_072
    assert (train.max_tokens, recipe.data.epochs) == (8 * 10**9, 8)
    assert train.max_tokens // 131_072 == 61_035
    assert (train.lr_warmup_steps, recipe.model_config.n_layer) == (1000, 13)
    assert optimizer["class_path"] == "torch.optim.AdamW"
    assert (optimizer["init_args"]["lr"], optimizer["init_args"]["weight_decay"]) == (3e-4, 0.1)
    for devices in (1, 2, 4, 8, 16):
        assert train.batch_size(devices) * devices == 64
        assert train.gradient_accumulation_iters(devices) * train.micro_batch_size * devices == 64


def test_main_recipe_trains_at_a_small_width(tmp_path: Path) -> None:
    """The commands of the recipe's header, on a checkpoint of OpenLLaMA-3B's depth and a small width.

    Overrides are only what litGPT honours over a recipe: its optimizer's settings it would ignore.
    """
    reference = make_checkpoint(tmp_path / "open_llama_small", n_layer=26)
    make_tokenizer(reference)
    target = tmp_path / "target"
    surgery(reference, layers=parse(ROOT / "recipes/surgery/openllama3b_n13.yaml").layers, out_dir=target)
    config = yaml.safe_load((target / "model_config.yaml").read_text())
    overrides = {
        **{f"model_config.{key}": config[key] for key in (*SMALL, "n_query_groups", "head_size", "intermediate_size")},
        "initial_checkpoint_dir": target,
        "tokenizer_dir": target,
        "out_dir": tmp_path / "run",
        "devices": 1,
        "data.data_path": make_tokens(tmp_path, target, documents=80),
        "train.max_seq_length": 16,
        "train.max_tokens": 3 * 64 * 16,
        "eval.max_iters": 2,
    }
    command = [sys.executable, "-m", "litgpt", "pretrain", "--config", str(ROOT / "recipes/openllama3b_n13.yaml")]
    command += [f"--{key}={value}" for key, value in overrides.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " step 3 |" in done.stdout
    assert " step 4 |" not in done.stdout
    assert (target / "model_config.yaml").read_text() == (tmp_path / "run/final/model_config.yaml").read_text()
    assert json.loads((tmp_path / "run/final/config.json").read_text())["num_hidden_layers"] == 13
    start = torch.load(target / "lit_model.pth", weights_only=True)
    trained = torch.load(tmp_path / "run/final/lit_model.pth", weights_only=True)["model"]
    assert start.keys() == trained.keys()
    # it started from the target: three steps, of AdamW at a learning rate of at most 3e-4, move nothing far
    assert all(torch.allclose(start[name], trained[name], atol=1e-3) for name in start)
    assert not all(torch.equal(start[name], trained[name]) for name in start)


def test_better_blocks_change_nothing_else() -> None:
    """So that a run of NAME_best and one of NAME can be compared; the surgery recipe keeps as many blocks."""
    for run in (run for run in runs() if run.chosen):
        best, plain = (
            yaml.safe_load((ROOT / f"recipes/{name}.yaml").read_text()) for name in (run.name, run.name[:-5])
        )
        differing = {key for key in best if best[key] != plain[key]}
        assert differing == {"initial_checkpoint_dir", "tokenizer_dir", "out_dir"}
        cut = yaml.safe_load((ROOT / f"recipes/surgery/{run.target}.yaml").read_text())
        blocks = parse_layers(cut["layers"], run.reference.n_layer)
        assert len(blocks) == run.n_layer
        assert cut["out_dir"] == best["initial_checkpoint_dir"]
