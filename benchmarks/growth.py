"""The growth demo with several seeds: at which n par was reached, and what the inherited start is worth.

    python benchmarks/growth.py [--seeds 42 43 44] [--parallel 3] [--write]

Runs `inheritune grow --config recipes/growth/demo.yaml` once for each seed, which decides the initialisation and the
order of the data; text, tokenizer and held-out play are the same. Each run has one thread. A run that is done is not
done again. --write puts the result into benchmarks/growth.md.
"""

import argparse
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from inheritune_lit.base.files import read_json
from inheritune_lit.checkpoint.receipt import versions
from inheritune_lit.demo.grow_demo import grow_command, make_inputs
from inheritune_lit.evaluate import ValidationLoss

ROOT = Path(__file__).parents[1]


def run(out_dir: Path, seed: int, steps: int | None) -> None:
    """One growth, in a process of its own with one thread; its output in OUT_DIR/seed42.log."""
    command = [sys.executable, "-m", "inheritune_lit", *grow_command(out_dir, seed, steps)]
    with (out_dir / f"seed{seed}.log").open("a") as log:
        subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log, check=True)
    print(f"seed {seed} is done", flush=True)


def read(folder: Path) -> dict[str, Any]:
    """A growth's ledger, with the losses of each stage window by window."""
    ledger = read_json(folder / "growth.json", "ledger")
    losses = {name: ValidationLoss(tuple(stage["per_window"])) for name, stage in ledger["stages"].items()}
    return ledger | {"losses": losses}


def last_target(ledger: dict[str, Any]) -> str:
    return [name for name, stage in ledger["stages"].items() if "decision" in stage][-1]


def render(ledgers: dict[int, dict[str, Any]]) -> str:
    """The tables: each stage's loss, and the inherited start against the others, seed by seed and over the seeds."""
    return "\n\n".join([_losses(ledgers), _differences(ledgers), _outcomes(ledgers)])


def _losses(ledgers: dict[int, dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for ledger in ledgers.values() for name in ledger["stages"]))
    rows = []
    for name in names:
        values = {seed: ledger["losses"].get(name) for seed, ledger in ledgers.items()}
        stage = next(ledger["stages"][name] for ledger in ledgers.values() if name in ledger["stages"])
        means = [loss.mean for loss in values.values() if loss]
        cells = [f"{loss.mean:.4f} ± {loss.stderr:.4f}" if loss else "–" for loss in values.values()]
        rows.append([name, stage["start"], str(stage["blocks"]), f"{stage['steps']:,}", *cells, _spread(means)])
    heads = ["stage", "start", "n", "steps", *(f"seed {seed}" for seed in ledgers), "mean (least – most)"]
    return "Validation loss, ± its standard error over windows:\n\n" + _table(heads, rows)


def _differences(ledgers: dict[int, dict[str, Any]]) -> str:
    rows = []
    pairs = {"reference": "reference", "random, T steps": "_random", "random, 2T steps": "_random_2t"}
    for title, suffix in pairs.items():
        cells, values = [], []
        for ledger in ledgers.values():
            target = last_target(ledger)
            ours: ValidationLoss = ledger["losses"][target]
            other = ledger["losses"].get(suffix if suffix == "reference" else f"{target}{suffix}")
            if other is None:
                cells.append("–")
                continue
            difference, error = ours.minus(other)
            values.append(difference)
            cells.append(f"{difference:+.4f} ± {error:.4f}")
        rows.append([title, *cells, _spread(values, "+.4f")])
    heads = ["inherited minus …", *(f"seed {seed}" for seed in ledgers), "mean (least – most)"]
    text = "The last inherited model against the others on the same windows, in nats, ± the paired standard error:"
    return f"{text}\n\n{_table(heads, rows)}"


def _outcomes(ledgers: dict[int, dict[str, Any]]) -> str:
    lines = []
    for seed, ledger in ledgers.items():
        seconds = sum(stage["seconds"] for stage in ledger["stages"].values())
        whys = [stage["decision"]["why"] for stage in ledger["stages"].values() if "decision" in stage]
        lines.append(f"- Seed {seed}: {' '.join(whys)} {seconds / 60:.1f} min of training.")
    return "\n".join(lines)


def _spread(values: list[float], style: str = ".4f") -> str:
    if not values:
        return "–"
    return f"{statistics.fmean(values):{style}} ({min(values):{style}} – {max(values):{style}})"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows])


def header(arguments: list[str], ledgers: dict[int, dict[str, Any]]) -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    ledger = next(iter(ledgers.values()))
    windows = ledger["stages"]["reference"]["windows"]
    train = ledger["settings"]["recipe"]["train"]
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    return (
        f"# Growth on a small GPT-2, measured\n\n    {shlex.join(['python', 'benchmarks/growth.py', *arguments])}\n\n"
        f"`recipes/growth/demo.yaml`: a GPT-2 of {ledger['settings']['recipe']['model_config']['n_layer']} blocks, "
        f"trained from scratch on Shakespeare\nwith T = {ledger['stages']['reference']['steps']:,} steps of "
        f"{train['global_batch_size'] * train['max_seq_length']:,} tokens; Hamlet held out, {windows:,} windows of "
        f"{train['max_seq_length']} tokens. The seed decides\nthe initialisation and the order of the data; one "
        f"thread a run. Losses in nats per token; minutes are those of a machine with other work.\n\n"
        f"{time.strftime('%Y-%m-%d')}, commit {commit}, {packages}; {os.cpu_count()} cores, {platform.machine()}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--out_dir", type=Path, default=Path("demo/growth"))
    parser.add_argument("--steps", type=int, help="T, instead of the recipe's")
    parser.add_argument("--parallel", type=int, default=3, help="how many runs at a time")
    parser.add_argument("--write", action="store_true", help="write benchmarks/growth.md")
    args = parser.parse_args()
    os.chdir(ROOT)  # where the recipes are
    make_inputs(args.out_dir)
    with ThreadPoolExecutor(args.parallel) as pool:
        for done in [pool.submit(run, args.out_dir, seed, args.steps) for seed in args.seeds]:
            done.result()
    ledgers = {seed: read(args.out_dir / f"seed{seed}") for seed in args.seeds}
    text = f"{header(sys.argv[1:], ledgers)}\n\n{render(ledgers)}\n"
    print(text)
    if args.write:
        (ROOT / "benchmarks/growth.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
