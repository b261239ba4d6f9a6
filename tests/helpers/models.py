"""Small seeded litGPT checkpoints of several architectures, tokenizers and token shards."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import yaml
from litgpt.config import Config

from inheritune_lit import gpt2
from inheritune_lit.prepare.command import prepare

ROOT = Path(__file__).parents[2]


SMALL = {"n_embd": 32, "n_head": 4, "padded_vocab_size": 64, "vocab_size": 64, "block_size": 32}


LLAMA = SMALL | {"n_layer": 6, "n_query_groups": 4, "intermediate_size": 48}


# One small model of each kind of block that litGPT knows, with what config.json says of it beside the sizes; the names
# are real, as litGPT branches on them.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("open_llama_3b", LLAMA, {"model_type": "llama"}),
    "pythia": (
        "pythia-14m",
        SMALL | {"n_layer": 6, "intermediate_size": 64},
        {"model_type": "gpt_neox", "rotary_pct": 0.25},
    ),
    "gemma": (
        "Gemma-3-1b-it",
        LLAMA
        | {"n_query_groups": 1, "head_size": 8, "sliding_window_size": 4}
        | {"sliding_window_indices": [1, 1, 0, 1, 1, 0], "rope_indices": [1, 1, 0, 1, 1, 0]},
        {"model_type": "gemma3_text", "sliding_window_pattern": 3, "sliding_window": 4, "query_pre_attn_scalar": 256}
        | {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
    ),
    "qwen": (
        "Qwen2.5-0.5B",
        LLAMA | {"n_query_groups": 2},
        {"model_type": "qwen2", "max_window_layers": 6, "rope_theta": 1e6},
    ),
    "moe": (
        "Mixtral-8x7B-v0.1",
        LLAMA | {"n_query_groups": 2, "n_expert": 4, "n_expert_per_token": 2},
        {"model_type": "mixtral", "num_local_experts": 4, "sliding_window": None, "rope_theta": 1e6},
    ),
    "gpt2": (
        "pythia-14m",  # litGPT knows no GPT-2: any name will do
        SMALL
        | {"n_layer": 6, "intermediate_size": 128, "bias": False, "parallel_residual": False}
        | {"rotary_percentage": 0.0, "gelu_approximate": "tanh", "norm_eps": 1e-5}
        | {"hf_config": {"model_type": "gpt2", "layer_norm_bias": False, "scale_attn_by_inverse_layer_idx": True}},
        {"model_type": "gpt2"},
    ),
    "biased_head": ("phi-2", SMALL | {"n_layer": 6, "intermediate_size": 64}, {"model_type": "phi"}),
}


def hf_sizes(config: Config, *, falcon: bool = False) -> dict[str, Any]:
    """What config.json says of a model's sizes, most families alike."""
    return {
        **{"hidden_size": config.n_embd, "num_attention_heads": config.n_head, "num_hidden_layers": config.n_layer},
        **{"num_key_value_heads": config.n_query_groups, **({} if falcon else {"head_dim": config.head_size})},
        **{"intermediate_size": config.intermediate_size, "vocab_size": config.padded_vocab_size},
        **{"max_position_embeddings": config.block_size, "bos_token_id": 0, "eos_token_id": 1},
        **{"rms_norm_eps": config.norm_eps, "layer_norm_eps": config.norm_eps},
    }


def make_checkpoint(
    folder: Path,
    architecture: str | tuple[str, dict[str, Any], dict[str, Any]] = "llama",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **overrides: Any,
) -> Path:
    """Writes a small seeded checkpoint folder as litGPT's converter would, tokenizer files and config.json included."""
    name, small, hf_config = ARCHITECTURES[architecture] if isinstance(architecture, str) else architecture
    config = Config.from_name(name, **small | overrides)
    torch.manual_seed(seed)
    model = gpt2.build(config)
    with torch.no_grad():
        for parameter in model.parameters():  # nothing may look right because it is all ones or all zeros
            parameter.copy_(torch.randn(parameter.shape) * 0.2 + (1.0 if parameter.ndim == 1 else 0.0))
    folder.mkdir(parents=True)
    torch.save({k: v.to(dtype) for k, v in model.state_dict().items()}, folder / "lit_model.pth")
    (folder / "model_config.yaml").write_text(yaml.dump(asdict(config)))
    sizes = hf_sizes(config, falcon=hf_config["model_type"] == "falcon")  # which takes no head_dim
    if "text_config" in hf_config:  # multimodal families nest it
        hf_config, sizes = {**hf_config, "text_config": sizes | hf_config["text_config"]}, {}
    (folder / "config.json").write_text(json.dumps(sizes | hf_config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return folder


def make_tokenizer(folder: Path, size: int = 64) -> Path:
    """Writes a tokenizer of the words w0, w1, …, of `size` tokens with <unk>, <s> and </s>."""
    words = [*(f"w{i}" for i in range(size - 3)), "<unk>", "<s>", "</s>"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def make_tokens(folder: Path, tokenizer_dir: Path, documents: int, words: int = 15) -> Path:
    """Prepares token shards of `documents` documents of made-up words for training, and three for validation."""
    (folder / "text").mkdir(parents=True)
    for i, row in enumerate(np.random.default_rng(0).integers(0, 60, (documents + 3, words))):
        (folder / f"text/{i}{'val' * (i < 3)}.txt").write_text(" ".join(f"w{word}" for word in row))
    settings: dict[str, Any] = {"val_share": 0, "val_glob": "*val*", "tasks": 2}
    prepare(folder / "text", out_dir=folder / "tokens", tokenizer_dir=tokenizer_dir, **settings)
    return folder / "tokens"


TEXTS = (
    "Wherefore art thou Romeo? Deny thy father and refuse thy name.",
    "def f(x):\n    return x ** 2  # étude\n\n\nprint(f(3))\t# 9",
    "东京 Привет naïve 🙂 don't they'll   spaces ",
    "The quick brown fox jumps over the lazy dog 1,234 times (5.6%).",
)


def write_bpe(folder: Path, *, add_bos: bool = False, vocab_size: int = 600) -> Path:
    """Writes a byte-level BPE tokenizer.json with <s> 0 and </s> 1, trained on TEXTS, as a checkpoint folder has it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": add_bos}))
    return folder


def write_sentencepiece(folder: Path, *, add_bos: bool = True, add_dummy_prefix: bool = True) -> Path:
    """Writes a SentencePiece tokenizer.model with <s> 1 and </s> 2, trained on TEXTS, as LLaMA's is made."""
    from sentencepiece import SentencePieceTrainer

    folder.mkdir(parents=True)
    with (folder / "tokenizer.model").open("wb") as file:
        SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS),
            model_writer=file,
            model_type="bpe",
            vocab_size=330,
            byte_fallback=True,
            character_coverage=0.98,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=add_dummy_prefix,
            minloglevel=2,
        )
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": add_bos}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
