"""A checkpoint as transformers has it: what people's folders say in other words, and what they must not say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.models import make_checkpoint, write_bpe
from safetensors.torch import save_file

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.hugging_face import weight_files
from inheritune_lit.checkpoint.layers import with_old_rope
from inheritune_lit.evaluate.harness import ModelOptions, load_model
from inheritune_lit.export import parity, reload
from inheritune_lit.export.card import check_metadata
from inheritune_lit.export.command import export, export_checkpoint
from inheritune_lit.surgery.command import surgery

WORDS = {"vocab_size": 600, "padded_vocab_size": 640}


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "reload_in_new_process", reload.reload)


@pytest.fixture
def reference(tmp_path: Path) -> Callable[..., Path]:
    """Makes a checkpoint with a tokenizer of its own: `reference("gemma")`."""

    def make(architecture: Any = "llama", **options: Any) -> Path:
        return write_bpe(make_checkpoint(tmp_path / "reference", architecture, **WORDS | options))

    return make


def edit(path: Path, **changes: Any) -> None:
    """Changes a JSON file; None takes a key out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


# -- which files hold a model's weights


def gpt2_folder(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=600, n_positions=32)
    state = GPT2LMHeadModel(config).state_dict()
    write_bpe(folder)
    config.save_pretrained(folder)
    return folder, {name: tensor.clone() for name, tensor in state.items() if name != "lm_head.weight"}


def shards(folder: Path, state: dict[str, torch.Tensor], count: int, suffix: str = "safetensors") -> dict[str, str]:
    """Writes so many shards, and returns which holds what."""
    stem, mapping = "model" if suffix == "safetensors" else "pytorch_model", {}
    for i in range(count):
        part = {name: state[name] for name in sorted(state)[i::count]}
        path = folder / f"{stem}-{i + 1:05d}-of-{count:05d}.{suffix}"
        save_file(part, path) if suffix == "safetensors" else torch.save(part, path)
        mapping |= dict.fromkeys(part, path.name)
    return mapping


def index(folder: Path, mapping: Any, whole: str = "model.safetensors") -> None:
    (folder / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapping}))


def stale_shards(folder: Path, state: dict[str, torch.Tensor], old: dict[str, torch.Tensor]) -> None:
    shards(folder, old, 3)
    index(folder, shards(folder, state, 2))


def old_beside(folder: Path, state: dict[str, torch.Tensor], old: dict[str, torch.Tensor]) -> None:
    save_file(state, folder / "model.safetensors")
    save_file(old, folder / "model_old.safetensors")


def whole_beside_shards(folder: Path, state: dict[str, torch.Tensor], old: dict[str, torch.Tensor]) -> None:
    save_file(state, folder / "model.safetensors")
    index(folder, shards(folder, old, 2))


def stale_pickles(folder: Path, state: dict[str, torch.Tensor], old: dict[str, torch.Tensor]) -> None:
    shards(folder, old, 3, "bin")
    index(folder, shards(folder, state, 2, "bin"), "pytorch_model.bin")
    torch.save(old, folder / "training_args.bin")


def pickle_beside(folder: Path, state: dict[str, torch.Tensor], old: dict[str, torch.Tensor]) -> None:
    torch.save(old, folder / "pytorch_model.bin")
    index(folder, shards(folder, state, 2))


@pytest.mark.parametrize("write", [stale_shards, old_beside, whole_beside_shards, pickle_beside])
def test_only_a_models_own_files_are_read(tmp_path: Path, write: Callable[..., None]) -> None:
    folder, state = gpt2_folder(tmp_path / "hf")
    write(folder, state, {name: tensor + 1 for name, tensor in state.items()})
    surgery(folder, layers="::", out_dir=tmp_path / "lit")
    written = torch.load(tmp_path / "lit/lit_model.pth", weights_only=True)
    assert torch.equal(written["transformer.wte.weight"], state["transformer.wte.weight"])
    assert all(path.name not in ("model_old.safetensors", "training_args.bin") for path in weight_files(folder))


def test_pickles_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    folder, state = gpt2_folder(tmp_path / "hf")
    stale_pickles(folder, state, state)
    with pytest.raises(InheritError, match=r"holds pickles \(pytorch_model-00001-of-00002.bin\)") as refused:
        surgery(folder, layers="::", out_dir=tmp_path / "lit")
    exec("\n".join(line.strip() for line in str(refused.value).splitlines()[1:]), {})
    surgery(folder, layers="::", out_dir=tmp_path / "lit")
    written = torch.load(tmp_path / "lit/lit_model.pth", weights_only=True)
    assert torch.equal(written["transformer.wte.weight"], state["transformer.wte.weight"])


def test_an_index_that_does_not_fit_its_files(tmp_path: Path) -> None:
    folder, state = gpt2_folder(tmp_path / "hf")
    mapping = shards(folder, state, 2)
    with pytest.raises(InheritError, match=r"nor the index of either; model-00001-of-00002.safetensors, .* no index"):
        surgery(folder, layers="::", out_dir=tmp_path / "lit")
    for wrong in (mapping | {"x": "model-00003-of-00003.safetensors"}, mapping | {"x": "../hf/config.json"}, {}, []):
        index(folder, wrong)
        with pytest.raises(InheritError, match="index.json names files that are not in"):
            surgery(folder, layers="::", out_dir=tmp_path / "lit")
    index(folder, mapping)
    save_file(state, folder / "model-00001-of-00002.safetensors")  # all of it, half of which is in the other one too
    with pytest.raises(InheritError, match=r"is in .*0000[12]-of-00002.safetensors and in another file of its index"):
        surgery(folder, layers="::", out_dir=tmp_path / "lit")
    assert not (tmp_path / "lit").exists()


# -- what config.json says of each block


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_types", ["full_attention"] * 8),
        ("layer_types", ["full_attention"] * 2),
        ("layer_types", []),
        ("mlp_layer_types", ["dense"] * 7),
        ("no_rope_layers", [1, 0] * 4),
        ("layers_block_type", ["attention"] * 5),
        ("sliding_window_pattern", [True] * 7),
    ],
)
def test_lists_of_another_depth(reference: Any, tmp_path: Path, key: str, value: list[Any], nested: bool) -> None:
    folder = reference("gemma")
    stated = json.loads((folder / "config.json").read_text()) | {key: value}
    stated = {"model_type": "gemma3", "text_config": stated} if nested else stated
    (folder / "config.json").write_text(json.dumps(stated))
    for command in (
        lambda: surgery(folder, layers="3", out_dir=tmp_path / "cut"),
        lambda: export(folder, out_dir=tmp_path / "out"),
    ):
        with pytest.raises(InheritError, match=rf"for another number of blocks than 6: {key} has {len(value)} entries"):
            command()
    assert not (tmp_path / "cut").exists()
    assert not (tmp_path / "out").exists()


def test_lists_of_the_right_depth_are_cut(reference: Any, tmp_path: Path) -> None:
    folder = reference()
    edit(folder / "config.json", no_rope_layers=[1, 1, 1, 0, 1, 1], mlp_only_layers=[0, 3], mlp_layer_types=[*"abcdef"])
    surgery(folder, layers="0,3", out_dir=tmp_path / "cut")
    written = json.loads((tmp_path / "cut/config.json").read_text())
    assert (written["no_rope_layers"], written["mlp_only_layers"]) == ([1, 0], [0, 1])
    assert written["mlp_layer_types"] == ["a", "d"]


@pytest.mark.parametrize(
    ("architecture", "lists"),
    [
        ("gemma", {"rope_indices": [1] * 8}),
        ("gemma", {"sliding_window_indices": [1] * 2}),
        ("llama", {"rope_indices": [1] * 5}),
        ("llama", {"sliding_window_indices": [1] * 7}),
    ],
)
def test_lists_of_another_depth_in_litgpts_config(
    reference: Any, tmp_path: Path, architecture: str, lists: Any
) -> None:
    folder = reference(architecture)
    path = folder / "model_config.yaml"
    path.write_text(yaml.dump(yaml.safe_load(path.read_text()) | lists))
    for command in (
        lambda: surgery(folder, layers="3", out_dir=tmp_path / "cut"),
        lambda: export(folder, out_dir=tmp_path / "out"),
    ):
        with pytest.raises(InheritError, match=rf"{next(iter(lists))}"):
            command()


# -- transformers 5's words


LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA_3 |= {"original_max_position_embeddings": 8192}
LONG = {"short_factor": [1.0], "long_factor": [2.0]}


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ({"rope_theta": 5e5, "rope_type": "default"}, {"rope_theta": 5e5}),
        ({"rope_theta": 5e5, **LLAMA_3}, {"rope_theta": 5e5, "rope_scaling": LLAMA_3}),
        (
            {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.25},
            {"rope_theta": 1e4, "partial_rotary_factor": 0.25},
        ),
        (
            {"full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0}}
            | {"sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}},
            {"rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_local_base_freq": 1e4},
        ),
        (
            {"rope_theta": 1e4, "rope_type": "longrope", "original_max_position_embeddings": 64, **LONG},
            {"rope_theta": 1e4, "original_max_position_embeddings": 64, "rope_scaling": {"type": "longrope", **LONG}},
        ),
        (None, {}),
    ],
)
def test_rope_parameters(new: Any, old: dict[str, Any]) -> None:
    assert with_old_rope({"model_type": "llama", "rope_parameters": new}) == {"model_type": "llama"} | old


def test_rope_parameters_of_a_pythia() -> None:
    new = {"rope_theta": 20000, "rope_type": "default", "partial_rotary_factor": 0.25}
    old = {"model_type": "gpt_neox", "rotary_emb_base": 20000, "rotary_pct": 0.25}
    assert with_old_rope({"model_type": "gpt_neox", "rope_parameters": new}) == old


GEMMA_ROPE = {
    "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
}


@pytest.mark.parametrize(
    ("architecture", "rope", "gone"),
    [
        ("gemma", GEMMA_ROPE, ("rope_theta", "rope_local_base_freq")),
        ("qwen", {"rope_theta": 1e6, "rope_type": "default"}, ("rope_theta",)),
        ("pythia", {"rope_theta": 10000, "rope_type": "default", "partial_rotary_factor": 0.25}, ("rotary_pct",)),
    ],
)
def test_a_folder_of_transformers_5(reference: Any, tmp_path: Path, architecture: str, rope: Any, gone: Any) -> None:
    folder = reference(architecture)
    edit(folder / "config.json", rope_parameters=rope, dtype="float32", **dict.fromkeys(gone))
    settings = {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "extra_special_tokens": ["<s>"]}
    edit(folder / "tokenizer_config.json", **settings)
    for name, source in (("whole", folder), ("cut", tmp_path / "cut")):
        if name == "cut":
            surgery(folder, layers="0,2,3", out_dir=source)
            assert "rope_parameters" not in json.loads((source / "config.json").read_text())
        assert export_checkpoint(source, tmp_path / name / "out")["check"]["logits"]["relative_difference"] < 1e-4
        assert not set(gone) - set(json.loads((tmp_path / name / "out/config.json").read_text()))


# -- the tokenizer's files


def padded(folder: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(8)
    tokenizer.save(str(folder / "tokenizer.json"))


def one_more(folder: Path) -> None:
    """Gemma 3's <image_soft_token>: 40 more than the text needs, so that the last one has no row."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([f"<{i}>" for i in range(641 - tokenizer.get_vocab_size())])
    tokenizer.save(str(folder / "tokenizer.json"))


TOKENIZERS: dict[str, Callable[[Path], None]] = {
    "padding and truncation": padded,
    "a token without a row": one_more,
    "no class": lambda folder: edit(folder / "tokenizer_config.json", tokenizer_class=None),
    "a list of EOS ids": lambda folder: (
        edit(folder / "tokenizer_config.json", eos_token=None),
        (folder / "generation_config.json").write_text('{"eos_token_id": [1, 0]}'),
        edit(folder / "config.json", eos_token_id=[1, 0]),
    )[0],
}


@pytest.mark.parametrize("what", TOKENIZERS)
def test_tokenizers_as_they_are(reference: Any, tmp_path: Path, what: str) -> None:
    folder = reference()
    TOKENIZERS[what](folder)
    surgery(folder, layers="2", out_dir=tmp_path / "cut")
    assert export_checkpoint(tmp_path / "cut", tmp_path / "out")["check"]["depth"] == 2


def test_a_vocabulary_that_is_too_large_is_refused(reference: Any, tmp_path: Path) -> None:
    folder = reference(vocab_size=300, padded_vocab_size=300)
    with pytest.raises(InheritError, match=r"tokens, ids up to \d+, the model embeddings for 300"):
        export(folder, out_dir=tmp_path / "out", dry_run=True)


# -- attention, the card


def test_a_soft_cap_is_evaluated_as_it_is(tmp_path: Path, reference: Any) -> None:
    gemma_2 = {"n_embd": 32, "n_head": 4, "n_query_groups": 2, "head_size": 8, "n_layer": 2, "intermediate_size": 48}
    gemma_2 |= {"block_size": 128, "sliding_window_size": 4, "sliding_window_indices": [1, 0]}
    stated = {"model_type": "gemma2", "sliding_window": 4, "query_pre_attn_scalar": 256}
    export_checkpoint(reference(("Gemma-2-2b", gemma_2, stated)), tmp_path / "out")
    for cap, attention in ((None, "eager"), (0, "sdpa")):  # left out, it is transformers' default, 50
        edit(tmp_path / "out/config.json", attn_logit_softcapping=cap)
        if cap is not None:
            content = json.loads((tmp_path / "out/config.json").read_text()) | {"attn_logit_softcapping": None}
            (tmp_path / "out/config.json").write_text(json.dumps(content))
        (tmp_path / "out/inheritance.json").unlink(missing_ok=True)
        assert load_model(tmp_path / "out", ModelOptions()).model.config._attn_implementation == attention
    assert 'attn_implementation="eager"' in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(
    ("license", "base_model", "message"),
    [
        ("Apache 2.0", None, "'Apache 2.0' is none of .*: expected apache-2.0?"),
        ("apache-2", None, "expected apache-2.0?"),
        ("LLaMA 2", None, "expected llama2?"),
        ("MIT", None, "expected mit?"),
        ("ours alone", None, "expected one such as apache-2.0"),
        ("", None, "expected one such as"),
        (None, "checkpoints/openlm-research/open_llama_3b", "is no name on the Hugging Face hub: expected OWNER/NAME"),
        (None, "/data/open_llama_3b", "is no name"),
        (None, "./open_llama_3b", "is no name"),
        (None, "open llama", "is no name"),
        (None, "https://huggingface.co/openlm-research/open_llama_3b", "is no name"),
    ],
)
def test_what_the_hub_would_refuse(
    reference: Any, tmp_path: Path, license: str | None, base_model: str | None, message: str
) -> None:
    folder = reference()
    for dry_run in (True, False):
        with pytest.raises(InheritError, match=message):
            export(folder, out_dir=tmp_path / "out", license=license, base_model=base_model, dry_run=dry_run)
    assert not (tmp_path / "out").exists()


def test_what_the_hub_takes() -> None:
    for license, base_model in (("apache-2.0", "gpt2"), ("llama3.2", "meta-llama/Llama-3.2-1B"), (None, None)):
        check_metadata(license, base_model=base_model)


def test_blocks_in_their_order(reference: Any, tmp_path: Path) -> None:
    folder = reference(n_layer=12)
    state = torch.load(folder / "lit_model.pth", weights_only=True)
    torch.save(dict(sorted(state.items())), folder / "lit_model.pth")  # as a converter leaves it: h.1, h.10, h.11, h.2
    surgery(folder, layers="11", start="attention", out_dir=tmp_path / "cut")
    receipt = json.loads((tmp_path / "cut/inheritance.json").read_text())
    blocks = [f"transformer.h.{i}" for i in range(11)]
    assert [module for module in receipt["origins"] if ".h." in module] == blocks
    receipt["origins"] = dict(sorted(receipt["origins"].items()))  # a receipt of before
    (tmp_path / "cut/inheritance.json").write_text(json.dumps(receipt))
    export_checkpoint(tmp_path / "cut", tmp_path / "out")
    listed = [
        line.split("`")[1]
        for line in (tmp_path / "out/README.md").read_text().splitlines()
        if "`transformer.h." in line
    ]
    assert listed == blocks
