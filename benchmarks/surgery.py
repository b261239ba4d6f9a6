"""Surgery beside its alternatives, on a synthetic OpenLLaMA-3B as Hugging Face has it: time and peak memory.

    python benchmarks/surgery.py [--layers 13] [--folder benchmarks/.surgery] [--repeats 5] [--rows ours dd]
                                 [--mergekit PYTHON]

Every row is a command of its own, timed from its start to its end, imports included; "peak" is the largest resident
memory of one process. The bar is `dd` of the bytes that the target keeps, flushed to the disk (conv=fsync) as ours is,
in the same run; its speed is the disk's. Beside them stand commands that train nothing. mergekit wants other versions
of what we use: PYTHON is that of an environment with it. Without one, the row is left out.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from itertools import accumulate
from pathlib import Path

MODEL = "open_llama_3b"


def make_source(folder: Path) -> None:
    """OpenLLaMA-3B's shapes and names in two files, the first of 5 GB, with seeded random bfloat16 weights."""
    import torch
    from litgpt import Config
    from transformers import AutoModelForCausalLM, LlamaConfig

    folder.mkdir(parents=True)
    config = Config.from_name(MODEL)
    sizes = {"hidden_size": config.n_embd, "intermediate_size": config.intermediate_size}
    sizes |= {"num_attention_heads": config.n_head, "num_hidden_layers": config.n_layer}
    sizes |= {"vocab_size": config.padded_vocab_size, "rms_norm_eps": 1e-6}
    stated = LlamaConfig(architectures=["LlamaForCausalLM"], torch_dtype="bfloat16", **sizes)
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in AutoModelForCausalLM.from_config(stated).state_dict().items()}
    ends = [*accumulate(2 * shape.numel() for shape in shapes.values())]
    places = {name: f"model-0000{1 + (end > 5e9)}-of-00002.safetensors" for name, end in zip(shapes, ends, strict=True)}
    generator = torch.Generator().manual_seed(0)
    for file in dict.fromkeys(places.values()):  # tensor by tensor, which safetensors' own writer can't
        names, header, place = [name for name in shapes if places[name] == file], {}, 0
        for name in names:
            size = 2 * shapes[name].numel()
            header[name] = {"dtype": "BF16", "shape": [*shapes[name]], "data_offsets": [place, place + size]}
            place += size
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                integers = torch.randint(-(2**13), 2**13, shapes[name], generator=generator, dtype=torch.int16)
                (integers.float() / 2**18).bfloat16().view(torch.int16).numpy().tofile(out)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    stated.save_pretrained(folder)


def link(source: Path, folder: Path) -> None:
    """The same model in a folder that litGPT's converter may write into."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        (folder / path.name).symlink_to(path.resolve())


def map_and_save(source: Path, out: Path, layers: int) -> None:
    """`torch.load(mmap=True)`, pick the keys, `torch.save`: no checks, no receipt, no flush to the disk."""
    import torch

    state_dict = torch.load(source.parent / "litgpt" / MODEL / "lit_model.pth", mmap=True, weights_only=True)
    keep = {k: v for k, v in state_dict.items() if not k.startswith("transformer.h.") or int(k.split(".")[2]) < layers}
    out.mkdir()
    torch.save(keep, out / "lit_model.pth")


def build_both(source: Path, out: Path, layers: int) -> None:
    """Build the reference and the target model, load, copy parameter by parameter, save."""
    import torch
    from litgpt import GPT, Config

    torch.set_default_dtype(torch.bfloat16)
    reference = GPT(Config.from_name(MODEL))
    reference.load_state_dict(torch.load(source.parent / "litgpt" / MODEL / "lit_model.pth", weights_only=True))
    target = GPT(Config.from_name(MODEL, n_layer=layers))
    parameters = dict(reference.named_parameters())
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            parameter.copy_(parameters[name])
    out.mkdir()
    torch.save(target.state_dict(), out / "lit_model.pth")


def mergekit(source: Path, out: Path, layers: int) -> None:
    """mergekit's passthrough slice of the same folder."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    slices = [{"sources": [{"model": str(source), "layer_range": [0, layers]}]}]
    config = {"slices": slices, "merge_method": "passthrough", "dtype": "bfloat16"}
    options = MergeOptions(lazy_unpickle=True, copy_tokenizer=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(config), str(out), options)


# s. A virtual machine gives freed pages back to its host within seconds, and getting them anew is slow: without a
# pause, rows that start to write soon after the last row's output was removed would find them still there
SETTLE = 6
ROWS = {"map_and_save": map_and_save, "build_both": build_both, "mergekit": mergekit}
RECIPE = Path(__file__).parents[1] / "recipes/openllama3b_n13.yaml"


def command(row: str, source: Path, out: Path, layers: int, kept: int, mergekit: str | None) -> list[str]:
    python, converted = sys.executable, source.parent / "litgpt" / MODEL
    shard = max(source.iterdir(), key=lambda path: path.stat().st_size)
    straight, after = (
        [python, "-m", "inheritune_lit.surgery", str(folder), "--layers", str(layers), "--out_dir", str(out)]
        for folder in (source, converted)
    )
    steps = [python, "-m", "litgpt", "convert_to_litgpt", str(converted)], after
    by_name = {
        "ours": straight,
        "two_steps": ["sh", "-c", " && ".join(map(shlex.join, steps))],
        "second_step": after,
        "dd": ["dd", f"if={shard}", f"of={out}", "bs=16M", f"count={kept}", "iflag=count_bytes", "conv=fsync"],
        "surgery --dry_run": [*straight, "--dry_run"],
        "plan": [python, "-m", "inheritune_lit", "plan", str(RECIPE)],
        "recipes validate": [python, "-m", "inheritune_lit", "recipes", "validate", str(RECIPE)],
        "import torch": [python, "-c", "import torch"],
    }
    own = [mergekit if row == "mergekit" and mergekit else python, __file__, "--row", row]
    return by_name.get(row, [*own, "--layers", str(layers), "--folder", str(source.parent)])


def measured(argv: list[str]) -> dict[str, float]:
    """Seconds from start to end, seconds of the processors, and the largest resident memory in bytes of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"{argv} ended with {status}: {process.stderr.read().decode()}")  # type: ignore[union-attr]
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=13)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / ".surgery")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", nargs="*", default=["ours", "dd", "two_steps", "second_step", *ROWS])
    parser.add_argument("--mergekit", metavar="PYTHON", help="of an environment with mergekit")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    source, out, converted = args.folder / MODEL, args.folder / "out", args.folder / "litgpt" / MODEL
    if args.row:
        ROWS[args.row](source, out, args.layers)
        return
    if not (source / "config.json").is_file():
        print("Making the synthetic checkpoint ...", file=sys.stderr)
        shutil.rmtree(source, ignore_errors=True)
        make_source(source)
    if not converted.is_dir():
        link(source, converted)
    rows = [row for row in args.rows if row != "mergekit" or args.mergekit]
    rows += ["surgery --dry_run", "plan", "recipes validate", "import torch"]
    results: dict[str, list[dict[str, float]]] = {row: [] for row in rows}
    remove(out)  # of a run that was stopped
    if {"two_steps", "second_step", "map_and_save", "build_both"} & {*rows}:
        measured(command("two_steps", source, out, args.layers, 0, None))  # not counted: it makes litGPT's file
        remove(out)
    measured(command("ours", source, out, args.layers, 0, None))  # warms the page cache; not counted
    kept = (out / "lit_model.pth").stat().st_size
    for repeat in range(args.repeats):
        for row in rows[repeat % len(rows) :] + rows[: repeat % len(rows)]:
            if out.exists():
                remove(out)
                time.sleep(SETTLE)
            results[row].append(measured(command(row, source, out, args.layers, kept, args.mergekit)))
    remove(out)
    print_table(results, kept, sum(path.stat().st_size for path in source.glob("*.safetensors")))
    if "mergekit" in args.rows and "mergekit" not in rows:
        print("\nmergekit: no environment with it was named, left out.")


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def print_table(results: dict[str, list[dict[str, float]]], kept: int, size: int) -> None:
    def median(row: str, key: str) -> float:
        return statistics.median(run[key] for run in results[row])

    bar = median("dd", "wall")
    print(f"{size / 1e9:.2f} GB in, {kept / 1e9:.2f} GB out; median of {len(results['dd'])} runs [lowest–highest]; ")
    print(f"the disk takes {kept / bar / 1e9:.2f} GB/s by dd\n")
    print("| | whole command (s) | / dd | processors (s) | peak (GB) |\n|---|---|---|---|---|")
    for row, runs in results.items():
        walls, name = [run["wall"] for run in runs], row if "--" in row else row.replace("_", " ")
        print(f"| {name} | {median(row, 'wall'):.1f} [{min(walls):.1f}–"
              f"{max(walls):.1f}] | {median(row, 'wall') / bar:.2f} | {median(row, 'cpu'):.1f} "
              f"| {median(row, 'peak') / 1e9:.2f} |")  # fmt: skip
    print(f"\nSurgery over its dry run: {(median('ours', 'peak') - median('surgery --dry_run', 'peak')) / 1e9:.2f} GB.")


if __name__ == "__main__":
    main()
