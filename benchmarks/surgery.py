"""Surgery beside its alternatives, on a synthetic checkpoint of OpenLLaMA-3B's shape: time and peak memory.

    python benchmarks/surgery.py [--layers 13] [--folder benchmarks/.surgery] [--repeats 5] [--rows ours dd]

Every row is a process of its own, timed from its start to its end, imports included; "peak" is its largest resident
memory. The bar is `dd` of the bytes that the target keeps, flushed to the disk (conv=fsync) as ours is, in the same
run; its speed is the disk's. Beside them stand commands that train nothing. Rows whose package is missing are named.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

MODEL = "open_llama_3b"


def make_source(folder: Path) -> None:
    """A checkpoint with the shapes and names of OpenLLaMA-3B and seeded random bfloat16 weights (6.85 GB)."""
    import dataclasses

    import torch
    import yaml
    from litgpt import GPT, Config
    from litgpt.utils import incremental_save

    folder.mkdir(parents=True)
    config = Config.from_name(MODEL)
    (folder / "model_config.yaml").write_text(yaml.dump(dataclasses.asdict(config)))
    hf = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": config.n_layer}
    hf |= {"hidden_size": config.n_embd, "intermediate_size": config.intermediate_size, "torch_dtype": "bfloat16"}
    hf |= {"num_attention_heads": config.n_head, "vocab_size": config.padded_vocab_size, "rms_norm_eps": 1e-6}
    (folder / "config.json").write_text(json.dumps(hf))
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in GPT(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    with incremental_save(folder / "lit_model.pth.part") as saver:
        state_dict = {}
        for name, shape in shapes.items():
            tensor = torch.randint(-(2**13), 2**13, shape, generator=generator, dtype=torch.int16)
            state_dict[name] = saver.store_early((tensor.to(torch.float32) / 2**18).to(torch.bfloat16))
        saver.save(state_dict)
    (folder / "lit_model.pth.part").rename(folder / "lit_model.pth")


def map_and_save(source: Path, out: Path, layers: int) -> None:
    """`torch.load(mmap=True)`, pick the keys, `torch.save`: no checks, no receipt, no flush to the disk."""
    import torch

    state_dict = torch.load(source / "lit_model.pth", mmap=True, weights_only=True)
    keep = {k: v for k, v in state_dict.items() if not k.startswith("transformer.h.") or int(k.split(".")[2]) < layers}
    out.mkdir()
    torch.save(keep, out / "lit_model.pth")


def build_both(source: Path, out: Path, layers: int) -> None:
    """Build the reference and the target model, load, copy parameter by parameter, save."""
    import torch
    from litgpt import GPT, Config

    torch.set_default_dtype(torch.bfloat16)
    reference = GPT(Config.from_name(MODEL))
    reference.load_state_dict(torch.load(source / "lit_model.pth", weights_only=True))
    target = GPT(Config.from_name(MODEL, n_layer=layers))
    parameters = dict(reference.named_parameters())
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            parameter.copy_(parameters[name])
    out.mkdir()
    torch.save(target.state_dict(), out / "lit_model.pth")


def mergekit(source: Path, out: Path, layers: int) -> None:
    """mergekit's passthrough slice of the same weights in Hugging Face's format (made once, not timed)."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    slices = [{"sources": [{"model": str(source.with_name("hf")), "layer_range": [0, layers]}]}]
    config = {"slices": slices, "merge_method": "passthrough", "dtype": "bfloat16"}
    options = MergeOptions(lazy_unpickle=True, copy_tokenizer=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(config), str(out), options)


# s. A virtual machine gives freed pages back to its host within seconds, and getting them anew is slow: without a
# pause, rows that start to write soon after the last row's output was removed would find them still there
SETTLE = 6
ROWS = {"map_and_save": map_and_save, "build_both": build_both, "mergekit": mergekit}
NEEDS = {"mergekit": "mergekit"}
RECIPE = Path(__file__).parents[1] / "recipes/openllama3b_n13.yaml"


def command(row: str, source: Path, out: Path, layers: int, kept: int) -> list[str]:
    surgery = [
        sys.executable,
        "-m",
        "inheritune_lit.surgery",
        str(source),
        "--layers",
        str(layers),
        "--out_dir",
        str(out),
    ]
    inheritune = [sys.executable, "-m", "inheritune_lit"]
    dd = ["dd", f"if={source / 'lit_model.pth'}", f"of={out}", "bs=16M", f"count={kept}", "iflag=count_bytes"]
    by_name = {
        "ours": surgery,
        "dd": [*dd, "conv=fsync"],
        "surgery --dry_run": [*surgery, "--dry_run"],
        "plan": [*inheritune, "plan", str(RECIPE)],
        "recipes validate": [*inheritune, "recipes", "validate", str(RECIPE)],
        "import torch": [sys.executable, "-c", "import torch"],
    }
    own = [sys.executable, __file__, "--row", row, "--layers", str(layers), "--folder", str(source.parent)]
    return by_name.get(row, own)


def measured(argv: list[str]) -> dict[str, float]:
    """Seconds from start to end, seconds of the processors, and the largest resident memory in bytes of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"{argv} ended with {status}: {process.stderr.read().decode()}")  # type: ignore[union-attr]
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss * 1024}


def make_hf(source: Path) -> None:
    from litgpt.scripts.convert_lit_checkpoint import convert_lit_checkpoint
    from safetensors.torch import save_file
    from torch import load

    folder = source.with_name("hf")
    convert_lit_checkpoint(source, folder)
    save_file(load(folder / "model.pth", mmap=True, weights_only=True), folder / "model.safetensors")
    (folder / "model.pth").unlink()
    shutil.copy(source / "config.json", folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=13)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / ".surgery")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", nargs="*", default=["ours", "dd", *ROWS])
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    source, out = args.folder / MODEL, args.folder / "out"
    if args.row:
        ROWS[args.row](source, out, args.layers)
        return
    if not (source / "lit_model.pth").is_file():
        print("Making the synthetic checkpoint ...", file=sys.stderr)
        shutil.rmtree(source, ignore_errors=True)
        make_source(source)
    missing = [row for row in args.rows if row in NEEDS and importlib.util.find_spec(NEEDS[row]) is None]
    rows = [row for row in args.rows if row not in missing]
    if "mergekit" in rows and not (args.folder / "hf/model.safetensors").is_file():
        make_hf(source)
    rows += ["surgery --dry_run", "plan", "recipes validate", "import torch"]
    results: dict[str, list[dict[str, float]]] = {row: [] for row in rows}
    remove(out)  # of a run that was stopped
    measured(command("ours", source, out, args.layers, 0))  # warms the page cache; not counted
    kept = (out / "lit_model.pth").stat().st_size
    for repeat in range(args.repeats):
        for row in rows[repeat % len(rows) :] + rows[: repeat % len(rows)]:
            if out.exists():
                remove(out)
                time.sleep(SETTLE)
            results[row].append(measured(command(row, source, out, args.layers, kept)))
    remove(out)
    print_table(results, kept, (source / "lit_model.pth").stat().st_size, missing)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def print_table(results: dict[str, list[dict[str, float]]], kept: int, size: int, missing: list[str]) -> None:
    def median(row: str, key: str) -> float:
        return statistics.median(run[key] for run in results[row])

    bar = median("dd", "wall")
    print(f"{size / 1e9:.2f} GB in, {kept / 1e9:.2f} GB out; median of {len(results['dd'])} runs [lowest–highest]; ")
    print(f"the disk takes {kept / bar / 1e9:.2f} GB/s by dd\n")
    print("| | whole command (s) | / dd | processors (s) | peak (GB) |\n|---|---|---|---|---|")
    for row, runs in results.items():
        walls = [run["wall"] for run in runs]
        print(f"| {row.replace('_', ' ') if row in ROWS else row} | {median(row, 'wall'):.1f} [{min(walls):.1f}–"
              f"{max(walls):.1f}] | {median(row, 'wall') / bar:.2f} | {median(row, 'cpu'):.1f} "
              f"| {median(row, 'peak') / 1e9:.2f} |")  # fmt: skip
    print(f"\nSurgery over its dry run: {(median('ours', 'peak') - median('surgery --dry_run', 'peak')) / 1e9:.2f} GB.")
    for row in missing:
        print(f"\n{row}: not installed, left out.")


if __name__ == "__main__":
    main()
