"""Surgery beside its alternatives, on a synthetic checkpoint of OpenLLaMA-3B's shape: time and peak memory.

    python benchmarks/surgery.py [--layers 13] [--folder benchmarks/.surgery] [--repeats 2]

Every row is a process of its own. "imports" and "work" are seconds before and after the imports, "peak" is the largest
resident memory, "over imports" how much of it the work added. The bar is `dd` of the bytes that the target keeps,
flushed to the disk (conv=fsync) as ours is. Rows whose package is not installed are left out and named.
"""

import argparse
import importlib
import importlib.util
import json
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


def peak_rss() -> int:
    """Bytes. The kernel's own high-water mark: getrusage would count what the parent held when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def report(t_start: float, t_imported: float, rss_imported: int) -> None:
    print(json.dumps({"imports": t_imported - t_start, "work": time.perf_counter() - t_imported,
                      "peak": peak_rss(), "imported": rss_imported}))  # fmt: skip


def ours(source: Path, out: Path, layers: int) -> None:
    """`inheritune surgery`, its checks (CRC-32, names, shapes, finite), SHA-256 of source and target, and fsync."""
    start = time.perf_counter()
    for module in ("litgpt.model", "litgpt.utils", "torch._subclasses.fake_tensor"):  # surgery does when it is called
        importlib.import_module(module)

    from inheritune_lit.surgery import surgery

    imported, rss = time.perf_counter(), peak_rss()
    surgery(source, layers=str(layers), out_dir=out)
    report(start, imported, rss)


def map_and_save(source: Path, out: Path, layers: int) -> None:
    """`torch.load(mmap=True)`, pick the keys, `torch.save`: no checks, no receipt, no flush to the disk."""
    start = time.perf_counter()
    import torch

    imported, rss = time.perf_counter(), peak_rss()
    state_dict = torch.load(source / "lit_model.pth", mmap=True, weights_only=True)
    keep = {k: v for k, v in state_dict.items() if not k.startswith("transformer.h.") or int(k.split(".")[2]) < layers}
    out.mkdir()
    torch.save(keep, out / "lit_model.pth")
    report(start, imported, rss)


def build_both(source: Path, out: Path, layers: int) -> None:
    """Build the reference and the target model, load, copy parameter by parameter, save."""
    start = time.perf_counter()
    import torch
    from litgpt import GPT, Config

    imported, rss = time.perf_counter(), peak_rss()
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
    report(start, imported, rss)


def mergekit(source: Path, out: Path, layers: int) -> None:
    """mergekit's passthrough slice of the same weights in Hugging Face's format (made once, not timed)."""
    start = time.perf_counter()
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    imported, rss = time.perf_counter(), peak_rss()
    slices = [{"sources": [{"model": str(source.with_name("hf")), "layer_range": [0, layers]}]}]
    config = {"slices": slices, "merge_method": "passthrough", "dtype": "bfloat16"}
    options = MergeOptions(lazy_unpickle=True, copy_tokenizer=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(config), str(out), options)
    report(start, imported, rss)


SETTLE = (
    6  # s. A virtual machine gives freed pages back to its host within seconds, and getting them anew is slow: without
)
# a pause, rows that start to write soon after the last row's output was removed would find them still there
ROWS = {"ours": ours, "map_and_save": map_and_save, "build_both": build_both, "mergekit": mergekit}
NEEDS = {"mergekit": "mergekit"}


def dd(source: Path, out: Path, kept: int) -> float:
    out.mkdir()
    start = time.perf_counter()
    subprocess.run(
        ["dd", f"if={source / 'lit_model.pth'}", f"of={out / 'copy'}", "bs=16M", f"count={kept}", "iflag=count_bytes",
         "conv=fsync"], check=True, capture_output=True)  # fmt: skip
    return time.perf_counter() - start


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
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--rows", nargs="*", default=list(ROWS))
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
    results: dict[str, list[dict[str, float]]] = {"dd": [], **{row: [] for row in rows}}
    kept = 0
    shutil.rmtree(out, ignore_errors=True)  # of a run that was stopped
    order = [*rows, "dd"]
    dd(source, out, (source / "lit_model.pth").stat().st_size // 2)  # warms the page cache; not counted
    for repeat in range(args.repeats):
        for row in order[repeat % len(order) :] + order[: repeat % len(order)] if kept else order:
            shutil.rmtree(out, ignore_errors=True)
            time.sleep(SETTLE)
            if row == "dd":
                results[row].append({"work": dd(source, out, kept)})
                continue
            command = [sys.executable, __file__, "--row", row, "--layers", str(args.layers), "--folder", args.folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[row].append(json.loads(done.stdout.splitlines()[-1]))
            if row == "ours":
                kept = (out / "lit_model.pth").stat().st_size
    shutil.rmtree(out, ignore_errors=True)
    print_table(results, kept, (source / "lit_model.pth").stat().st_size, missing)


def print_table(results: dict[str, list[dict[str, float]]], kept: int, size: int, missing: list[str]) -> None:
    print(f"{size / 1e9:.2f} GB in, {kept / 1e9:.2f} GB out; median of {len(results['dd'])} runs [lowest–highest]\n")
    print("| | imports (s) | work (s) | work / dd | peak (GB) | over imports (GB) |")
    print("|---|---|---|---|---|---|")
    bar = statistics.median(run["work"] for run in results["dd"])
    for row, runs in results.items():

        def median(key: str, runs: list[dict[str, float]] = runs) -> float:
            return statistics.median(run[key] for run in runs)

        works = [run["work"] for run in runs]
        spread = f"{median('work'):.1f} [{min(works):.1f}–{max(works):.1f}]"
        if row == "dd":
            print(f"| dd of the kept bytes | – | {spread} | 1.00 | – | – |")
            continue
        over = (median("peak") - median("imported")) / 1e9
        print(f"| {row.replace('_', ' ')} | {median('imports'):.1f} | {spread} | {median('work') / bar:.2f} "
              f"| {median('peak') / 1e9:.2f} | {over:.2f} |")  # fmt: skip
    for row in missing:
        print(f"\n{row}: not installed, left out.")


if __name__ == "__main__":
    main()
