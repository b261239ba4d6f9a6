"""`--probe`: the speed of a recipe's own training step on the machine at hand.

litGPT's model, loss, precision and compilation as `litgpt pretrain` sets them up, on random tokens and from random
weights, which cost the same as any others. Not a subprocess of `litgpt pretrain` itself, because that ends by writing a
checkpoint, 20 GiB and more at full size, and wants token shards. What it leaves out: reading data, logging,
validation and, on several GPUs, communication.
"""

import statistics
import time
from typing import TYPE_CHECKING, Any

from inheritune_lit import gpt2
from inheritune_lit.commit import InheritError

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from litgpt.config import Config

WARM_UP = 2  # steps that are not counted: compilation and the first allocations


def measure(config: "Config", settings: "Namespace", steps: int) -> dict[str, Any]:
    """Times `steps` optimizer steps of the recipe's global batch on one device, after two that are not counted.

    Raises:
        InheritError: there is not enough memory for it.
    """
    import lightning as L
    import torch
    from lightning.fabric.plugins.environments import LightningEnvironment
    from litgpt.utils import instantiate_torch_optimizer

    from inheritune_lit.gpt2.training import initialize_weights

    train = settings.train
    fabric = L.Fabric(
        devices=1, precision=settings.precision or "bf16-mixed", plugins=LightningEnvironment()
    )  # whatever job this is in
    try:
        with fabric.init_module(empty_init=True):
            model: Any = gpt2.build(config)
        initialize_weights(fabric, model, n_layer=config.n_layer, n_embd=config.n_embd)
        if train.tie_embeddings:
            model.transformer.wte.weight = model.lm_head.weight
        model.max_seq_length = train.max_seq_length or config.block_size
        compiled: Any = torch.compile(model)
        model = fabric.setup(compiled)
        described = settings.optimizer
        fused = {"fused": fabric.device.type == "cuda"}
        optimizer = fabric.setup_optimizers(instantiate_torch_optimizer(described, model.parameters(), **fused))
        seconds = [_step(fabric, model, optimizer, train) for _ in range(WARM_UP + steps)][WARM_UP:]
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InheritError(
            f"--probe: {fabric.device} has too little memory for micro-batches of {train.micro_batch_size}. Lower "
            "train.micro_batch_size; the plan without --probe says what fits."
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


def _step(fabric: Any, model: Any, optimizer: Any, train: Any) -> float:
    """One optimizer step as litGPT takes it; seconds."""
    import torch
    from litgpt.utils import chunked_cross_entropy

    micro_batches = train.global_batch_size // train.micro_batch_size
    shape = (train.micro_batch_size, model.max_seq_length + 1)
    batch = torch.randint(model.config.padded_vocab_size, shape, device=fabric.device)
    _synchronize(fabric)
    start = time.perf_counter()
    for i in range(micro_batches):
        with fabric.no_backward_sync(model, enabled=i < micro_batches - 1):
            loss = chunked_cross_entropy(model(batch[:, :-1].contiguous()), batch[:, 1:].contiguous())
            fabric.backward(loss / micro_batches)
    fabric.clip_gradients(model, optimizer, max_norm=train.max_norm)
    optimizer.step()
    optimizer.zero_grad()
    _synchronize(fabric)
    return time.perf_counter() - start


def _synchronize(fabric: Any) -> None:
    import torch

    if fabric.device.type == "cuda":
        torch.cuda.synchronize(fabric.device)
