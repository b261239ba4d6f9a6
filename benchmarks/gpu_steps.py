"""A recipe's optimizer step on the device at hand, step by step.

litGPT's model, loss, precision and compilation as `litgpt pretrain` sets them up, from random weights, which cost the
same as any others.
"""

import itertools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from inheritune_lit import gpt2

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from litgpt.config import Config


def set_up(config: "Config", settings: "Namespace", *, compiled: bool = True) -> tuple[Any, Any, Any]:
    """Fabric, model and optimizer on one device, as `litgpt pretrain` makes them, from random weights."""
    import lightning as L
    import torch
    from lightning.fabric.plugins.environments import LightningEnvironment
    from litgpt.utils import instantiate_torch_optimizer

    from inheritune_lit.gpt2.install import initialize_weights

    train, here = settings.train, LightningEnvironment()  # whatever job this is in
    fabric = L.Fabric(devices=1, precision=settings.precision or "bf16-mixed", plugins=here)
    with fabric.init_module(empty_init=True):
        model: Any = gpt2.build(config)
    initialize_weights(fabric, model, n_layer=config.n_layer, n_embd=config.n_embd)
    if train.tie_embeddings:
        model.transformer.wte.weight = model.lm_head.weight
    model.max_seq_length = train.max_seq_length or config.block_size
    model = torch.compile(model) if compiled else model
    model = fabric.setup(model)
    fused = {"fused": fabric.device.type == "cuda"}
    optimizer = fabric.setup_optimizers(instantiate_torch_optimizer(settings.optimizer, model.parameters(), **fused))
    return fabric, model, optimizer


def random_batches(fabric: Any, model: Any, train: Any) -> Iterator[Any]:
    """One micro-batch of random tokens that lies on the device, again and again."""
    import torch

    shape = (train.micro_batch_size, model.max_seq_length + 1)
    return itertools.repeat(torch.randint(model.config.padded_vocab_size, shape, device=fabric.device))


def take_step(fabric: Any, model: Any, optimizer: Any, train: Any, batches: Iterator[Any]) -> tuple[float, float]:
    """One optimizer step as litGPT takes it: seconds, and the mean loss of its micro-batches."""
    from litgpt.utils import chunked_cross_entropy

    micro_batches, length = train.global_batch_size // train.micro_batch_size, model.max_seq_length
    _synchronize(fabric)
    start, losses = time.perf_counter(), []
    for i in range(micro_batches):
        batch = next(batches)
        tokens, targets = (batch[:, j : j + length].contiguous().long() for j in (0, 1))
        with fabric.no_backward_sync(model, enabled=i < micro_batches - 1):
            loss = chunked_cross_entropy(model(tokens), targets)
            fabric.backward(loss / micro_batches)
        losses.append(loss.detach())
    fabric.clip_gradients(model, optimizer, max_norm=train.max_norm)
    optimizer.step()
    optimizer.zero_grad()
    _synchronize(fabric)
    return time.perf_counter() - start, sum(loss.item() for loss in losses) / micro_batches


def _synchronize(fabric: Any) -> None:
    import torch

    if fabric.device.type == "cuda":
        torch.cuda.synchronize(fabric.device)
