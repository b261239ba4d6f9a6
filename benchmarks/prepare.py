"""Text → token shards beside its alternatives, on real text: Python's library and installed packages.

    python benchmarks/prepare.py [--tokenizer_dir demo/reference/SmolLM2-135M] [--megabytes 160] [--repeats 2]
                                 [--litdata_python BIN]

Every row is a process of its own with all cores; the rows take turns. "work" is seconds after the imports, from text
files on the disk to token files on the disk; the ceilings hold the text in memory and throw the tokens away. Rows whose
package is not installed are left out and named; litdata may live in an environment of its own.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

FILES = 16
CORES = len(os.sched_getaffinity(0))


def make_corpus(folder: Path, size: int) -> None:
    """JSONL of Python sources: the standard library's first, then the installed packages', up to `size` bytes."""
    folder.mkdir(parents=True)
    files = [(folder / f"{i:02}.jsonl").open("w", encoding="utf-8") for i in range(FILES)]
    roots = [Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))]
    taken = 0
    for i, path in enumerate(path for root in roots for path in sorted(root.rglob("*.py"))):
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        if not text.strip() or "\0" in text:
            continue
        taken += files[i % FILES].write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        if taken >= size:
            break
    for file in files:
        file.close()
    if taken < size:
        print(f"only {taken / 1e6:.0f} MB of Python sources here")


def texts(corpus: Path) -> Iterator[str]:
    for path in sorted(corpus.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line)["text"] for line in file)


def ours(corpus: Path, tokenizer_dir: Path, out_dir: Path) -> tuple[float, int]:
    import litgpt  # noqa: F401

    from inheritune_lit.data.manifest import Manifest
    from inheritune_lit.prepare.command import prepare

    start = time.perf_counter()
    prepare(str(corpus), out_dir=out_dir, tokenizer_dir=tokenizer_dir, val_share=0.01)
    work = time.perf_counter() - start
    return work, sum(split.tokens for split in Manifest(out_dir).splits.values())


def datatrove(corpus: Path, tokenizer_dir: Path, out_dir: Path) -> tuple[float, int]:
    """datatrove's own reader and tokenizer, as its examples put them together, without shuffling."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    tokenizer = DocumentTokenizer(
        str(out_dir / "tokens"), str(tokenizer_dir / "tokenizer.json"), eos_token=eos(tokenizer_dir),
        shuffle_documents=False,
    )  # fmt: skip
    steps = [JsonlReader(str(corpus)), tokenizer]
    start = time.perf_counter()
    LocalPipelineExecutor(steps, tasks=FILES, workers=CORES, logging_dir=str(out_dir / "logs")).run()
    work = time.perf_counter() - start
    return work, sum(path.stat().st_size for path in (out_dir / "tokens").glob("*.ds")) // 2


def litdata(corpus: Path, tokenizer_dir: Path, out_dir: Path) -> tuple[float, int]:
    """litGPT's own way: one task a file, documents encoded one by one."""
    from functools import partial

    from litdata import TokensLoader, optimize

    counts = out_dir / "counts"
    counts.mkdir(parents=True)
    start = time.perf_counter()
    optimize(
        partial(_litdata_file, tokenizer_dir=tokenizer_dir, counts=counts), sorted(map(str, corpus.glob("*.jsonl"))),
        str(out_dir / "chunks"), num_workers=CORES, chunk_bytes="64MB", item_loader=TokensLoader(),
    )  # fmt: skip
    work = time.perf_counter() - start
    return work, sum(int(path.read_text()) for path in counts.iterdir())


def _litdata_file(path, tokenizer_dir, counts):  # type: ignore[no-untyped-def]
    import torch
    from tokenizers import Tokenizer

    tokenizer, tokens = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json")), 0
    end = tokenizer.token_to_id(eos(tokenizer_dir))
    with Path(path).open(encoding="utf-8") as file:
        for line in file:
            ids = [*tokenizer.encode(json.loads(line)["text"]).ids, end]
            tokens += len(ids)
            yield torch.tensor(ids, dtype=torch.int)
    (counts / Path(path).name).write_text(str(tokens))


def ceiling(corpus: Path, tokenizer_dir: Path, out_dir: Path, method: str = "encode_batch") -> tuple[float, int]:
    """The tokenizer alone, on all cores by its own threads."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    documents = list(texts(corpus))
    start = time.perf_counter()
    tokens = sum(
        len(encoding.ids) for i in range(0, len(documents), 500)
        for encoding in getattr(tokenizer, method)(documents[i : i + 500])
    )  # fmt: skip
    return time.perf_counter() - start, tokens + len(documents)


def fast_ceiling(corpus: Path, tokenizer_dir: Path, out_dir: Path) -> tuple[float, int]:
    return ceiling(corpus, tokenizer_dir, out_dir, "encode_batch_fast")


def eos(tokenizer_dir: Path) -> str:
    token = json.loads((tokenizer_dir / "tokenizer_config.json").read_text())["eos_token"]
    return token["content"] if isinstance(token, dict) else token


ROWS = {
    "tokenizers encode_batch": ceiling,
    "tokenizers encode_batch_fast": fast_ceiling,
    "inheritune prepare": ours,
    "datatrove DocumentTokenizer": datatrove,
    "litdata optimize": litdata,
}


def measure(name: str, arguments: argparse.Namespace) -> dict[str, float] | str:
    """Runs one row in a process of its own; returns what it printed last, or why there is nothing."""
    python = arguments.litdata_python if name.startswith("litdata") else sys.executable
    out = arguments.folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [
        python,
        __file__,
        "--row",
        name,
        "--tokenizer_dir",
        arguments.tokenizer_dir,
        "--folder",
        arguments.folder,
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tokenizer_dir", type=Path, default=Path("demo/reference/SmolLM2-135M"), help="with a tokenizer.json"
    )
    parser.add_argument("--megabytes", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/.prepare"), help="for the text and the results")
    parser.add_argument("--litdata_python", default=sys.executable, help="an interpreter that has litdata")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    corpus = arguments.folder / "corpus"
    if arguments.row:
        work, tokens = ROWS[arguments.row](corpus, arguments.tokenizer_dir, arguments.folder / "out")
        print(json.dumps({"work": work, "tokens": tokens}))
        return
    shutil.rmtree(arguments.folder, ignore_errors=True)
    make_corpus(corpus, arguments.megabytes * 10**6)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in ROWS}
    for _ in range(arguments.repeats):
        for name in ROWS:
            found = measure(name, arguments)
            if isinstance(found, str):
                print(f"{name}: left out ({found})")
            else:
                results[name].append(found)
                print(f"{name}: {found['work']:.1f} s, {found['tokens']:,} tokens", flush=True)
    size = sum(path.stat().st_size for path in corpus.iterdir())
    print(f"\n{size / 1e6:.0f} MB of text in {FILES} files, {CORES} cores, median of {arguments.repeats}\n")
    print("| | work (s) | M tokens/s | of the ceiling |\n|---|---|---|---|")
    speeds = {n: statistics.median(r["tokens"] / r["work"] for r in found) for n, found in results.items() if found}
    for name, speed in speeds.items():
        seconds = statistics.median(found["work"] for found in results[name])
        print(f"| {name} | {seconds:.1f} | {speed / 1e6:.2f} | {speed / speeds['tokenizers encode_batch']:.2f} |")
    shutil.rmtree(arguments.folder)


if __name__ == "__main__":
    main()
