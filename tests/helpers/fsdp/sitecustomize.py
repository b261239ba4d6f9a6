"""FSDP on the CPU, for tests: Python runs this at its start where this folder is in PYTHONPATH, in each rank.

`litgpt pretrain` is left as it is, and so is this package. What only GPUs have is put in place around them:
- Fabric takes no FSDPStrategy on a CPU, but a subclass of it;
- torch would ask for an accelerator's number, unless FSDP is told that its device is the CPU;
- HYBRID_SHARD shards within a machine's accelerators, and counts one: NO_SHARD in effect, and no rank hears of the
  other. FULL_SHARD is what HYBRID_SHARD is on a single machine with GPUs;
- a full state dict that is moved to the CPU crashes for tensors that are there already.

KILLED="1 6" is `kill -9` of rank 1 as its sixth step ends; KILLED="0 saving", of rank 0 with half a checkpoint written.
"""

import os
import signal

import lightning.fabric.strategies.fsdp
import lightning.fabric.strategies.model_parallel
import litgpt.pretrain
import torch
from lightning.fabric.strategies import FSDPStrategy
from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType
from torch.distributed.fsdp.api import FullOptimStateDictConfig
from torch.optim.optimizer import register_optimizer_step_post_hook

torch.set_num_threads(1)
wrap = FullyShardedDataParallel.__init__


class OnCPU(FSDPStrategy):
    """litGPT's strategy, but for how it shards."""

    def __init__(self, **options):
        assert options["sharding_strategy"] == "HYBRID_SHARD", "litGPT shards in another way now"
        super().__init__(**options | {"sharding_strategy": "FULL_SHARD"})


def wrap_on_cpu(self, *args, **options):
    wrap(self, *args, **options | {"device_id": torch.device("cpu")})


def full_state_dict(module, world_size, rank0_only=True):
    options = {"offload_to_cpu": False, "rank0_only": rank0_only}
    return FullyShardedDataParallel.state_dict_type(
        module,
        StateDictType.FULL_STATE_DICT,
        FullStateDictConfig(**options),
        FullOptimStateDictConfig(**options),
    )


litgpt.pretrain.FSDPStrategy = OnCPU
FullyShardedDataParallel.__init__ = wrap_on_cpu
for module in (lightning.fabric.strategies.fsdp, lightning.fabric.strategies.model_parallel):
    module._get_full_state_dict_context = full_state_dict


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after_step(optimizer, args, kwargs):
    global steps
    steps += 1
    if str(steps) == moment:
        kill()


def save_half(content, file, **options):
    save(content, file, **options)
    if isinstance(file, os.PathLike):  # not what the ranks tell each other
        os.truncate(file, file.stat().st_size // 2)
        kill()


rank, moment = os.environ.get("KILLED", "- -").split()
if rank == os.environ.get("LOCAL_RANK", "0"):  # which Fabric gives to all but the first
    steps, save = 0, torch.save
    register_optimizer_step_post_hook(after_step)
    if moment == "saving":
        torch.save = save_half
