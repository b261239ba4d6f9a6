import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_checkpoint
from litgpt.config import Config
from litgpt.model import GPT

from inheritune_lit.checkpoint import Weights
from inheritune_lit.starts import random_state
from inheritune_lit.surgery import surgery
from inheritune_lit.verify import load_model, verify

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


@pytest.mark.parametrize(("start", "layers"), BLOCKS)
def test_blocks_are_those_of_the_source(llama: Path, tmp_path: Path, start: Any, layers: str | None) -> None:
    source, target = load(llama), make(llama, tmp_path / "target", start=start, layers=layers)
    blocks = BLOCKS[start, layers]
    assert equal(rest(target), rest(source))
    assert [equal(block(target, i), block(source, number)) for i, number in enumerate(blocks)] == [True] * len(blocks)
    assert not equal(block(target, 0), block(source, blocks[0] + 1))  # negative control
    assert Config.from_checkpoint(tmp_path / "target").n_layer == len(blocks)
    assert json.loads((tmp_path / "target/config.json").read_text())["num_hidden_layers"] == len(blocks)
    written = receipt(tmp_path / "target")
    assert (written["start"], written["blocks"], written["seed"]) == (start, blocks, None)
    assert [written["origins"][f"{H}{i}"] for i in range(len(blocks))] == [f"source {number}" for number in blocks]
    assert written["origins"]["lm_head"] == "source"


def test_stacked_blocks_train_apart(llama: Path, tmp_path: Path) -> None:
    """Two places of one source block must not share their storage: an update of one would change the other."""
    target = make(llama, tmp_path / "target", start="hybrid-stacking", layers="4")
    target[f"{H}0.attn.qkv.weight"].zero_()
    assert target[f"{H}2.attn.qkv.weight"].any()


def test_random_is_the_initialisation_of_litgpt_pretrain(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights as they are in litgpt.pretrain's main, after its own seeding and initialisation."""
    import lightning
    from litgpt import pretrain

    target = make(llama, tmp_path / "target", start="random", layers="3", seed=7)
    config = Config.from_checkpoint(tmp_path / "target")

    class Caught(Exception):
        pass

    def catch(model: GPT) -> None:
        caught.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
        raise Caught

    caught: Tensors = {}
    monkeypatch.setattr(pretrain.torch, "compile", catch)
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


def grown(tmp_path: Path, llama: Path, **options: Any) -> tuple[Tensors, Tensors, Tensors]:
    trained_dir = make_checkpoint(tmp_path / "trained", seed=1, n_layer=2)
    target = make(llama, tmp_path / "grown", start="grow", layers="4", target_dir=trained_dir, **options)
    return load(llama), load(trained_dir), target


@pytest.mark.parametrize("head", ["target", "reference"])
def test_grow_is_the_trained_target_and_the_next_blocks(llama: Path, tmp_path: Path, head: Any) -> None:
    reference, trained, target = grown(tmp_path, llama, head=head)
    for i in range(4):
        assert equal(block(target, i), block(trained if i < 2 else reference, i))
    owner = trained if head == "target" else reference
    assert torch.equal(target["transformer.wte.weight"], trained["transformer.wte.weight"])
    assert torch.equal(target["lm_head.weight"], owner["lm_head.weight"])
    assert torch.equal(target["transformer.ln_f.weight"], owner["transformer.ln_f.weight"])
    written = receipt(tmp_path / "grown")
    assert [written["origins"][f"{H}{i}"] for i in range(4)] == ["target 0", "target 1", "source 2", "source 3"]
    for key, folder in (("source", llama), ("target", tmp_path / "trained")):
        assert written[key]["fingerprint"] == Weights(folder / "lit_model.pth").fingerprint()

    # logits: the trained target's blocks, then the reference's, put together by hand
    by_hand, donor = load_model(tmp_path / "trained"), load_model(llama)
    by_hand.transformer.h.extend([donor.transformer.h[2], donor.transformer.h[3]])
    if head == "reference":
        by_hand.transformer.ln_f, by_hand.lm_head = donor.transformer.ln_f, donor.lm_head
    tokens = torch.arange(16)[None]
    logits = load_model(tmp_path / "grown")(tokens)
    assert torch.equal(logits, by_hand(tokens))
    by_hand.transformer.h[3] = donor.transformer.h[4]  # negative control
    assert not torch.equal(logits, by_hand(tokens))
