"""recipes/gpt2: the paper's GPT-2 runs, their arithmetic, and one of them trained at a small width."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers.models import ROOT, make_tokens, write_bpe
from helpers.recipes import parse
from litgpt.config import Config
from recipes.body import TOKENIZER

from inheritune_lit.checkpoint.layers import parse_layers, slice_config
from inheritune_lit.gpt2 import build
from inheritune_lit.published import losses
from inheritune_lit.recipes import copy
from inheritune_lit.recipes.listing import listed
from inheritune_lit.surgery.command import surgery
from recipes.gpt2 import Run, runs

RUNS = list(runs())
# blocks, heads, width, sequences a step, learning rate and its end; xlarge's last three are ours, as is large*'s batch
PAPER = {
    "medium": (24, 16, 1024, 48, 3e-4, 6e-5),
    "large": (36, 20, 1280, 16, 2e-4, 1e-5),
    "xlarge": (48, 25, 1600, 16, 2e-4, 1e-5),
    "fineweb_medium": (24, 16, 1024, 48, 3e-4, 6e-5),
    "fineweb_large": (32, 20, 1280, 16, 2e-4, 1e-5),
}


def path_of(name: str) -> Path:
    return ROOT / f"recipes/{name}.yaml"


def test_the_table_holds_the_papers_runs() -> None:
    assert len({run.name for run in RUNS}) == len(RUNS) == 25
    for key, (blocks, *_) in PAPER.items():
        found = {(run.n_layer, run.start, run.steps) for run in RUNS if run.reference_key == key}
        shorter = {"medium": (12, 14, 16), "large": (18,), "xlarge": (24,)}.get(key, (16,))
        expected = {(blocks, "random (reference)", 100_000)}
        expected |= {(n, start, 100_000) for n in shorter for start in ("inherited", "random")}
        if not key.startswith("fineweb"):
            expected |= {(n, "random", 200_000) for n in shorter}
        if key == "medium":
            expected |= {(12, "random, distilled", 50_000)}
        assert found == expected


def test_every_published_run_of_these_starts_has_its_recipe() -> None:
    published = {run.log: run.loss for run in losses("gpt2_losses").runs if run.start in ("random", "inherited")}
    [distilled] = (run for run in losses("gpt2_losses").runs if run.start == "distillation")
    published[distilled.log] = distilled.loss
    ours = {run.published.log: run.published.loss for run in RUNS if run.published}
    assert ours == published
    assert {run.name: run.reproduces for run in RUNS}["gpt2/large_n18"] == "validation loss 2.8090"
    assert "2.8090" in path_of("gpt2/large_n18").read_text()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_numbers_are_the_papers(run: Run) -> None:
    recipe = parse(path_of(run.name))
    config, train, optimizer = recipe.model_config, recipe.train, recipe.optimizer["init_args"]
    blocks, heads, width, batch, rate, end = PAPER[run.reference_key]
    assert (config.n_head, config.n_embd, config.intermediate_size) == (heads, width, 4 * width)
    assert config.n_layer == blocks if run.is_reference else config.n_layer < blocks
    assert (config.block_size, config.vocab_size, config.padded_vocab_size) == (1024, 50257, 50304)
    assert config.hf_config["scale_attn_by_inverse_layer_idx"]
    assert (train.global_batch_size, train.max_seq_length) == (batch, 1024)
    assert train.max_tokens == run.steps * batch * 1024
    assert (train.lr_warmup_steps, train.max_norm, recipe.eval.interval) == (2000, 1.0, 1000)
    assert (optimizer["lr"], train.min_lr, optimizer["weight_decay"], optimizer["betas"]) == (
        rate,
        end,
        0.1,
        [0.9, 0.95],
    )
    data = parse(ROOT / f"{recipe.data.data_path}.yaml".replace("data/", "recipes/data/"))
    assert (data.out_dir, data.tokenizer_dir, data.val_share) == (recipe.data.data_path, Path(TOKENIZER), 0.0005)
    available = data.budget or 9 * 10**9
    assert (recipe.data.epochs - 1) * available < train.max_tokens <= recipe.data.epochs * available


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_size_and_start(run: Run) -> None:
    """Blocks, token and position embeddings and the final norm: no head, no bias, no bias in a norm."""
    recipe = parse(path_of(run.name))
    n, width = run.n_layer, recipe.model_config.n_embd
    with torch.device("meta"):
        model = build(recipe.model_config)
    expected = n * (12 * width**2 + 2 * width) + (50304 + 1024 + 1) * width
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert f"# {expected:,} parameters" in path_of(run.name).read_text()
    if run.target is None:
        assert (recipe.initial_checkpoint_dir, recipe.tokenizer_dir) == (None, Path(TOKENIZER))
        return
    cut, reference = parse(ROOT / f"recipes/surgery/{run.target}.yaml"), parse(path_of(run.reference_name))
    assert cut.source_dir == reference.out_dir / "final"
    assert cut.out_dir == recipe.initial_checkpoint_dir == recipe.tokenizer_dir
    sliced = slice_config(reference.model_config, parse_layers(cut.layers, reference.model_config.n_layer))
    assert dataclasses.asdict(sliced) == dataclasses.asdict(recipe.model_config)


def test_a_random_start_differs_in_its_start_alone() -> None:
    for run in RUNS:
        if run.random and not run.is_reference and not run.distilled:
            random, inherited = (yaml.safe_load(path_of(n).read_text()) for n in (run.name, run.inherited_name))
            differing = {key for key in random if random[key] != inherited[key]}
            longer = {"train", "data"} if run.epochs > 1 else {"train"} if run.steps > 100_000 else set()
            assert differing == {"initial_checkpoint_dir", "tokenizer_dir", "out_dir"} | longer


def test_the_distilled_run_differs_in_its_teacher_and_its_length_alone() -> None:
    """The paper's: T 1, α 0.6 of the labels' loss, 50K steps; the teacher is what the reference's recipe leaves."""
    taught, random = (yaml.safe_load(path_of(f"gpt2/medium_n12_{end}").read_text()) for end in ("kd", "random"))
    settings = taught["data"]["init_args"]
    assert settings.pop("teacher_dir") == str(parse(path_of("gpt2/medium_k24")).out_dir / "final")
    assert (settings.pop("weight"), settings.pop("temperature")) == (pytest.approx(1 - 0.6), 1.0)
    assert taught.pop("out_dir") != random.pop("out_dir")
    taught["train"]["max_tokens"] *= 2
    taught["data"]["class_path"] = random["data"]["class_path"]
    assert taught == random
    assert "2 × 0.355×10⁹ × 2.46×10⁹ = 1.74×10¹⁸ FLOPs" in path_of("gpt2/medium_n12_kd").read_text().replace(
        "\n# ", " "
    )


def test_headers_say_which_gpus_divide_the_batch() -> None:
    header = path_of("gpt2/large_n18").read_text().split("\n\n")[0].replace("\n# ", " ")
    assert "GPUs: 1, 2, 4, so that" in header
    assert "do not divide by 3, the GPUs of the paper's node: litGPT would take 15" in header
    medium = path_of("gpt2/medium_n12").read_text()
    assert "GPUs: 1, 2, 3, 4, 6, 12, so that" in medium
    assert "do not divide" not in medium


def test_listed_and_copied(tmp_path: Path) -> None:
    rows = {row[0]: row for row in listed()}
    assert rows["gpt2/large_n18"][1:6] == ["GPT-2 large → 18", "inherited", "0.420B", "1.64×10⁹", "100,000"]
    assert [rows[f"gpt2/{name}"][3] for name in ("medium_k24", "large_k36", "xlarge_k48")] == [
        "0.355B",
        "0.774B",
        "1.557B",
    ]
    copy("gpt2/large_n18", tmp_path)
    copy("gpt2/large_n18_random", tmp_path)
    copied = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.yaml"))
    assert [path for path in copied if ".lock" not in path] == [
        *("gpt2/large_n18.yaml", "gpt2/large_n18_random.yaml"),
        "surgery/gpt2_large_n18.yaml",
    ]
    assert len(copied) == 5, "each recipe's lock comes along"


def test_target_trains_at_a_small_width(tmp_path: Path) -> None:
    """The commands in the header of gpt2/large_n18.yaml, on a reference of large's depth and a small width.

    Its tokenizer is saved as the header of data/openwebtext.yaml says.
    """
    from litgpt.utils import copy_config_files
    from tokenizers import Tokenizer
    from transformers import GPT2TokenizerFast

    words, tokenizer = Tokenizer.from_file(str(write_bpe(tmp_path / "bpe") / "tokenizer.json")), tmp_path / "tokenizer"
    GPT2TokenizerFast(tokenizer_object=words).save_pretrained(tokenizer)
    assert not (tokenizer / "config.json").exists()  # none is better than one of another depth

    recipe = yaml.safe_load(path_of("gpt2/large_k36").read_text())["model_config"]
    small = {"n_embd": 32, "n_head": 4, "n_query_groups": 4, "head_size": 8, "intermediate_size": 128}
    small |= {"block_size": 32, "vocab_size": 600, "padded_vocab_size": 640}
    config = Config(**recipe | small)
    reference, target = tmp_path / "reference", tmp_path / "target"
    reference.mkdir()
    torch.manual_seed(0)
    torch.save({"model": build(config).state_dict()}, reference / "lit_model.pth")  # as `litgpt pretrain` leaves it
    copy_config_files(tokenizer, reference)
    (reference / "model_config.yaml").write_text(yaml.dump(dataclasses.asdict(config)))
    surgery(reference, layers=parse(ROOT / "recipes/surgery/gpt2_large_n18.yaml").layers, out_dir=target)

    overrides = {f"model_config.{key}": value for key, value in small.items()} | {
        "initial_checkpoint_dir": target,
        "tokenizer_dir": target,
        "out_dir": tmp_path / "run",
        "devices": 1,
        "data.data_path": make_tokens(tmp_path, tokenizer, documents=80),
        "train.max_seq_length": 16,
        "train.max_tokens": 3 * 16 * 16,
        "eval.max_iters": 2,
    }
    command = [sys.executable, "-m", "litgpt", "pretrain", "--config", str(path_of("gpt2/large_n18"))]
    command += [f"--{key}={value}" for key, value in overrides.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " step 3 |" in done.stdout
    assert " step 4 |" not in done.stdout
    final = tmp_path / "run/final"
    assert (target / "model_config.yaml").read_text() == (final / "model_config.yaml").read_text()
    start = torch.load(target / "lit_model.pth", weights_only=True)
    trained = torch.load(final / "lit_model.pth", weights_only=True)["model"]
    assert start.keys() == trained.keys()
    assert "transformer.wpe.weight" in trained
    assert "lm_head.weight" not in trained
    # it started from the target: three steps of AdamW, still warming up, move nothing far
    assert all(torch.allclose(start[name], trained[name], atol=1e-3) for name in start)
    assert not all(torch.equal(start[name], trained[name]) for name in start)
