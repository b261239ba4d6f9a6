"""Every family that litGPT has a config of, in small, the whole way: surgery, export, transformers, litGPT's logits.

`PYTHONPATH=tests python tests/checkpoint/test_families.py` writes the table of docs/families.md anew.
"""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import ROOT, make_checkpoint, write_bpe
from litgpt.config import Config, configs

from inheritune_lit.base.errors import InheritError
from inheritune_lit.export import parity, reload
from inheritune_lit.export.command import export_checkpoint
from inheritune_lit.surgery.command import surgery

TABLE = ROOT / "docs/families.md"
SMALL = {
    **{"n_embd": 32, "n_head": 4, "n_query_groups": 2, "head_size": 8, "n_layer": 6, "intermediate_size": 48},
    **{"block_size": 128, "vocab_size": 600, "padded_vocab_size": 640},
}
WINDOWS = {"sliding_window_size": 4, "sliding_window_indices": [1, 1, 0, 1, 1, 0]}
GEMMA_3 = SMALL | WINDOWS | {"rope_indices": [1, 1, 0, 1, 1, 0]}
GEMMA_2 = {"model_type": "gemma2", "sliding_window": 4, "query_pre_attn_scalar": 256}
IN_GEMMA_3 = {
    **{"sliding_window": 4, "sliding_window_pattern": 3, "query_pre_attn_scalar": 256},
    **{"rope_theta": 1e6, "rope_local_base_freq": 1e4},
}
PHI_3 = {"model_type": "phi3", "pad_token_id": 0, "original_max_position_embeddings": 128, "sliding_window": None}
FALCON = {"model_type": "falcon", "parallel_attn": True, "bias": False, "alibi": False}
EXPERTS = {"n_expert": 4, "n_expert_per_token": 2}
IN_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True}
LLAMA_3 = {
    **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    **{"original_max_position_embeddings": 8192},
}

# A name of litGPT's, what is small about it, what config.json says beside the sizes, whether it is published tied.
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "pythia-14m": ({"n_query_groups": 4}, {"model_type": "gpt_neox", "rotary_pct": 0.25}, False),
    "open_llama_3b": ({"n_query_groups": 4}, {"model_type": "llama"}, False),
    "Llama-3.2-1B": ({}, {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": LLAMA_3 | {"factor": 32.0}}, True),
    "Mistral-7B-v0.1": (
        {"sliding_window_size": 8, "sliding_window_indices": [1] * 6},
        {"model_type": "mistral", "sliding_window": 8},
        False,
    ),
    "Mistral-7B-v0.3": ({}, {"model_type": "mistral", "sliding_window": None, "rope_theta": 1e6}, False),
    "Mixtral-8x7B-v0.1": (
        EXPERTS,
        {"model_type": "mixtral", "num_local_experts": 4, "sliding_window": None, "rope_theta": 1e6},
        False,
    ),
    "stablelm-3b-4e1t": ({"n_query_groups": 4}, {"model_type": "stablelm", "partial_rotary_factor": 0.25}, False),
    "OLMo-1B-hf": ({"n_query_groups": 4}, {"model_type": "olmo"}, True),
    "OLMo-2-1124-7B": ({"n_query_groups": 4}, {"model_type": "olmo2", "rope_theta": 5e5}, False),
    "falcon-7b": (
        {"n_query_groups": 1, "intermediate_size": 128},
        FALCON | {"multi_query": True, "new_decoder_architecture": False},
        True,
    ),
    "falcon-40b": ({"intermediate_size": 128}, FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}, False),
    "Gemma-2b": ({"n_query_groups": 1}, {"model_type": "gemma"}, True),
    "Gemma-2-2b": (WINDOWS, GEMMA_2, True),
    "Gemma-3-1b-it": (GEMMA_3, {"model_type": "gemma3_text", **IN_GEMMA_3}, True),
    "Gemma-3-4b-it": (
        GEMMA_3,
        {"model_type": "gemma3", "text_config": IN_GEMMA_3 | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}},
        True,
    ),
    # 0.4 of 8, and 0.5, are no even numbers
    "phi-2": (
        {"n_query_groups": 4, "rotary_percentage": 0.5},
        {"model_type": "phi", "partial_rotary_factor": 0.5},
        False,
    ),
    "phi-4": ({}, PHI_3 | {"rope_theta": 250000}, False),
    "Phi-3-mini-4k-instruct": (
        {"n_query_groups": 4, "sliding_window_size": 8, "sliding_window_indices": [1] * 6},
        PHI_3 | {"sliding_window": 8},
        False,
    ),
    "Phi-4-mini-instruct": (
        {"sliding_window_size": 262144, "sliding_window_indices": [1] * 6},
        PHI_3 | {"sliding_window": 262144, "partial_rotary_factor": 0.75},
        True,
    ),
    "Qwen2.5-0.5B": ({}, {"model_type": "qwen2", "max_window_layers": 6, "rope_theta": 1e6}, True),
    "Qwen3-0.6B": ({}, {"model_type": "qwen3", "max_window_layers": 6, "rope_theta": 1e6}, True),
    "Qwen3-30B-A3B": (
        EXPERTS | {"moe_intermediate_size": 24},
        {"model_type": "qwen3_moe", "rope_theta": 1e6, **IN_EXPERTS},
        False,
    ),
}


def model_type(name: str, config: Config) -> str:
    """transformers' name for the family of one of litGPT's names."""
    for kind, beginnings in {
        "falcon": ("falcon-",),
        "gemma2": ("gemma-2-",),
        "gemma3": ("gemma-3-4", "gemma-3-12", "gemma-3-27"),
        "gemma3_text": ("gemma-3-",),
        "gemma": ("gemma-", "codegemma"),
        "stablelm": ("stablelm-3b", "stablelm-zephyr", "stable-code"),
        "gpt_neox": ("pythia", "stablelm-", "stablecode"),
        "olmo2": ("olmo-2-",),
        "olmo": ("olmo-",),
        "mixtral": ("mixtral",),
        "mistral": ("mistral", "mathstral"),
        "phi": ("phi-1", "phi-2"),
        "phi3": ("phi-",),
        "qwen2": ("qwen2", "qwq"),
        "qwen3_moe" if config.n_expert else "qwen3": ("qwen3",),
    }.items():
        if name.lower().startswith(beginnings):
            return kind
    return "llama"


def structure(name: str, **small: Any) -> tuple[Any, ...]:
    """What a model of this name is made of, whatever its size: two of one structure go the same way."""
    config = Config.from_name(name, **small)
    windows = None if config.sliding_window_size is None else len(set(config.sliding_window_indices))
    same = ("mlp_class_name", "norm_class_name", "bias", "attn_bias", "lm_head_bias", "parallel_residual")
    same += ("shared_attention_norm", "norm_qk", "norm_1", "norm_2", "post_attention_norm", "post_mlp_norm")
    return (
        model_type(name, config),
        *(getattr(config, key) for key in same),
        *(config.attention_logit_softcapping, config.final_logit_softcapping, config.scale_embeddings, windows),
        *(config.rope_indices is not None, bool(config.n_expert), config.rotary_percentage < 1),
        *sorted(config.rope_adjustments or {}),
    )


@cache
def names() -> dict[str, list[str]]:
    """Family → litGPT's names of its structure."""
    families = {structure(name, **SMALL | small): name for name, (small, _, _) in FAMILIES.items()}
    found: dict[str, list[str]] = {name: [] for name in FAMILIES}
    for config in configs:
        found[families[structure(config["name"])]].append(config["name"])
    return found


@cache
def whole_way(name: str, tied: bool) -> str:
    """A reference, three blocks of it by surgery, and the export of these: what came of it."""
    small, hf_config, _ = FAMILIES[name]
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "reload_in_new_process", reload.reload)
        reference = make_checkpoint(Path(scratch) / "reference", (name, SMALL | small, hf_config))
        write_bpe(reference)
        if tied:
            state = torch.load(reference / "lit_model.pth", weights_only=True)
            torch.save(state | {"lm_head.weight": state["transformer.wte.weight"]}, reference / "lit_model.pth")
        try:
            surgery(reference, layers="0,2,3", out_dir=Path(scratch) / "cut")
            export_checkpoint(Path(scratch) / "cut", Path(scratch) / "exported")
        except InheritError as error:
            return str(error)
        return reload.attention_of(reload.open_model(Path(scratch) / "exported", None).config) or "yes"


@pytest.mark.parametrize("name", FAMILIES)
def test_whole_way(name: str) -> None:
    assert whole_way(name, FAMILIES[name][2]) == ("eager" if name.startswith("Gemma-2-") else "yes")


@pytest.mark.parametrize("name", [name for name, (_, _, tied) in FAMILIES.items() if tied])
def test_what_training_has_untied(name: str) -> None:
    """As FSDP does, or `tie_embeddings: false`."""
    assert whole_way(name, False) == ("eager" if name.startswith("Gemma-2-") else "yes")


def test_every_name_of_litgpts_is_of_a_family() -> None:
    assert sum(len(members) for members in names().values()) == len(configs)
    assert all(names().values()), "a family that litGPT knows no name of"


def render() -> str:
    rows = [
        "# Families",
        "",
        "Every architecture that litGPT has a config of, in small, the whole way: surgery, export, transformers, whose",
        "logits equal litGPT's to 10⁻⁴ of the largest. `tests/checkpoint/test_families.py` runs it and compares this",
        "table.",
        "Embedding and head may be tied or not, whatever was published: export writes what the weights are.",
        "",
        "| tested with the structure of | transformers' | the way ends well | other names of litGPT's that have it |",
        "|---|---|---|---|",
    ]
    for name, (_, hf_config, tied) in FAMILIES.items():
        ends = {whole_way(name, tied), whole_way(name, False)}
        result = {"yes": "yes", "eager": 'yes, opened with `attn_implementation="eager"`'}.get(ends.pop(), "**no**")
        others = ", ".join(other for other in names()[name] if other != name)
        rows.append(f"| {name} | {hf_config['model_type']} | {'**no**' if ends else result} | {others or '–'} |")
    return "\n".join(rows) + "\n"


def test_the_table_is_what_comes_of_it() -> None:
    assert TABLE.read_text() == render(), "python tests/checkpoint/test_families.py writes it anew"


if __name__ == "__main__":
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(render())
