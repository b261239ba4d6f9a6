import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inheritune_lit.checkpoint.folder import load_config
from inheritune_lit.checkpoint.hugging_face import as_hf_config, check_describes
from inheritune_lit.surgery.plain_llama import is_plain_llama


def stated(llama: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((llama / "config.json").read_text())
    del content["layer_norm_eps"]  # of no Llama
    return content | {"hidden_act": "silu", "pad_token_id": 0, "torch_dtype": "float16", "use_cache": True}


@pytest.mark.parametrize("left_out", [(), ("head_dim", "num_key_value_heads", "hidden_act")])
def test_what_is_taken_to_fit_fits(llama: Path, left_out: tuple[str, ...]) -> None:
    content, config = {k: v for k, v in stated(llama).items() if k not in left_out}, load_config(llama)
    assert is_plain_llama(content, config)
    check_describes(as_hf_config(content, config, llama / "config.json"), config, llama)


WRONG = {"hidden_size": 64, "intermediate_size": 47, "num_attention_heads": 2, "vocab_size": 65, "attention_bias": True}
WRONG |= {"mlp_bias": True, "hidden_act": "nothing", "head_dim": 4, "num_key_value_heads": 2, "num_hidden_layers": 5}
WRONG |= {"pad_token_id": 64, "model_type": "qwen2", "rope_scaling": {"type": "x"}}
WRONG |= {"unheard_of": 1}


@pytest.mark.parametrize("key", WRONG)
def test_what_is_not_known_to_fit_is_left_to_transformers(llama: Path, key: str) -> None:
    assert not is_plain_llama(stated(llama) | {key: WRONG[key]}, load_config(llama))


@pytest.mark.parametrize("setting", ["bias", "attn_bias", "lm_head_bias", "norm_qk", "post_mlp_norm"])
def test_another_architecture_is_no_plain_llama(llama: Path, setting: str) -> None:
    config = load_config(llama)
    assert not is_plain_llama(stated(llama), replace(config, **{setting: True}))
