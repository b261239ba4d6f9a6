"""`inheritune plan`: exact where it counts, close where it estimates, and what it says of the paper's figures."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers.models import ROOT
from helpers.recipes import shards
from litgpt.config import Config
from litgpt.model import GPT
from recipes.low_data import runs

from inheritune_lit.base.errors import InheritError
from inheritune_lit.gpt2 import build
from inheritune_lit.plan import plan, plan_recipe
from inheritune_lit.plan.machines import GPUS
from inheritune_lit.plan.memory import CONTEXT, ROUNDING, Memory, Run, largest_micro_batch, peak
from inheritune_lit.plan.model import Parameters, Saved, count_parameters, measured_flops, saved_for_backward
from inheritune_lit.recipes.listing import recipes
from recipes.gpt2 import Run as GPT2Run

sys.path.insert(0, str(ROOT / "benchmarks"))
MAIN = ROOT / "recipes/openllama3b_n13.yaml"
TINY = Config.from_name("open_llama_3b", n_layer=2, n_embd=64, n_head=4, n_query_groups=4, head_size=16,
                        intermediate_size=96, block_size=64, vocab_size=128, padded_vocab_size=128)  # fmt: skip


@pytest.mark.parametrize("path", recipes(ROOT / "recipes"), ids=lambda path: path.name)
def test_parameters_are_those_of_litgpts_model(path: Path) -> None:
    recipe = yaml.safe_load(path.read_text())
    config = Config(**recipe["model_config"])
    with torch.device("meta"):
        model = build(config)
    if recipe["train"]["tie_embeddings"]:
        model.transformer.wte.weight = model.lm_head.weight
    counted = count_parameters(config, tied=recipe["train"]["tie_embeddings"])
    assert counted.total == sum(p.numel() for p in model.parameters())  # parameters() gives tied ones once
    blocks = sum(p.numel() for part in (model.transformer.h, model.transformer.ln_f) for p in part.parameters())
    assert counted.inside == blocks


def test_the_main_recipe() -> None:
    """The numbers of arXiv 2404.08634's main run, and where its own can't hold."""
    figures = plan_recipe(MAIN, gpu="a6000")
    assert (figures.parameters.total, figures.parameters.inside) == (1_815_638_400, 1_610_838_400)
    assert (figures.step_tokens, figures.steps) == (131_072, 61_035)
    assert figures.six_n_d == pytest.approx(8.7e19, rel=0.005)
    assert figures.seconds(figures.six_n_d) / 3600 == pytest.approx(156, abs=1)
    assert min(figures.seconds_range) / 3600 > 156
    assert figures.fits
    page = " ".join((ROOT / "recipes/README.md").read_text().split())
    for said in ("1.5B has 1.816B", "1.611B", "8.39B", "61,035", "54 minutes an epoch", "156 h"):
        assert said in page


def test_the_50b_recipes() -> None:
    figures = plan_recipe(ROOT / "recipes/llama2_7b_n7_50b.yaml", gpu="a100-80", devices=4)
    assert (figures.parameters.total, figures.steps, figures.shards) == (1_678_831_616, 381_469, 4)


def test_flops_by_hand() -> None:
    """6 FLOPs for each weight of a matrix and token, and attention's two products over all pairs, three times."""
    sequence, blocks, width = 32, TINY.n_layer, TINY.n_embd
    matrices = blocks * (4 * width**2 + 3 * width * TINY.intermediate_size) + width * TINY.padded_vocab_size
    attention = blocks * 2 * 2 * sequence**2 * width
    assert measured_flops(TINY, sequence) == 6 * matrices * sequence + 3 * attention


def test_saved_for_backward_by_counting_a_real_run() -> None:
    """The same count on real tensors; and it grows with sequences alone."""
    saved = saved_for_backward(TINY, 64, "32-true")
    assert saved.once == 0
    model, found = GPT(TINY), {}
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros((3, 64), dtype=torch.long))
    assert sum(storage.nbytes() for storage in found.values()) == 3 * saved.per_sequence
    mixed = saved_for_backward(TINY, 64, "bf16-mixed")
    matrices = count_parameters(TINY).total - TINY.padded_vocab_size * TINY.n_embd - 5 * TINY.n_embd
    assert mixed.once == 2 * matrices  # autocast's copies: all but the embedding and the norms


RUN = Run(Parameters(1000, 800, 300, 100), Saved(5000, 70), vocabulary=10, sequence=8, precision="bf16-mixed",
          optimizer_states=2)  # fmt: skip


def test_memory_on_one_device_and_sharded() -> None:
    one = peak(RUN, 2, accumulates=True)
    in_use = 4000 + 4000 + 8000 + 70 + 7000 + (logits := max(3 * 4 * 160, 10 * 160 + 600))
    again = 4000 - 6 * 160  # a second set of gradients, less what fits where the logits' gradients were
    kept = again + int(ROUNDING * (in_use + again))
    assert one == Memory(4000, 4000, 8000, 70, 7000, logits, kept)
    assert (one.in_use, one.total) == (in_use, in_use + kept + CONTEXT)
    eager = peak(dataclasses.replace(RUN, compiled=False), 2, accumulates=True)
    assert eager.kept == int(ROUNDING * eager.in_use)  # each gradient is added to the last before the next comes
    alone = peak(RUN, 2, accumulates=False)
    assert (alone.gradients, alone.activations) == (0, 7000)  # gradients come to be as the activations go
    assert alone.total == pytest.approx(one.total - 4000 * (1 + ROUNDING), abs=2)
    sharded = peak(dataclasses.replace(RUN, shards=4), 2, accumulates=True)
    assert (sharded.weights, sharded.optimizer) == (1000, 2000)
    assert sharded.gradients == 1000 + 2000  # litGPT synchronises at a step's last micro-batch only
    assert peak(dataclasses.replace(RUN, shards=4), 2, accumulates=False).gradients == 0


def test_memory_of_a_teacher() -> None:
    """Its weights, and its logits instead of the log-softmax of the target's: both in bfloat16."""
    alone, taught = (peak(dataclasses.replace(RUN, teacher=n), 8, accumulates=True) for n in (0, 500))
    assert (taught.teacher, alone.teacher) == (1000, 0)
    assert (alone.logits, taught.logits) == (12 * 640, 10 * 640 + 600)
    assert taught.in_use == alone.in_use + 1000 - (12 * 640 - 10 * 640 - 600)
    sharded = peak(dataclasses.replace(RUN, shards=4, teacher=500), 8, accumulates=True)
    assert sharded.teacher == 1000, "each GPU has all of it"


@pytest.mark.parametrize(("micro_batch", "measured_mib"), [(2, 47_507), (8, 68_787)])
def test_memory_of_the_main_recipe_on_a_gpu_is_foreseen_within_2_percent(
    tmp_path: Path, micro_batch: int, measured_mib: int
) -> None:
    """By nvidia-smi, on one H200: benchmarks/gpu.md."""
    recipe = yaml.safe_load(MAIN.read_text())
    recipe["train"]["micro_batch_size"] = micro_batch
    (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe))
    memory = plan_recipe(tmp_path / "recipe.yaml", gpu="h200").memory()
    assert memory.total / 2**20 == pytest.approx(measured_mib, rel=0.02)


def test_largest_micro_batch_fits_and_divides() -> None:
    for memory in (25_000, 45_000, 100_000):
        largest = largest_micro_batch(RUN, 12, memory + CONTEXT)
        fitting = [m for m in (1, 2, 3, 4, 6, 12) if peak(RUN, m, accumulates=m < 12).total - CONTEXT <= memory]
        assert largest == max(fitting)
    assert largest_micro_batch(RUN, 12, CONTEXT) is None


def test_our_micro_batches_are_the_largest_that_fit() -> None:
    """Powers of two up to 8: on an A6000, or on 80 GiB where not even one sequence fits there."""
    for run in runs():
        if run.random or run.subset_key == "50b" or run.epochs != 8:
            continue  # memory does not depend on it
        recipe = yaml.safe_load((ROOT / f"recipes/{run.name}.yaml").read_text())
        config = Config(**recipe["model_config"])
        saved = saved_for_backward(config, 2048, "bf16-mixed")
        memory = Run(count_parameters(config), saved, 32000, 2048, "bf16-mixed", 2)
        fitting = largest_micro_batch(memory, 64, GPUS["a6000"].memory_mib * 2**20) or largest_micro_batch(
            memory, 64, 80 * 2**30
        )
        assert run.micro_batch == min(fitting or 0, 8), run.name


def test_gpt2_micro_batches_fit_on_the_papers_gpus() -> None:
    """Its largest model, on two GPUs, or on one while the allocator gives freed blocks back; the next one on one."""
    for name, devices, fits in (("xlarge_k48", 2, True), ("xlarge_k48", 1, False), ("large_k36", 1, True)):
        figures = plan_recipe(ROOT / f"recipes/gpt2/{name}.yaml", gpu="a100-40", devices=devices)
        assert figures.fits_if_given_back
        assert figures.fits == fits
        assert ((figures.largest_micro_batch() or 0) >= GPT2Run.micro_batch) == fits


def test_memory_of_a_real_run_is_foreseen_within_15_percent() -> None:
    """litGPT's own loop in a process of its own; benchmarks/plan_memory.py has larger ones and bf16-mixed."""
    import plan_memory

    settings = plan_memory.recipe(blocks=2, sequence=256, micro_batch=2, accumulate=2, precision="32-true")
    assert plan_memory.foresee(settings)["in_use"] == pytest.approx(plan_memory.measure(settings), rel=0.15)


def test_data_at_hand_is_counted_by_domain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shards(tmp_path / "data/redpajama_1b", tokens=10**6)
    plan(MAIN)
    text = capsys.readouterr().out
    assert "8e+03 over 1,000,000 tokens of data/redpajama_1b" in text
    assert re.search(r"books +25.0% +250,000 tokens, 2,000,000,000 seen", text)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    plan(MAIN, gpu="h100", devices=8, json=True)
    figures = json.loads(capsys.readouterr().out)
    assert figures["machine"]["peak_flops"] == GPUS["h100"].peak_tflops * 1e12
    assert figures["disk"]["checkpoint"] == 12 * 1_815_638_400
    assert figures["disk"]["data"] == 2 * 10**9
    memory = figures["memory"]["compiled"]
    assert memory["total"] == memory["in_use"] + memory["kept"] + memory["context"]
    assert figures["training"]["tokens_of_domains"] == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu": "a5000"}, "--gpu a5000: not known here. Choose one of a6000, a40"),
        ({"devices": 3}, "64 does not make whole micro-batches of 2 on 3 GPUs"),
        ({"devices": 64}, "on 64 GPUs"),
    ],
)
def test_mistakes(options: dict, message: str) -> None:
    with pytest.raises(InheritError, match=message):
        plan_recipe(MAIN, **options)


def test_a_recipe_that_litgpt_refuses(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model_name: open_llama_3b\ntrian: {max_tokens: 1}\nseed: x\n")
    with pytest.raises(InheritError, match=r"litGPT does not accept(.*\n)*error    trian \(line 2\)"):
        plan_recipe(tmp_path / "bad.yaml")
