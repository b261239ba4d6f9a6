"""What a litGPT model holds and computes, counted on models without data: exact, and in seconds for any size."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inheritune_lit import gpt2

if TYPE_CHECKING:
    from litgpt.config import Config


@dataclass(frozen=True)
class Parameters:
    total: int
    inside: int
    """Without the embeddings of tokens and positions and the head"""
    block: int
    """The largest block's"""
    largest: int
    """The largest matrix's"""

    @property
    def outside(self) -> int:
        return self.total - self.inside


def count_parameters(config: "Config", *, tied: bool = False) -> Parameters:
    """Parameters of the model of this config, built on the meta device."""
    model: Any = gpt2.build_empty(config)
    total = sum(p.numel() for p in model.parameters())
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    outside = sum(
        size for name, size in sizes.items() if name.startswith(("transformer.wte.", "transformer.wpe.", "lm_head."))
    )
    return Parameters(
        total=total - (sizes["transformer.wte.weight"] if tied else 0),
        inside=total - outside,
        block=max(sum(p.numel() for p in block.parameters()) for block in model.transformer.h),
        largest=max(p.numel() for p in model.parameters()),
    )


def measured_flops(config: "Config", sequence: int, *, backward: bool = True) -> int:
    """FLOPs of one sequence, forward and backward, as litGPT counts them when a run starts; a teacher's forward alone.

    Matrix products only: those of the linear layers and the head, and attention's two over all `sequence`² pairs of
    positions, though a causal kernel skips half of them. The token embedding is a look-up and costs none.
    """
    import torch
    from litgpt.utils import chunked_cross_entropy
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # as Lightning's measure_flops does
        model = gpt2.build(config)
        model.max_seq_length = sequence
        tokens = torch.zeros((1, sequence), dtype=torch.long)
        loss = chunked_cross_entropy(model(tokens), tokens, chunk_size=0)
        if backward:
            loss.backward()
        return counter.get_total_flops()


@dataclass(frozen=True)
class Saved:
    """Bytes that a forward pass leaves for the backward pass, weights themselves not counted."""

    per_sequence: int
    once: int
    """However many sequences: the bfloat16 copies of the weights that autocast makes"""


def saved_for_backward(config: "Config", sequence: int, precision: str) -> Saved:
    """Counts what autograd saves in litGPT's model: run on fake tensors, which have shapes and types but no data.

    Exact for a run without torch.compile and for any architecture. Attention is counted as a flash kernel, which saves
    no (sequence × sequence) matrix.
    """
    one, two = (_saved_bytes(config, batch, sequence, precision) for batch in (1, 2))
    return Saved(per_sequence=two - one, once=2 * one - two)


def _saved_bytes(config: "Config", batch: int, sequence: int, precision: str) -> int:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.autograd.graph import saved_tensors_hooks

    default = torch.get_default_dtype()
    with FakeTensorMode():
        torch.set_default_dtype(torch.bfloat16 if precision == "bf16-true" else torch.float32)
        try:
            model = gpt2.build(config)
        finally:
            torch.set_default_dtype(default)
        model.max_seq_length = sequence
        own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
        saved: dict[int, Any] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:  # views of one storage count once
                saved[storage._cdata] = storage
            return tensor

        tokens = torch.zeros((batch, sequence), dtype=torch.long)
        autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed")
        with saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
            model(tokens)
        return sum(storage.nbytes() for storage in saved.values())
