"""PackedTokens beside a bare memmap and litdata's TokensLoader: tokens/s cold and warm, then memory at 50B tokens.

    python benchmarks/loader.py [--tokens 200000000] [--workers 0 1 2 4] [--litdata PYTHON]

Every row is a process of its own; a rate is over one epoch of shuffled windows of 2,049 tokens, in micro-batches of 8,
the first one left out. "cold": the files' pages are dropped from the page cache before (posix_fadvise). litdata does
install beside our pins: `--litdata` names an interpreter that has it (a virtual environment with litdata, torch).
The 50B-token corpus is sparse files, which take no room and read as zeros: only start-up and memory count there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

T, BATCH = 2048, 8
SHARDS = 8  # of the corpus that rates are measured on
LARGE, LARGE_SHARDS = 50 * 10**9, 448  # seven domains in 64 tasks


def write_corpus(folder: Path, tokens: int, shards: int, *, sparse: bool) -> None:
    """Token shards with a manifest, of random ids below 32,000 or, sparse, of zeros that take no room."""
    import numpy as np

    entries: list[dict[str, Any]] = []
    generator = np.random.default_rng(0)
    for i in range(shards):
        path = folder / "web/train" / f"{i:05d}.ds"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = tokens // shards
        if sparse:
            with path.open("wb") as file:
                file.truncate(2 * size)
        else:
            generator.integers(0, 32000, size, dtype=np.uint16).tofile(path)
        entries.append({"path": f"web/train/{i:05d}.ds", "tokens": size, "documents": 1, "sha256": str(i)})
    total = sum(entry["tokens"] for entry in entries)
    train = {"domain": "web", "tokens": total, "documents": shards, "max_token_id": 31999, "shards": entries}
    val = {"domain": "web", "tokens": 0, "documents": 0, "max_token_id": -1, "shards": []}
    tokenizer = {"file": "tokenizer.model", "identity": "", "vocab_size": 32000}
    manifest = {"format": 1, "dtype": "uint16", "tokenizer": tokenizer, "splits": {"train": [train], "val": [val]}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def resident(pid: int | str) -> float:
    """GB that a process has had resident at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


def consume(batches: Any) -> float:
    """Tokens/s after the first batch."""
    first = next(batches)
    start, tokens = time.perf_counter(), 0
    assert first.shape[-1] == T + 1
    for batch in batches:
        tokens += batch.shape[0] * T
    return tokens / (time.perf_counter() - start)


def bare(folder: Path, workers: int) -> dict[str, float]:
    """Windows copied out of one memmap a shard in shuffled order, by NumPy, and nothing else."""
    import numpy as np

    shards = [np.memmap(path, dtype="<u2", mode="r") for path in sorted(folder.glob("web/train/*.ds"))]
    places = [(shard, i * T) for shard in shards for i in range((len(shard) - 1) // T)]
    order = np.random.default_rng(0).permutation(len(places))

    def batches() -> Any:
        for i in range(0, len(order) // BATCH * BATCH, BATCH):
            windows = [places[j] for j in order[i : i + BATCH]]
            yield np.stack([shard[start : start + T + 1] for shard, start in windows])

    return {"rate": consume(batches())}


def ours(folder: Path, workers: int) -> dict[str, float]:
    """PackedTokens through torch's DataLoader."""
    loader = connect(folder, workers)
    return {"rate": consume(batch[:, :] for batch, _ in zip(loader, range(len(loader)), strict=False))}


def litdata(folder: Path, workers: int) -> dict[str, float]:
    """litdata's StreamingDataset with TokensLoader, shuffled, local chunks of 64 MB (its default)."""
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

    data = StreamingDataset(str(folder / "litdata"), item_loader=TokensLoader(block_size=T + 1), shuffle=True)
    return {"rate": consume(iter(StreamingDataLoader(data, batch_size=BATCH, num_workers=workers)))}


def write_litdata(folder: Path, workers: int) -> dict[str, float]:
    """The same tokens in litdata's format; not timed."""
    from functools import partial

    from litdata import TokensLoader, optimize

    paths = [str(path) for path in sorted(folder.glob("web/train/*.ds"))]
    optimize(
        fn=partial(_read_shard), inputs=paths, output_dir=str(folder / "litdata"), chunk_bytes="64MB", num_workers=1,
        item_loader=TokensLoader(block_size=T + 1),
    )  # fmt: skip
    return {}


def _read_shard(path: str) -> Any:
    import numpy as np
    import torch

    tokens = np.fromfile(path, dtype="<u2")
    for start in range(0, len(tokens), 2**20):
        yield torch.from_numpy(tokens[start : start + 2**20].astype(np.int32))


def large(folder: Path, workers: int) -> dict[str, float]:
    """Start-up to the first batch, and memory, at 50B tokens."""
    import litgpt.data  # noqa: F401  # what a training process has imported before
    import torch

    from inheritune_lit.data import tokens  # noqa: F401

    before, start = resident("self"), time.perf_counter()
    loader = connect(folder, workers)
    batches = iter(loader)
    next(batches)[:, :]
    seconds = time.perf_counter() - start
    for _ in range(100):
        next(batches)[:, :]
    pids = [child for child in Path("/proc/self/task").glob("*/children") for child in child.read_text().split()]
    return {
        "seconds": seconds,
        "before": before,
        "after": resident("self"),
        "worker": max((resident(pid) for pid in pids), default=0.0),
        "threads": torch.get_num_threads(),
    }


def connect(folder: Path, workers: int) -> Any:
    from inheritune_lit.data import PackedTokens

    data = PackedTokens(folder, epochs=1, num_workers=workers)
    data.connect(batch_size=BATCH, max_seq_length=T)
    return data.train_dataloader()


ROWS = {"bare": bare, "ours": ours, "litdata": litdata, "write_litdata": write_litdata, "large": large}


def run(row: str, folder: Path, workers: int, python: str = sys.executable, *, cold: bool = False) -> dict[str, float]:
    files = [path for path in folder.rglob("*") if path.suffix in (".ds", ".bin")]
    for path in files:
        with path.open("rb") as file:
            if cold:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            elif row in ("bare", "ours", "litdata"):
                while file.read(2**24):
                    pass
    command = [python, __file__, "--row", row, "--workers", str(workers), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=200_000_000)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2, 4])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--litdata", metavar="PYTHON")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / ".loader")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(ROWS[args.row](args.folder, args.workers[0])))
        return
    corpus, sparse = args.folder / f"{args.tokens}", args.folder / "50B"
    if not (corpus / "manifest.json").is_file():
        write_corpus(corpus, args.tokens, SHARDS, sparse=False)
    if not (sparse / "manifest.json").is_file():
        write_corpus(sparse, LARGE, LARGE_SHARDS, sparse=True)
    rows: list[tuple[str, int, str]] = [("bare", 0, sys.executable)]
    rows += [("ours", workers, sys.executable) for workers in args.workers]
    if args.litdata:
        if not (corpus / "litdata/index.json").is_file():
            run("write_litdata", corpus, 0, args.litdata)
        rows += [("litdata", workers, args.litdata) for workers in args.workers]
    results: dict[tuple[str, int, bool], list[float]] = {}
    for _ in range(args.repeats):  # side by side: all rows, then all again
        for row, workers, python in rows:
            for cold in (True, False):
                rate = run(row, corpus, workers, python, cold=cold)["rate"]
                results.setdefault((row, workers, cold), []).append(rate)
    print(f"{args.tokens:,} tokens, windows of {T + 1:,}, micro-batches of {BATCH}; median of {args.repeats} runs\n")
    print("| | workers | cold (M tokens/s) | warm (M tokens/s) | warm / bare |\n|---|---|---|---|---|")
    warm_bare = statistics.median(results["bare", 0, False])
    for row, workers, _ in rows:
        cold, warm = (statistics.median(results[row, workers, kind]) for kind in (True, False))
        print(f"| {row} | {workers} | {cold / 1e6:.1f} | {warm / 1e6:.1f} | {warm / warm_bare:.2f} |")
    if not args.litdata:
        print("\nlitdata: no --litdata PYTHON, left out.")
    print("\n50B tokens in sparse files, 448 shards:\n")
    print("| workers | start-up (s) | training process after imports (GB) | with the loader (GB) | a worker (GB) |")
    print("|---|---|---|---|---|")
    for workers in (0, 2):
        found = run("large", sparse, workers)
        worker = f"{found['worker']:.2f}" if workers else "–"
        print(f"| {workers} | {found['seconds']:.1f} | {found['before']:.2f} | {found['after']:.2f} | {worker} |")


if __name__ == "__main__":
    main()
