"""The memory that `inheritune plan` foresees beside the peak of a real run: litGPT's own training loop, small, on CPU.

    python benchmarks/plan_memory.py [--compiled]

"foreseen" is what the plan says will be in use, without what a GPU's allocator keeps beside it.
Each row is a process of its own: `litgpt pretrain`'s function on random tokens, three optimizer steps, without
torch.compile (it would bring its compiler's memory into the process). "measured" is the largest resident memory less
what the process held before the model was built. What is not measured is the checkpoint at the end, for which Lightning
fills a buffer on CPU. --compiled also prints which share of the activations torch.compile's partitioner keeps.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

# name, blocks, sequence, micro-batch, micro-batches a step, precision: weights, activations and logits each lead once
CASES = [
    ("weights lead", 8, 128, 1, 2, "32-true"),
    ("activations lead", 8, 512, 4, 2, "32-true"),
    ("one micro-batch a step", 8, 512, 4, 1, "32-true"),
    ("bf16-mixed", 8, 512, 4, 2, "bf16-mixed"),
    ("bf16-mixed, weights lead", 8, 128, 1, 2, "bf16-mixed"),
]
WIDTH, INNER, HEADS, VOCABULARY = 768, 2048, 12, 8192


def recipe(blocks: int, sequence: int, micro_batch: int, accumulate: int, precision: str) -> dict[str, object]:
    """A recipe's model_config and train block, of LLaMA's architecture."""
    model = {"name": "open_llama_3b", "n_layer": blocks, "n_embd": WIDTH, "n_head": HEADS, "n_query_groups": HEADS}
    model |= {"intermediate_size": INNER, "block_size": sequence, "vocab_size": VOCABULARY, "bias": False}
    model |= {"padded_vocab_size": VOCABULARY, "norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP"}
    model |= {"parallel_residual": False, "rotary_percentage": 1.0}
    train = {"max_tokens": 3 * micro_batch * accumulate * sequence, "max_seq_length": sequence, "max_norm": 1.0}
    train |= {"global_batch_size": micro_batch * accumulate, "micro_batch_size": micro_batch, "lr_warmup_steps": 1}
    train |= {"save_interval": None, "tie_embeddings": False, "log_interval": 1}
    return {"model_name": "open_llama_3b", "model_config": model, "train": train, "precision": precision}


def status(field: str) -> int:
    """Bytes, as the kernel counts them for this process: VmRSS now, VmHWM at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def run(settings: dict) -> None:
    """In a process of its own: the real run; prints the bytes that it added at its peak."""
    import tempfile

    import litgpt.pretrain
    import torch
    from litgpt import Config
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.data import DataModule

    sequence, vocabulary = settings["train"]["max_seq_length"], settings["model_config"]["vocab_size"]

    class RandomTokens(DataModule):
        def connect(self, tokenizer=None, batch_size=1, max_seq_length=None) -> None:
            self.batch_size = batch_size

        def train_dataloader(self) -> torch.utils.data.DataLoader:
            windows = torch.randint(vocabulary, (64, sequence + 1))
            return torch.utils.data.DataLoader(windows, batch_size=self.batch_size)

        val_dataloader = train_dataloader

    litgpt.pretrain.save_checkpoint = lambda *args: None
    warm = torch.randn(256, 256, requires_grad=True)  # the thread pool and the kernels' own memory
    with torch.autocast("cpu", enabled=settings["precision"] == "bf16-mixed"):
        (warm @ warm).sum().backward()
    before = {}
    build = litgpt.pretrain.GPT

    def noted(config: Config) -> torch.nn.Module:
        before.setdefault("rss", status("VmRSS"))
        return build(config)

    litgpt.pretrain.GPT = noted
    with tempfile.TemporaryDirectory() as folder:
        litgpt.pretrain.setup(
            settings["model_name"],
            model_config=Config(**settings["model_config"]),
            out_dir=Path(folder),
            precision=settings["precision"],
            data=RandomTokens(),
            train=TrainArgs(**settings["train"]),
            eval=EvalArgs(interval=1000, max_iters=1, final_validation=False),
            devices=1,
            logger_name="csv",
        )
    print(json.dumps({"measured": status("VmHWM") - before["rss"]}))


def measure(settings: dict) -> int:
    """Bytes that a real run of these settings adds at its peak."""
    # no thresholds that move: a freed tensor leaves the process at once, and resident memory is memory in use
    environment = os.environ | {"TORCHDYNAMO_DISABLE": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "2"}
    environment |= {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, __file__, "--run", json.dumps(settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])["measured"]


def foresee(settings: dict) -> dict[str, int]:
    """What the plan says for these settings, without torch.compile."""
    from dataclasses import asdict

    from litgpt import Config

    from inheritune_lit.plan import memory
    from inheritune_lit.plan.model import count_parameters, saved_for_backward

    config, train = Config(**settings["model_config"]), settings["train"]
    sequence, precision = train["max_seq_length"], settings["precision"]
    run_ = memory.Run(
        parameters=count_parameters(config),
        saved=saved_for_backward(config, sequence, precision),
        vocabulary=config.padded_vocab_size,
        sequence=sequence,
        precision=precision,
        optimizer_states=2,
        compiled=False,
    )
    at_peak = memory.peak(
        run_, train["micro_batch_size"], accumulates=train["global_batch_size"] > train["micro_batch_size"]
    )
    return asdict(at_peak) | {"in_use": at_peak.in_use, "total": at_peak.total}


def compiled_share(width: int = 512, heads: int = 8) -> float:
    """Which share of a block's saved activations torch.compile's partitioner keeps, under bf16-mixed."""
    import torch
    from litgpt import GPT, Config
    from torch.autograd.graph import saved_tensors_hooks

    def saved(blocks: int, batch: int, backend: str | None) -> int:
        torch._dynamo.reset()
        settings = recipe(blocks, 512, batch, 1, "bf16-mixed")["model_config"]
        sizes = {"n_embd": width, "n_head": heads, "n_query_groups": heads, "intermediate_size": 11 * width // 4}
        model = GPT(Config(**{**settings, **sizes}))
        own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        found = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = storage
            return tensor

        forward = torch.compile(model, backend=backend) if backend else model
        tokens = torch.zeros((batch, 512), dtype=torch.long)
        with saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", dtype=torch.bfloat16):
            forward(tokens)
        return sum(storage.nbytes() for storage in found.values())

    def block(backend: str | None) -> int:  # of one more block and one more sequence: neither weights nor the rest
        few, many = (saved(blocks, 4, backend) - saved(blocks, 2, backend) for blocks in (2, 4))
        return many - few

    return block("aot_eager_decomp_partition") / block(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(args.run)
        return
    print("| run | foreseen | measured | foreseen / measured |\n|---|---|---|---|")
    for name, *case in CASES:
        settings = recipe(*case)
        planned, real = foresee(settings)["in_use"], measure(settings)
        print(f"| {name} | {planned / 2**20:,.0f} MiB | {real / 2**20:,.0f} MiB | {planned / real:.3f} |", flush=True)
    if args.compiled:
        print(f"\ntorch.compile's partitioner keeps {compiled_share():.3f} of a block's activations.")


if __name__ == "__main__":
    main()
