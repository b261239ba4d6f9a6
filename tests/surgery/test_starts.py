import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from helpers.models import make_checkpoint, make_tokenizer, make_tokens
from litgpt.config import Config
from litgpt.model import GPT

from inheritune_lit.__main__ import main
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import sha256_file
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.surgery.command import surgery
from inheritune_lit.surgery.starts import RULES, Start, random_state
from inheritune_lit.verify import verify

Tensors = dict[str, torch.Tensor]
MakeCheckpoint = Callable[..., Path]
H = "transformer.h."


def load(folder: Path) -> Tensors:
    return torch.load(folder / "lit_model.pth", weights_only=True)


def receipt(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "inheritance.json").read_text())


def make(source: Path, out_dir: Path, **options: Any) -> Tensors:
    """Writes a start, which is a folder that verifies and that litGPT opens, and reads its tensors."""
    surgery(source, out_dir=out_dir, **options)
    verify(out_dir)
    tokens = torch.arange(8)[None]
    assert torch.isfinite(load_model(out_dir)(tokens)).all()
    return load(out_dir)


def block(tensors: Tensors, number: int) -> Tensors:
    """A block's tensors by their name in it."""
    prefix = f"{H}{number}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def rest(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(H)}


def equal(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


BLOCKS = {
    ("last", "2"): [4, 5],
    ("middle", "2"): [2, 3],
    ("every-other", None): [0, 2, 4],
    ("every-other", "2"): [0, 2],
    ("hybrid-stacking", "4"): [0, 1, 0, 1],
    ("stacking", None): [0, 1, 2, 3, 4, 5] * 2,
}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize(("start", "layers"), BLOCKS)
def test_blocks_are_those_of_the_source(
    checkpoint: MakeCheckpoint, tmp_path: Path, start: Any, layers: str | None, architecture: str
) -> None:
    source_dir = checkpoint(architecture)
    source, target = load(source_dir), make(source_dir, tmp_path / "target", start=start, layers=layers)
    blocks = BLOCKS[start, layers]
    assert equal(rest(target), rest(source))
    assert [equal(block(target, i), block(source, number)) for i, number in enumerate(blocks)] == [True] * len(blocks)
    assert not equal(block(target, 0), block(source, blocks[0] + 1))  # negative control
    assert Config.from_checkpoint(tmp_path / "target").n_layer == len(blocks)
    assert json.loads((tmp_path / "target/config.json").read_text())["num_hidden_layers"] == len(blocks)
    written = receipt(tmp_path / "target")
    assert (written["start"], written["blocks"], written["seed"]) == (start, blocks, None)
    assert [written["origins"][f"{H}{i}"] for i in range(len(blocks))] == [f"source {number}" for number in blocks]
    assert written["origins"]["transformer.ln_f"] == "source"
    verify(tmp_path / "target", source=source_dir)


def test_every_start_has_its_rule_and_its_words_in_the_help() -> None:
    assert set(get_args(Start)) == set(RULES)
    assert all(start in str(surgery.__doc__) for start in RULES)


def test_stacked_blocks_train_apart(llama: Path, tmp_path: Path) -> None:
    """Two places of one source block must not share their storage: an update of one would change the other."""
    target = make(llama, tmp_path / "target", start="hybrid-stacking", layers="4")
    target[f"{H}0.attn.qkv.weight"].zero_()
    assert target[f"{H}2.attn.qkv.weight"].any()


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_random_is_the_initialisation_of_litgpt_pretrain(
    checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    """The weights as they are in litgpt.pretrain's main, after its own seeding and initialisation."""
    import lightning
    from litgpt import pretrain

    from inheritune_lit.gpt2.install import install_in_litgpt

    target = make(checkpoint(architecture), tmp_path / "target", start="random", layers="3", seed=7)
    config = Config.from_checkpoint(tmp_path / "target")

    class Caught(Exception):
        pass

    def catch(model: GPT) -> None:
        caught.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
        raise Caught

    caught: Tensors = {}
    install_in_litgpt()  # as the import of a recipe's data does
    monkeypatch.setattr(pretrain.torch, "compile", catch)
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")  # which litGPT sets
    train = pretrain.TrainArgs(max_tokens=32, max_norm=1.0, tie_embeddings=False, lr_warmup_steps=0)
    nothing: Any = None
    with pytest.raises(Caught):
        pretrain.main(
            lightning.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"),
            devices=1,
            seed=7,
            initial_checkpoint_dir=None,
            resume=False,
            config=config,
            data=nothing,
            out_dir=tmp_path / "run",
            tokenizer_dir=None,
            tokenizer=None,
            train=train,
            eval=pretrain.EvalArgs(interval=1),
            optimizer="AdamW",
        )
    assert equal(target, caught)
    assert not equal(target, random_state(config, 8))  # negative control
    written = receipt(tmp_path / "target")
    assert (written["seed"], written["source"]["fingerprint"]) == (7, None)
    assert set(written["origins"].values()) == {"random"}


def test_random_leaves_the_callers_generator_alone(llama: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    random_state(Config.from_checkpoint(llama), 2)
    assert torch.equal(torch.rand(3), expected)


def trained_of(architecture: str, folder: Path, **options: Any) -> Path:
    """What training may have made of the first two blocks: the same shapes, other numbers."""
    return make_checkpoint(folder, architecture, seed=1, n_layer=2, **options)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("head", ["target", "source"])
def test_grow_is_the_trained_target_and_the_next_blocks(
    checkpoint: MakeCheckpoint, tmp_path: Path, head: Any, architecture: str
) -> None:
    reference_dir, trained_dir = checkpoint(architecture), trained_of(architecture, tmp_path / "trained")
    options: dict[str, Any] = {"start": "grow", "layers": "4", "target_dir": trained_dir, "head": head}
    target = make(reference_dir, tmp_path / "grown", **options)
    reference, trained = load(reference_dir), load(trained_dir)
    for i in range(4):
        assert equal(block(target, i), block(trained if i < 2 else reference, i))
    # a head that is the token embedding takes it along; GPT-2's positions stay with the trained blocks
    of_head = {"transformer.ln_f.weight", "lm_head.weight" if architecture == "llama" else "transformer.wte.weight"}
    for name in rest(target):
        owner, other = (reference, trained) if name in of_head and head == "source" else (trained, reference)
        assert torch.equal(target[name], owner[name])
        assert not torch.equal(target[name], other[name])
    written = receipt(tmp_path / "grown")
    assert [written["origins"][f"{H}{i}"] for i in range(4)] == ["target 0", "target 1", "source 2", "source 3"]
    for key, folder in (("source", reference_dir), ("target", trained_dir)):
        assert written[key]["fingerprint"] == Weights(folder / "lit_model.pth").fingerprint()
        verify(tmp_path / "grown", source=folder)

    # logits: the trained target's blocks, then the reference's, put together by hand
    by_hand, donor = load_model(trained_dir), load_model(reference_dir)
    by_hand.transformer.h.extend([donor.transformer.h[2], donor.transformer.h[3]])
    if head == "source":
        by_hand.transformer.ln_f = donor.transformer.ln_f
        if architecture == "llama":
            by_hand.lm_head = donor.lm_head
        else:
            by_hand.transformer.wte = donor.transformer.wte
    tokens = torch.arange(16)[None]
    logits = load_model(tmp_path / "grown")(tokens)
    assert torch.equal(logits, by_hand(tokens))
    by_hand.transformer.h[3] = donor.transformer.h[4]  # negative control
    assert not torch.equal(logits, by_hand(tokens))


def test_grown_blocks_take_the_wider_type(llama: Path, tmp_path: Path) -> None:
    trained_dir = trained_of("llama", tmp_path / "trained", dtype=torch.bfloat16)
    target = make(llama, tmp_path / "grown", start="grow", layers="3", target_dir=trained_dir)
    assert {tensor.dtype for tensor in target.values()} == {torch.float32}
    assert torch.equal(target["lm_head.weight"], load(trained_dir)["lm_head.weight"].float())
    verify(tmp_path / "grown", source=llama)


PARTS = {"attention": {"attn", "norm"}, "mlp": {"mlp", "norm"}, "attention+mlp": {"attn", "mlp"}}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma", "moe"])
@pytest.mark.parametrize("start", PARTS)
def test_ablation_inherits_its_part_and_the_rest_is_random(
    checkpoint: MakeCheckpoint, tmp_path: Path, start: Any, architecture: str
) -> None:
    source_dir = checkpoint(architecture)
    source, target = load(source_dir), make(source_dir, tmp_path / "target", start=start, layers="1,3", seed=5)
    fresh = random_state(Config.from_checkpoint(tmp_path / "target"), 5)
    assert equal(rest(target), rest(source))
    for i, number in enumerate([1, 3]):
        for name, tensor in block(target, i).items():
            part = "norm" if "norm" in name else name.split(".")[0]  # norm_q of Gemma's attention is a norm
            inherited = part in PARTS[start]
            assert torch.equal(tensor, block(source, number)[name]) == inherited
            assert torch.equal(tensor, block(fresh, i)[name]) != inherited
        expected = {part: f"source {number}" if part in PARTS[start] else "random" for part in ("attn", "mlp", "norm")}
        assert receipt(tmp_path / "target")["origins"][f"{H}{i}"] == expected
    assert receipt(tmp_path / "target")["seed"] == 5
    verify(tmp_path / "target", source=source_dir)


def halved(source: Tensors, config: Config) -> Tensors:
    """Half the width, by viewing qkv as (heads, head size, channels): another way than the code's."""
    width, head_size = config.n_embd // 2, config.head_size

    def cut(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if ".attn.qkv." in name:
            sizes = [config.n_head, config.n_query_groups, config.n_query_groups]
            heads = tensor.unflatten(0, (sum(sizes), head_size)).split(sizes)
            rows = torch.cat([kind[: len(kind) // 2].flatten(0, 1) for kind in heads])
            return rows[:, :width] if rows.ndim == 2 else rows
        if ".attn.proj.weight" in name:
            return tensor.unflatten(1, (config.n_head, head_size))[:width, : config.n_head // 2].flatten(1)
        if name.endswith(("mlp.fc.weight", "mlp.fc_1.weight", "mlp.fc_2.weight")):
            return tensor[: config.intermediate_size // 2, :width]
        if name.endswith("mlp.proj.weight"):
            return tensor[:width, : config.intermediate_size // 2]
        return tensor[:, :width] if tensor.ndim == 2 else tensor[:width]  # embeddings, positions, head; norms

    return {name: cut(name, tensor) for name, tensor in source.items()}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen"])
def test_half_width_is_the_first_half_of_channels_and_heads(
    checkpoint: MakeCheckpoint, tmp_path: Path, architecture: str
) -> None:
    source_dir = checkpoint(architecture)
    stated = json.loads((source_dir / "config.json").read_text()) | {"n_inner": None}
    (source_dir / "config.json").write_text(json.dumps(stated))
    target = make(source_dir, tmp_path / "target", start="half-width")
    config = Config.from_checkpoint(source_dir)
    assert equal(target, halved(load(source_dir), config))
    half = Config.from_checkpoint(tmp_path / "target")
    for key in ("n_embd", "n_head", "n_query_groups", "intermediate_size"):
        assert getattr(half, key) == getattr(config, key) / 2
    assert (half.n_layer, half.head_size) == (config.n_layer, config.head_size)
    written = json.loads((tmp_path / "target/config.json").read_text())
    widths = ("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    assert written == stated | {key: stated[key] // 2 for key in widths}
    verify(tmp_path / "target", source=source_dir)


def test_half_width_keeps_heads_with_their_query_group(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """Attention at half the width is the reference's with the other channels 0 and without the other heads."""
    source_dir = checkpoint("qwen")
    make(source_dir, tmp_path / "target", start="half-width")
    whole, half = load_model(source_dir), load_model(tmp_path / "target")
    x = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    cos, sin = whole.cos[None, :8], whole.sin[None, :8]
    attention = whole.transformer.h[2].attn
    with torch.no_grad():
        ours = half.transformer.h[2].attn(x, cos, sin)
        both = attention(torch.cat([x, torch.zeros_like(x)], dim=-1), cos, sin)[..., :16]
        attention.proj.weight[:, 16:] = 0  # the second half of the heads is heard no more
        first = attention(torch.cat([x, torch.zeros_like(x)], dim=-1), cos, sin)[..., :16]
    torch.testing.assert_close(ours, first)
    assert not torch.allclose(ours, both, atol=1e-2)  # negative control


def test_per_layer_settings_follow_their_blocks(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    source = checkpoint("gemma")  # blocks 2 and 5 see everything, the others a window
    expected = {"stacking": [1, 1, 0, 1, 1, 0] * 2, "hybrid-stacking": [1, 1, 0] * 2, "middle": [1, 0, 1, 1]}
    starts: dict[Any, str | None] = {"stacking": None, "hybrid-stacking": "6", "middle": "4"}
    for start, layers in starts.items():
        make(source, tmp_path / start, start=start, layers=layers)
        config = Config.from_checkpoint(tmp_path / start)
        assert config.sliding_window_indices == config.rope_indices == expected[start]
        kinds = json.loads((tmp_path / start / "config.json").read_text())["layer_types"]
        assert kinds == [("full_attention", "sliding_attention")[sliding] for sliding in expected[start]]


def test_gpt2_blocks_keep_their_attention_scale_unless_stacked(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    source = checkpoint("gpt2")
    scales = {"last": [4, 5], "every-other": [0, 2], "middle": [2, 3], "hybrid-stacking": None, "random": None}
    for start, expected in scales.items():
        surgery(source, start=start, layers="2", out_dir=tmp_path / start)  # type: ignore[arg-type]
        assert Config.from_checkpoint(tmp_path / start).hf_config.get("layer_idx") == expected
    # a stacked model's blocks scale by their new position even if they are not the first of their source
    surgery(tmp_path / "last", start="stacking", out_dir=tmp_path / "stacked")
    assert "layer_idx" not in Config.from_checkpoint(tmp_path / "stacked").hf_config
    with pytest.raises(InheritError, match=r"another architecture .*layer_idx \[4, 5\], expected \[0, 1\]"):
        surgery(source, start="grow", target_dir=tmp_path / "last", layers="4", out_dir=tmp_path / "grown")


def test_a_tied_head_takes_the_embedding_along(llama: Path, tmp_path: Path) -> None:
    tied = make_checkpoint(tmp_path / "tied")
    state = load(tied)
    state["lm_head.weight"] = state["transformer.wte.weight"]
    torch.save(state, tied / "lit_model.pth")
    trained_dir = trained_of("llama", tmp_path / "trained")
    options: dict[str, Any] = {"start": "grow", "layers": "3", "target_dir": trained_dir, "head": "source"}
    grown = make(tied, tmp_path / "grown", **options)
    assert torch.equal(grown["transformer.wte.weight"], state["transformer.wte.weight"])
    assert grown["transformer.wte.weight"].data_ptr() == grown["lm_head.weight"].data_ptr()


def test_verify_notices_what_is_not_its_parents(llama: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"start": "attention", "layers": "2", "out_dir": tmp_path / "target"}
    surgery(llama, **options)
    state = load(tmp_path / "target")
    for name, is_inherited in ((f"{H}1.mlp.proj.weight", False), (f"{H}1.attn.proj.weight", True)):
        state[name] = state[name] + 1
        torch.save(state, tmp_path / "target/lit_model.pth")
        entry = {"bytes": (tmp_path / "target/lit_model.pth").stat().st_size}
        entry["sha256"] = sha256_file(tmp_path / "target/lit_model.pth")  # type: ignore[assignment]
        written = receipt(tmp_path / "target")
        written["files"]["lit_model.pth"] = entry
        (tmp_path / "target/inheritance.json").write_text(json.dumps(written))
        if is_inherited:
            with pytest.raises(InheritError, match=f"{name} differs from {name}"):
                verify(tmp_path / "target", source=llama)
        else:  # random: nothing to compare it with
            verify(tmp_path / "target", source=llama)
    other = make_checkpoint(tmp_path / "other", seed=3)
    with pytest.raises(InheritError, match="is not the source of"):
        verify(tmp_path / "target", source=other)
    surgery(llama, start="random", layers="2", out_dir=tmp_path / "random")
    with pytest.raises(InheritError, match="is a random start: no tensor of it comes from"):
        verify(tmp_path / "random", source=llama)


ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"start": "inherit"}, "--start inherit needs --layers.*The source has 6 blocks"),
    ({"start": "last", "layers": "0-2"}, "--layers 0-2: --start last chooses the blocks itself"),
    ({"start": "last", "layers": "7"}, "--layers 7 does not fit --start last: expected 1 to 6"),
    ({"start": "middle", "layers": "0"}, "--layers 0 does not fit --start middle: expected 1 to 6"),
    ({"start": "every-other", "layers": "4"}, "expected 1 to 3. The source has 6 blocks, of which every other"),
    ({"start": "stacking", "layers": "6"}, "expected 12. The source has 6 blocks, and all of them are stacked"),
    ({"start": "hybrid-stacking", "layers": "3"}, "expected an even number 2 to 12"),
    ({"start": "hybrid-stacking", "layers": "14"}, "expected an even number 2 to 12"),
    ({"start": "grow", "layers": "3"}, "--start grow needs --target_dir"),
    ({"start": "last", "layers": "3", "target_dir": "n2"}, "no other start takes one: got --start last"),
    ({"start": "grow", "layers": "2", "target_dir": "n2"}, "expected 3 to 6. The source has 6 blocks, the trained"),
    ({"start": "grow", "layers": "7", "target_dir": "n2"}, "--layers 7 does not fit --start grow: expected 3 to 6"),
    ({"start": "grow", "layers": "6", "target_dir": "n6"}, "expected none possible"),
    ({"start": "grow", "layers": "4", "target_dir": "wide"}, "another architecture .*n_embd 64, expected 32"),
    ({"start": "grow", "layers": "4", "target_dir": "gpt2"}, "another architecture .*norm_class_name 'LayerNorm'"),
    ({"start": "half-width", "source": "odd"}, "can't halve open_llama_3b: n_head 3, n_query_groups 3"),
    ({"start": "attention", "layers": "7"}, "it asks for the first 7"),
]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("zoo")
    return {
        "n2": make_checkpoint(folder / "n2", n_layer=2),
        "n6": make_checkpoint(folder / "n6"),
        "wide": make_checkpoint(folder / "wide", n_layer=2, n_embd=64),
        "gpt2": make_checkpoint(folder / "gpt2", "gpt2", n_layer=2),
        "odd": make_checkpoint(folder / "odd", n_head=3, n_query_groups=3, n_embd=30),
    }


@pytest.mark.parametrize(("options", "message"), ERRORS)
def test_mistakes(llama: Path, zoo: dict[str, Path], tmp_path: Path, options: dict[str, Any], message: str) -> None:
    options = dict(options)
    source = zoo[options.pop("source")] if "source" in options else llama
    if "target_dir" in options:
        options["target_dir"] = zoo[options["target_dir"]]
    with pytest.raises(InheritError, match=message):
        surgery(source, out_dir=tmp_path / "target", **options)
    assert not list(tmp_path.iterdir())


def test_dense_blocks_can_not_be_stacked_on_experts(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    source = checkpoint("moe", first_k_dense_replace=1, moe_intermediate_size=8)
    with pytest.raises(InheritError, match="mixture-of-experts block before a dense one"):
        surgery(source, start="stacking", out_dir=tmp_path / "target")
    (source / "config.json").unlink()  # transformers' Mixtral has no dense blocks
    make(source, tmp_path / "half", start="half-width")
    assert Config.from_checkpoint(tmp_path / "half").moe_intermediate_size == 4


def test_a_run_and_a_seed_that_are_none(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "run/model")
    with pytest.raises(InheritError, match=r"run is a run's folder; its checkpoint is .*run/model. Name that"):
        surgery(tmp_path / "run", layers="2", out_dir=tmp_path / "target")
    with pytest.raises(InheritError, match=r"--seed 1000\d*: expected 0 to 4294967295"):
        surgery(tmp_path / "run/model", start="random", layers="2", seed=10**30, out_dir=tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_litgpt_trains_a_start_made_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = make_checkpoint(tmp_path / "gpt2_small", "gpt2")
    make_tokenizer(reference)
    target = tmp_path / "target"
    options = ["--start", "attention+mlp", "--layers", "2", "--seed", "3", "--out_dir", str(target)]
    main(["surgery", str(reference), *options])
    assert "start       attention+mlp, seed 3" in capsys.readouterr().out
    recipe = {
        "model_name": "pythia-14m",
        "model_config": yaml.safe_load((target / "model_config.yaml").read_text()),
        "initial_checkpoint_dir": str(target),
        "tokenizer_dir": str(target),
        "out_dir": str(tmp_path / "run"),
        "precision": "32-true",
        "devices": 1,
        "data": {
            "class_path": "inheritune_lit.data.PackedTokens",
            "init_args": {"data_path": str(make_tokens(tmp_path, target, documents=12)), "num_workers": 0},
        },
        "train": {"max_tokens": 2 * 4 * 16, "max_seq_length": 16, "global_batch_size": 4, "micro_batch_size": 4}
        | {"lr_warmup_steps": 0, "min_lr": 1e-4, "max_norm": 1.0, "save_interval": None},
        "eval": {"interval": 2, "max_iters": 1},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-4}},
        "logger_name": "csv",
    }
    (tmp_path / "recipe.yaml").write_text(yaml.dump(recipe))
    command = [sys.executable, "-m", "litgpt", "pretrain", "--config", str(tmp_path / "recipe.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " step 2 |" in done.stdout
    start, trained = load(target), torch.load(tmp_path / "run/final/lit_model.pth", weights_only=True)["model"]
    assert start.keys() == trained.keys()
    # it started from these weights: two steps of AdamW at 1e-4 move nothing far
    assert all(torch.allclose(start[name], trained[name], atol=1e-3) for name in start)
    assert not equal(start, trained)
