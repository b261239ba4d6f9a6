"""`--probe`: the speed of a recipe's own training step on the machine at hand.

litGPT's model, loss, precision and compilation as `litgpt pretrain` sets them up, on random tokens and from random
weights, which cost the same as any others. Not a subprocess of `litgpt pretrain` itself, because that ends by writing a
checkpoint, 20 GiB and more at full size, and wants token shards. What it leaves out: reading data, logging,
validation and, on several GPUs, communication.
"""

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from inheritune_lit import gpt2
from inheritune_lit.base.errors import InheritError

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from litgpt.config import Config

WARM_UP = 2  # steps that are not counted: compilation and the first allocations


def measure(config: "Config", settings: "Namespace", steps: int) -> dict[str, Any]:
    """Times `steps` optimizer steps of the recipe's global batch on one device, after two that are not counted.

    Raises:
        InheritError: there is not enough memory for it.
    """
    import torch

    train = settings.train
    try:
        fabric, model, optimizer = set_up(config, settings)
        batches = random_batches(fabric, model, train)
        seconds = [take_step(fabric, model, optimizer, train, batches)[0] for _ in range(WARM_UP + steps)][WARM_UP:]
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InheritError(
            "--probe: the device has too little memory for micro-batches of "
            f"{train.micro_batch_size}. Lower train.micro_batch_size; the plan without --probe says what fits."
        ) from error
    step = statistics.median(seconds)
    tokens = train.global_batch_size * model.max_seq_length
    device = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else "CPU"
    return {
        "device": device,
        "steps": steps,
        "step_seconds": {"median": step, "min": min(seconds), "max": max(seconds)},
        "tokens_per_second": tokens / step,
    }


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
