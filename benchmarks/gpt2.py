"""Training speed of our GPT-2 beside a plain litGPT model of the same size, in one process, step by step in turn.

    python benchmarks/gpt2.py [--size medium] [--compiled]

Both take litGPT's own step: its attention, loss in chunks, gradient clipping and AdamW, through Fabric. The plain model
is litGPT's GPT with the same blocks, rotary positions and LayerNorm with bias, its head tied as `train.tie_embeddings`
ties it. The ratio is the median over pairs of neighbouring steps, so that other work on the machine weighs on both.
Runs on a GPU if there is one.
"""

import argparse
import statistics
import time
from dataclasses import replace

# blocks, heads, width, vocabulary, sequence
SIZES = {
    "tiny": (4, 4, 256, 2048, 256),
    "medium": (24, 16, 1024, 50304, 1024),
    "large": (36, 20, 1280, 50304, 1024),
}
WARM_UP = 2  # steps of each that are not counted: compilation and the first allocations


def configs(size: str) -> dict:
    """The two Configs by name."""
    from litgpt import Config

    n_layer, n_head, n_embd, vocabulary, sequence = SIZES[size]
    options = {"model_type": "gpt2", "layer_norm_bias": False, "scale_attn_by_inverse_layer_idx": True}
    ours = Config(
        name="gpt2",
        hf_config=options,
        block_size=sequence,
        vocab_size=vocabulary,
        padded_vocab_size=vocabulary,
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        rotary_percentage=0.0,
        parallel_residual=False,
        gelu_approximate="tanh",
        bias=False,
    )
    return {"litGPT": replace(ours, name="plain", hf_config={}, rotary_percentage=0.25), "GPT-2": ours}


def trainer(config, fabric, compiled: bool):
    """A function that takes one step on random tokens and returns its seconds; and the number of parameters."""
    import torch
    from litgpt.utils import chunked_cross_entropy

    from inheritune_lit import gpt2
    from inheritune_lit.gpt2.install import initialize_weights

    torch.manual_seed(0)
    with fabric.init_module(empty_init=True):
        model = gpt2.build(config)
    initialize_weights(fabric, model, n_layer=config.n_layer, n_embd=config.n_embd)
    if not gpt2.is_gpt2(config):
        model.transformer.wte.weight = model.lm_head.weight
    parameters = sum(p.numel() for p in model.parameters())
    model = fabric.setup(torch.compile(model) if compiled else model)
    fused = {"fused": fabric.device.type == "cuda"}
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=1e-4, **fused))

    def step(batch) -> float:
        synchronize(fabric)
        start = time.perf_counter()
        fabric.backward(chunked_cross_entropy(model(batch[:, :-1].contiguous()), batch[:, 1:].contiguous()))
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        synchronize(fabric)
        return time.perf_counter() - start

    return step, parameters


def synchronize(fabric) -> None:
    import torch

    if fabric.device.type == "cuda":
        torch.cuda.synchronize(fabric.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--micro_batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compiled", action="store_true", help="through torch.compile, as litgpt pretrain does")
    parser.add_argument("--precision", help="by default what is fast here")
    args = parser.parse_args()

    import lightning as L
    import torch

    from inheritune_lit.base.precision import fastest
    from inheritune_lit.plan.model import measured_flops

    args.precision = args.precision or fastest().precision
    fabric = L.Fabric(devices=1, precision=args.precision)
    both = configs(args.size)
    sequence, vocabulary = both["GPT-2"].block_size, both["GPT-2"].padded_vocab_size
    steps, parameters = {}, {}
    for name, config in both.items():
        steps[name], parameters[name] = trainer(config, fabric, args.compiled)
    seconds: dict = {name: [] for name in both}
    for i in range(WARM_UP + args.steps):
        batch = torch.randint(vocabulary, (args.micro_batch, sequence + 1), device=fabric.device)
        for name in list(both)[:: 1 if i % 2 else -1]:  # neither is always the first
            seconds[name].append(steps[name](batch))
    seconds = {name: values[WARM_UP:] for name, values in seconds.items()}

    where = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else "CPU"
    print(f"{where}, {args.size}, micro-batch {args.micro_batch} × {sequence}, {args.precision}, {args.steps} steps\n")
    print("| | parameters | tokens/s | TFLOP/s |\n|---|---|---|---|")
    for name, values in seconds.items():
        speed = args.micro_batch * sequence / statistics.median(values)
        flops = measured_flops(both[name], sequence) / sequence * speed
        print(f"| {name} | {parameters[name]:,} | {speed:,.0f} | {flops / 1e12:.3g} |")
    ratios = sorted(plain / ours for plain, ours in zip(seconds["litGPT"], seconds["GPT-2"], strict=True))
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    print(f"\nSpeed of GPT-2 / litGPT: {statistics.median(ratios):.3f}, half of the pairs within {low:.3f}–{high:.3f}")


if __name__ == "__main__":
    main()
