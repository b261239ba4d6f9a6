"""GPT-2 beside transformers' GPT2LMHeadModel and beside a plain PyTorch GPT-2 written here."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import litgpt.pretrain
import pytest
import torch
from helpers.gpt2 import BOTH, TOKENS, apart, config, hugging_face
from helpers.models import ARCHITECTURES
from litgpt.config import Config
from litgpt.model import GPT, Block
from torch import Tensor, nn
from torch.nn import functional as F

import inheritune_lit.data.tokens  # noqa: F401  # places GPT-2 in litgpt.pretrain
from inheritune_lit import gpt2
from inheritune_lit.gpt2.install import litgpt_initialize_weights
from inheritune_lit.gpt2.model import GPT2

State = dict[str, Tensor]


def logits(state: State, config: Config) -> Tensor:
    model = gpt2.build(config).to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    return model(TOKENS)


def ours(model: Any, biases: Iterable[str]) -> tuple[State, Config]:
    """Our state dict and Config of it, without the kinds of biases that are zero there."""
    state, config = gpt2.from_hugging_face(model.state_dict(), model.config.to_dict())
    kinds = {name: "norm" if ".norm_" in name or ".ln_f" in name else "linear" for name in state}
    state = {name: t for name, t in state.items() if not name.endswith(".bias") or kinds[name] in biases}
    flags = config.hf_config | {"layer_norm_bias": "norm" in biases}
    return state, replace(config, bias="linear" in biases, hf_config=flags)


@pytest.mark.parametrize("biases", [BOTH, ("linear",), ("norm",), ()])
@pytest.mark.parametrize("scale", [False, True])
def test_logits_are_those_of_transformers(scale: bool, biases: tuple[str, ...]) -> None:
    model = hugging_face(biases, scale=scale)
    expected = model(TOKENS).logits
    state, config = ours(model, biases)
    assert apart(logits(state, config), expected) < 1e-10

    # negative controls: the scale left out or put in, positions off by one, the norms' biases lost or left in
    other_scale = replace(config, hf_config=config.hf_config | {"scale_attn_by_inverse_layer_idx": not scale})
    shifted = state | {"transformer.wpe.weight": state["transformer.wpe.weight"].roll(1, 0)}
    other = hugging_face(set(biases) ^ {"norm"}, scale=scale)
    assert apart(logits(state, other_scale), expected) > 1e-3
    assert apart(logits(shifted, config), expected) > 1e-3
    assert apart(logits(state, config), other(TOKENS).logits) > 1e-3


@pytest.mark.parametrize("layer_idx", [None, [0, 2, 5]])
@pytest.mark.parametrize("biases", [BOTH, ()])
def test_the_export_computes_the_same_under_sdpa(
    biases: tuple[str, ...], layer_idx: list[int] | None, tmp_path: Path
) -> None:
    from safetensors.torch import save_file
    from transformers import GPT2Config, GPT2LMHeadModel

    state, config = ours(hugging_face(biases, scale=True, dtype=torch.float32), biases)
    if layer_idx:
        config = replace(config, hf_config=config.hf_config | {"layer_idx": layer_idx})

    def exported(config: Config) -> tuple[Tensor, dict[str, Any]]:
        hf_state, hf_config = gpt2.to_hugging_face(state, config)
        GPT2Config(**hf_config).save_pretrained(tmp_path)
        save_file(hf_state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        model, loading = GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="sdpa")
        return model.eval()(TOKENS).logits, loading

    expected = logits(state, config)
    found, loading = exported(config)
    assert apart(found, expected) < 1e-5
    assert not any(loading.values())
    # negative control: without the scale in its weights it is another model
    unscaled = config.hf_config | {"scale_attn_by_inverse_layer_idx": False}
    assert apart(exported(replace(config, hf_config=unscaled))[0], expected) > 1e-3


def test_there_and_back_is_the_same_state() -> None:
    state, config = ours(hugging_face(scale=False), BOTH)
    back, config_back = gpt2.from_hugging_face(*gpt2.to_hugging_face(state, config))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert config_back == config


def test_a_folded_scale_does_not_change_the_state_it_came_from() -> None:
    state, config = ours(hugging_face(scale=True), BOTH)
    before = {name: tensor.clone() for name, tensor in state.items()}
    gpt2.to_hugging_face(state, config)
    assert all(torch.equal(state[name], before[name]) for name in state)


class PlainGPT2(nn.Module):
    """GPT-2 as in a textbook, over tensors named as litGPT's: every product written out."""

    def __init__(self, state: State, n_layer: int, n_head: int) -> None:
        super().__init__()
        self.n_layer, self.n_head = n_layer, n_head
        self.names = {name: name.replace(".", "/") for name in state}
        self.tensors = nn.ParameterDict({self.names[name]: nn.Parameter(t.clone()) for name, t in state.items()})

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.names[f"transformer.{name}.weight"]]

    def norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self[name]

    def attention(self, x: Tensor, i: int) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.n_head, -1).transpose(1, 2)
            for part in (x @ self[f"h.{i}.attn.qkv"].T).chunk(3, dim=-1)
        )
        scores = q @ k.mT / math.sqrt(width // self.n_head) / (i + 1)
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        return mixed.transpose(1, 2).reshape(batch, length, width) @ self[f"h.{i}.attn.proj"].T

    def mlp(self, x: Tensor, i: int) -> Tensor:
        x = x @ self[f"h.{i}.mlp.fc"].T
        gelu = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        return gelu @ self[f"h.{i}.mlp.proj"].T

    def forward(self, idx: Tensor) -> Tensor:
        x = self["wte"][idx] + self["wpe"][torch.arange(idx.size(1))]
        for i in range(self.n_layer):
            x = x + self.attention(self.norm(x, f"h.{i}.norm_1"), i)
            x = x + self.mlp(self.norm(x, f"h.{i}.norm_2"), i)
        return self.norm(x, "ln_f") @ self["wte"].T


def train(model: nn.Module, steps: int = 6) -> list[float]:
    """Losses of some steps on one batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(TOKENS[:, :-1]).flatten(0, 1), TOKENS[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_follows_a_plain_gpt2_step_for_step(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = gpt2.build(config()).double()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = PlainGPT2(start, n_layer=3, n_head=4)
    losses = train(plain)
    assert train(model) == pytest.approx(losses, abs=1e-10)
    assert losses[-1] < losses[0] - 0.5
    for name, tensor in model.state_dict().items():
        assert apart(tensor, plain.tensors[plain.names[name]]) < 1e-8, name
    # negative control: no gradient through the head to the embedding
    model.load_state_dict(start)
    monkeypatch.setattr(GPT2, "_head", lambda self, x: F.linear(x, self.transformer.wte.weight.detach()))
    assert train(model)[1:] != pytest.approx(losses[1:], abs=1e-4)


def test_initialisation_is_gpt2s() -> None:
    torch.manual_seed(0)
    big = config(n_embd=128, n_layer=8, intermediate_size=512, padded_vocab_size=512, block_size=256, bias=True)
    model = litgpt.pretrain.GPT(big)
    fabric = L.Fabric(devices=1, accelerator="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    litgpt.pretrain.initialize_weights(fabric, model, n_layer=big.n_layer, n_embd=big.n_embd)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert torch.all(parameter == (0.0 if name.endswith("bias") else 1.0)), name
            continue
        expected = 0.02 / math.sqrt(2 * 8) if name.endswith("proj.weight") else 0.02
        assert parameter.std().item() == pytest.approx(expected, rel=0.03), name
        assert abs(parameter.mean().item()) < expected / 20, name
    # negative control: litGPT's own misses the MLP's projection, which adds to the residual stream as attention's does
    litgpt_initialize_weights(fabric, model, n_layer=big.n_layer, n_embd=big.n_embd)
    assert model.transformer.h[0].mlp.proj.weight.std().item() == pytest.approx(math.sqrt(2 / 5 / 128), rel=0.03)


def test_other_models_are_litgpts_own() -> None:
    for name, (litgpt_name, small, _) in ARCHITECTURES.items():
        model = litgpt.pretrain.GPT(Config.from_name(litgpt_name, **small))
        assert type(model) is (GPT2 if name == "gpt2" else GPT)
    small_llama = Config.from_name("open_llama_3b", **ARCHITECTURES["llama"][1])
    states = []
    for initialize in (litgpt.pretrain.initialize_weights, litgpt_initialize_weights):
        torch.manual_seed(0)
        model = GPT(small_llama)
        initialize(L.Fabric(devices=1, accelerator="cpu"), model, n_layer=6, n_embd=32)
        states.append(model.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert litgpt.pretrain.initialize_weights is not litgpt_initialize_weights
    assert all(isinstance(block, Block) for block in gpt2.build(config()).transformer.h)  # what FSDP wraps
