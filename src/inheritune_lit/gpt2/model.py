"""The model: litGPT's GPT with what GPT-2 has otherwise.

litGPT's Block, attention (SDPA) and MLP are used as they are, so that torch.compile, FSDP's wrapping by Block and
litGPT's FLOP count apply unchanged.
"""

from typing import Any

from litgpt.config import Config
from litgpt.model import GPT
from torch import Tensor, nn
from torch.nn import functional as F

from inheritune_lit.base.errors import InheritError
from inheritune_lit.gpt2.options import check, layer_indices


class GPT2(GPT):
    """GPT-2. Its token embedding is also its head: there is no tensor `lm_head.weight`, so nothing can untie them.

    Raises:
        InheritError: the Config describes another model.
    """

    def __init__(self, config: Config) -> None:
        check(config)
        super().__init__(config)
        del self.lm_head
        self.transformer["wpe"] = nn.Embedding(config.block_size, config.n_embd)
        if not config.hf_config["layer_norm_bias"]:
            for module in self.modules():
                if isinstance(module, nn.LayerNorm):
                    module.register_parameter("bias", None)  # as nn.LayerNorm(…, bias=False) does
        if config.hf_config["scale_attn_by_inverse_layer_idx"]:
            for index, block in zip(layer_indices(config), self.transformer.h, strict=True):
                block.attn.mscale = (index + 1) ** -0.5  # litGPT multiplies the attention logits by its square

    def forward(
        self,
        idx: Tensor,
        input_pos: Tensor | None = None,
        input_pos_maxp1: int | None = None,
        lm_head_chunk_size: int = 0,
    ) -> Tensor | list[Tensor]:
        """Token ids (B, T) → logits (B, T, padded_vocab_size), in chunks along T if `lm_head_chunk_size` is given.

        Raises:
            ValueError: T is larger than max_seq_length, which is at most block_size.
            InheritError: a key-value cache is asked for.
        """
        length = idx.size(1)
        if length > self.max_seq_length:
            raise ValueError(
                f"Cannot forward sequence of length {length}, max seq length is only {self.max_seq_length}."
            )
        if input_pos is not None:
            raise InheritError("GPT-2 has no key-value cache here. Export to Hugging Face to generate text.")
        x = self.transformer.wte(idx) + self.transformer.wpe.weight[:length]  # (B, T, n_embd)
        cos, sin = self.cos[None, :length], self.sin[None, :length]  # (1, T, 0): nothing is rotated
        for block in self.transformer.h:
            x = block(x, cos, sin)
        x = self.transformer.ln_f(x)
        if lm_head_chunk_size > 0:
            return [self._head(chunk) for chunk in x.split(lm_head_chunk_size, dim=1)]
        return self._head(x)

    def _head(self, x: Tensor) -> Tensor:
        return F.linear(x, self.transformer.wte.weight)

    def set_kv_cache(self, *args: Any, **kwargs: Any) -> None:
        raise InheritError("GPT-2 has no key-value cache here. Export to Hugging Face to generate text.")
