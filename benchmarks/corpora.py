"""The RedPajama recipe on a corpus of seven domains made of what is at hand, under the 1T sample's file names.

    python benchmarks/corpora.py [--tokenizer_dir demo/reference/SmolLM2-135M] [--plays demo/text] [--budget 4000000]

Python sources, headers, stubs, READMEs, licences and plays stand in for the seven domains. Shown are: each domain's
share of the budget, the same documents for 1, 3 and 8 tasks, a smaller sample inside the larger, and the same bytes
after kill -9.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes/data/redpajama_1b.yaml"
PIECE = 2000  # characters of a document; longer texts are cut between lines
CRAWLS = ("2019-30", "2020-05", "2021-04", "2022-05", "2023-06")
LIMIT = 60 * 10**6  # characters of a domain


def sources(plays: Path) -> dict[str, list[Path]]:
    """The files that stand in for each domain."""
    library, packages = Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))

    def find(root: Path, *patterns: str) -> list[Path]:
        return sorted(path for pattern in patterns for path in root.rglob(pattern) if path.is_file())

    return {
        "common_crawl": find(packages, "*.py"),
        "c4": find(packages, "*.h"),
        "github": [path for path in find(library, "*.py") if "site-packages" not in path.parts],
        "wikipedia": find(packages, "METADATA", "*.md", "*.rst"),
        "book": sorted(plays.glob("*.txt")),
        "arxiv": find(packages, "*LICEN*", "*.txt"),
        "stackexchange": find(packages, "*.pyi"),
    }


def pieces(files: list[Path]) -> Iterator[str]:
    taken = 0
    for path in files:
        try:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (UnicodeDecodeError, OSError):
            continue
        piece = ""
        for line in [*lines, ""]:
            if len(piece) + len(line) > PIECE or not line:
                if piece.strip() and "\0" not in piece:
                    taken += len(piece)
                    yield piece
                piece = ""
            piece += line[:PIECE]
        if taken > LIMIT:
            return


def make_corpus(folder: Path, plays: Path) -> None:
    folder.mkdir(parents=True)
    for domain, files in sources(plays).items():
        names = [f"cc_{crawl}_sample" for crawl in CRAWLS] if domain == "common_crawl" else [f"{domain}_sample"]
        documents = [json.dumps({"text": text, "meta": {}}) for text in dict.fromkeys(pieces(files))]
        random.Random(0).shuffle(documents)
        for i, name in enumerate(names):
            (folder / f"{name}.jsonl").write_text("\n".join(documents[i :: len(names)]) + "\n")
        print(f"{domain}: {len(documents):,} documents of {len(files):,} files", flush=True)


def command(folder: Path, tokenizer_dir: Path, **options: object) -> list[str]:
    flags = {"tokenizer_dir": tokenizer_dir, "val_share": 0.01} | options
    start = [sys.executable, "-m", "inheritune_lit", "prepare", f"--config={RECIPE}"]
    return [*start, *(f"--{name}={value}" for name, value in flags.items()), str(folder / "corpus")]


def prepare(folder: Path, tokenizer_dir: Path, **options: object) -> str:
    done = subprocess.run(command(folder, tokenizer_dir, **options), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return done.stdout


def documents_of(folder: Path) -> list[bytes]:
    """Every training document's tokens, sorted."""
    content = json.loads((folder / "manifest.json").read_text())
    found: list[bytes] = []
    for entry in content["splits"]["train"]:
        for shard in entry["shards"]:
            tokens = np.fromfile(folder / shard["path"], content["dtype"])
            ends = np.fromfile(folder / f"{shard['path']}.index", "<u8").astype(int)
            found += [part.tobytes() for part in np.split(tokens, ends[:-1])]
    return sorted(found)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def killed_and_resumed(folder: Path, tokenizer_dir: Path, budget: int) -> Path:
    """Kills the parent with SIGKILL once one task is done, and gives the same command again."""
    out = folder / "all"  # the name is in the manifest
    out.rename(folder / "kept")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(folder, tokenizer_dir, out_dir=out, budget=budget), **quiet)
    completions = folder / ".all.staging/.work/pass1/completions"
    while process.poll() is None and not (completions.is_dir() and list(completions.iterdir())):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    print(f"killed with {len(list(completions.iterdir()))} tasks done", flush=True)
    prepare(folder, tokenizer_dir, out_dir=out, budget=budget)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer_dir", type=Path, default=Path("demo/reference/SmolLM2-135M"))
    parser.add_argument("--plays", type=Path, default=Path("demo/text"))
    parser.add_argument("--budget", type=int, default=4_000_000)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/.corpora"))
    arguments = parser.parse_args()
    folder, tokenizer, budget = arguments.folder.absolute(), arguments.tokenizer_dir.absolute(), arguments.budget
    shutil.rmtree(folder, ignore_errors=True)
    make_corpus(folder / "corpus", arguments.plays)

    print(prepare(folder, tokenizer, out_dir=folder / "all", budget=budget))
    content = json.loads((folder / "all/manifest.json").read_text())
    for domain, entry in content["sampling"].items():
        print(f"{domain:<14} {entry['got'] / entry['wanted'] - 1:+.3%} of its share")
        assert abs(entry["got"] / entry["wanted"] - 1) < 0.01
    expected = documents_of(folder / "all")
    for tasks in (1, 3, 8):
        prepare(folder, tokenizer, out_dir=folder / f"tasks{tasks}", budget=budget, tasks=tasks)
        assert documents_of(folder / f"tasks{tasks}") == expected
        print(f"{tasks} tasks: the same {len(expected):,} documents", flush=True)
    prepare(folder, tokenizer, out_dir=folder / "small", budget=budget // 50)
    small = documents_of(folder / "small")
    assert set(small) < set(expected)
    print(f"a fiftieth of the budget: {len(small):,} documents, all of them among those", flush=True)
    assert bytes_of(killed_and_resumed(folder, tokenizer, budget)) == bytes_of(folder / "kept")
    print("killed and resumed: the same bytes")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
