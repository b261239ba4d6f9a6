"""GPT-2 in checkpoint folders, recipes and runs: surgery, conversion, plan, `litgpt pretrain`."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.gpt2 import TOKENS, apart, config, hugging_face
from helpers.models import ARCHITECTURES, make_tokenizer
from safetensors.torch import save_file
from transformers import GPT2Config

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import load_config
from inheritune_lit.checkpoint.layers import slice_config
from inheritune_lit.checkpoint.model import load_model
from inheritune_lit.plan.model import count_parameters, measured_flops, saved_for_backward
from inheritune_lit.surgery.command import surgery
from inheritune_lit.surgery.compare import compare_logits
from inheritune_lit.verify import verify

MakeCheckpoint = Callable[..., Path]


@pytest.mark.parametrize(
    ("n_layer", "n_embd", "published"),
    [(12, 768, 124_439_808), (24, 1024, 354_823_168), (36, 1280, 774_030_080), (48, 1600, 1_557_611_200)],
)
def test_openais_models_have_their_published_sizes(n_layer: int, n_embd: int, published: int) -> None:
    shape = {"n_layer": n_layer, "n_head": n_embd // 64, "n_embd": n_embd, "vocab_size": 50257, "n_positions": 1024}
    _, stock = gpt2.from_hugging_face({}, GPT2Config(**shape).to_dict())
    counted = count_parameters(stock)
    assert counted.total == published
    assert counted.inside == published - (50257 + 1024) * n_embd
    # the paper's: no bias anywhere, the vocabulary padded, half the blocks
    flags = stock.hf_config | {"layer_norm_bias": False, "scale_attn_by_inverse_layer_idx": True}
    ours = replace(stock, padded_vocab_size=50304, bias=False, hf_config=flags, n_layer=n_layer // 2)
    block = 12 * n_embd**2 + 2 * n_embd
    assert count_parameters(ours).total == (50304 + 1024 + 1) * n_embd + n_layer // 2 * block


def test_plan_counts_flops_and_activations() -> None:
    small = config()
    matrices = 3 * 12 * 32**2 + 64 * 32
    attention = 3 * 2 * 16 * 32  # per token: two products over 16 positions, in each of 3 blocks
    assert measured_flops(small, 16) == 3 * 2 * 16 * (matrices + attention)
    assert saved_for_backward(small, 16, "bf16-mixed").per_sequence > 0


def test_positions_obey_max_seq_length() -> None:
    """train.max_seq_length sets the attribute; the table keeps its block_size rows, of which the first are used."""
    torch.manual_seed(0)
    model = gpt2.build(config()).double()
    whole = model(TOKENS)
    model.max_seq_length = 16
    assert apart(model(TOKENS[:, :16]), whole[:, :16]) < 1e-12
    with pytest.raises(ValueError, match="Cannot forward sequence of length 17, max seq length is only 16"):
        model(TOKENS[:, :17])
    model(TOKENS[:, :16]).sum().backward()
    used = model.transformer.wpe.weight.grad.abs().sum(1) > 0
    assert used.tolist() == [True] * 16 + [False] * 16
    with pytest.raises(ValueError, match="block size is only 32"):
        model.max_seq_length = 33
    with pytest.raises(InheritError, match="no key-value cache"):
        model.set_kv_cache(1)


def test_the_head_in_chunks_gives_the_same_logits() -> None:
    model = gpt2.build(config())
    assert torch.equal(torch.cat(model(TOKENS, lm_head_chunk_size=10), dim=1), model(TOKENS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotary_percentage": 0.25}, "rotary_percentage is 0.25, expected 0.0"),
        ({"gelu_approximate": "none", "parallel_residual": True}, "'none', expected 'tanh'; parallel_residual is True"),
        ({"n_query_groups": 1}, "n_query_groups is 1, expected n_head's 4"),
        ({"hf_config": {"model_type": "gpt2"}}, "layer_norm_bias is None, expected true or false; hf_config.scale"),
        (
            {"hf_config": ARCHITECTURES["gpt2"][1]["hf_config"] | {"layer_idx": [0, 1]}},
            r"hf_config.layer_idx is \[0, 1\], expected 3 numbers",
        ),
    ],
)
def test_a_config_that_is_not_gpt2s_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InheritError, match=message):
        gpt2.build(config(**settings))


def test_blocks_keep_the_scale_they_were_trained_with(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    source = checkpoint("gpt2")
    surgery(source, layers="1,2,5", out_dir=tmp_path / "target")
    cut = load_config(tmp_path / "target")
    assert cut.hf_config["layer_idx"] == [1, 2, 5]
    assert slice_config(cut, [0, 2]).hf_config["layer_idx"] == [1, 5]
    assert "layer_idx" not in slice_config(load_config(source), [0, 1, 2]).hf_config
    # without it, every tensor is right and the logits are wrong
    settings = yaml.safe_load((tmp_path / "target/model_config.yaml").read_text())
    del settings["hf_config"]["layer_idx"]
    (tmp_path / "target/model_config.yaml").write_text(yaml.dump(settings))
    with pytest.raises(InheritError, match="logits .* differ"):
        compare_logits(tmp_path / "target", source, [1, 2, 5])


# From Hugging Face


@pytest.fixture
def stock(tmp_path: Path) -> tuple[Path, Any]:
    """A folder with a small GPT-2 as transformers saves it, and the model."""
    model = hugging_face(scale=False, dtype=torch.float32)
    model.save_pretrained(tmp_path / "stock")
    make_tokenizer(tmp_path / "stock")
    return tmp_path / "stock", model


def test_all_blocks_of_a_gpt2(stock: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, model = stock
    surgery(folder, layers="::", out_dir=tmp_path / "lit")
    assert f"parameters  {sum(p.numel() for p in model.parameters()):,} (" in capsys.readouterr().out
    assert apart(load_model(tmp_path / "lit")(TOKENS), model(TOKENS).logits) < 1e-5
    assert apart(load_model(folder)(TOKENS), model(TOKENS).logits) < 1e-5
    verify(tmp_path / "lit", source=folder)
    assert (tmp_path / "lit/tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    surgery(tmp_path / "lit", layers="2", out_dir=tmp_path / "target")
    verify(tmp_path / "target", source=tmp_path / "lit")
    assert json.loads((tmp_path / "target/config.json").read_text())["n_layer"] == 2
    surgery(folder, layers="2", out_dir=tmp_path / "straight")
    for name in ("lit_model.pth", "model_config.yaml", "config.json"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "target" / name).read_bytes()


def test_openais_own_layout(stock: tuple[Path, Any], tmp_path: Path) -> None:
    """Names without the prefix, causal masks among the tensors, a config.json of before there was a layer scale."""
    folder, model = stock
    state = {name.removeprefix("transformer."): tensor for name, tensor in model.state_dict().items()}
    del state["lm_head.weight"]
    masks = {f"h.{i}.attn.{kind}": torch.ones(1, 1, 32, 32) for i in range(3) for kind in ("bias", "masked_bias")}
    save_file({name: tensor.contiguous() for name, tensor in (state | masks).items()}, folder / "model.safetensors")
    stated = json.loads((folder / "config.json").read_text())
    del stated["scale_attn_by_inverse_layer_idx"]
    (folder / "config.json").write_text(json.dumps(stated))
    surgery(folder, layers="::", out_dir=tmp_path / "lit")
    assert apart(load_model(tmp_path / "lit")(TOKENS), model(TOKENS).logits) < 1e-5


def test_what_can_not_be_converted(stock: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = stock
    state, hf_config = model.state_dict(), model.config.to_dict()
    for message, tensors, settings in [
        (r"'transformer.extra' is not one of .* such as transformer.h.0.ln_1.weight", state | {"extra": TOKENS}, {}),
        ("tie_word_embeddings is False, expected True", state, {"tie_word_embeddings": False}),
        ("activation_function is 'relu', expected 'gelu_new'", state, {"activation_function": "relu"}),
        ("model_type is 'opt', expected 'gpt2'", state, {"model_type": "opt"}),
    ]:
        with pytest.raises(InheritError, match=message):
            gpt2.from_hugging_face(tensors, hf_config | settings)

    stated = (folder / "config.json").read_text()
    for wrong, message in [
        ({"n_head": 5}, "n_embd is 32, which 5 heads can't share"),
        ({"n_layer": 2.5}, "n_layer is 2.5, expected a number"),
        ({"n_layer": 2}, "transformer.h.2.attn.proj.bias is not in the model"),
        ({"n_inner": "x"}, "n_inner is 'x', expected a number"),
        ({"scale_attn_by_inverse_layer_idx": "false"}, "is 'false', expected true or false"),
    ]:
        (folder / "config.json").write_text(json.dumps(json.loads(stated) | wrong))
        with pytest.raises(InheritError, match=message):
            surgery(folder, layers="::", out_dir=tmp_path / "lit")
    (folder / "config.json").write_text(stated)
    state = {n: t.contiguous() for n, t in state.items() if "h.1.ln_2" not in n and "lm_head" not in n}
    save_file(state, folder / "model.safetensors")
    with pytest.raises(InheritError, match=r"transformer.h.1.norm_2.weight is missing"):
        surgery(folder, layers="::", out_dir=tmp_path / "lit")
    assert not (tmp_path / "lit").exists()
