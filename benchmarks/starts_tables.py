"""The tables of benchmarks/starts.md and their figure, out of benchmarks/starts.json.

    python benchmarks/starts_tables.py [--folder DIR]

First takes into starts.json the arms that benchmarks/starts.py left in the folder.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, PAGE, FIGURE = HERE / "starts.json", HERE / "starts.md", HERE.parent / "docs/starts.png"
MARKER = "<!-- written by benchmarks/starts_tables.py from here on -->"
TITLES = {"smollm2": "SmolLM2-135M, 30 blocks", "own": "A model of 16 blocks, trained here on the same text"}
KEYS = ("family", "kept", "blocks", "rate", "steps", "seed", "weight", "curve", "new", "seconds")
Row = dict[str, Any]


def take(folder: Path) -> dict[str, Any]:
    """starts.json with the arms of a folder, those that are new or were measured again."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"references": {}, "arms": []}
    arms = {identity(arm): arm for arm in kept["arms"]}
    for path in sorted(folder.glob("arms/*.json")):
        found = json.loads(path.read_text())
        kept |= {"device": found["device"], "step_tokens": found["step_tokens"]}
        arm = {key: found[key] for key in KEYS}
        arm |= {"curve": [[step, round(loss, 4)] for step, loss in arm["curve"]], "seconds": round(arm["seconds"], 1)}
        arms[identity(arm)] = arm | {"new": round(math.fsum(arm["new"]) / len(arm["new"]), 4)}
    for path in folder.glob("*.json"):
        kept["references"][path.stem] = {text: round(loss, 4) for text, loss in json.loads(path.read_text()).items()}
    kept["arms"] = list(arms.values())
    lines = ",\n".join(json.dumps(arm) for arm in kept["arms"])
    head = json.dumps({key: value for key, value in kept.items() if key != "arms"})
    RESULTS.write_text(f'{head[:-1]}, "arms": [\n{lines}\n]}}\n')
    return kept


def identity(arm: Row) -> tuple[Any, ...]:
    return tuple(arm[key] for key in ("family", "kept", "rate", "steps", "seed", "weight"))


def last(arm: Row) -> float:
    return float(arm["curve"][-1][1])


def millions(steps: float, results: dict[str, Any]) -> str:
    return (
        f"{steps * results['step_tokens'] / 1e6:.2g}M"
        if steps < 300
        else f"{steps * results['step_tokens'] / 1e6:.1f}M"
    )


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)])


def curves(arms: list[Row], results: dict[str, Any]) -> str:
    """A row an arm, a column a look that all of them had."""
    steps = sorted(set.intersection(*({step for step, _ in arm["curve"]} for arm in arms)))
    heads = [
        "kept",
        "peak rate",
        "seed",
        *("untrained" if s == 0 else millions(s, results) for s in steps),
        "other text",
    ]
    rows = []
    for arm in sorted(arms, key=last):
        at = dict(map(tuple, arm["curve"]))
        losses = [f"{at[step]:.2f}" if step < steps[-1] else f"**{at[step]:.3f}**" for step in steps]
        rows.append([arm["kept"], f"{arm['rate']:g}", str(arm["seed"]), *losses, f"{arm['new']:.2f}"])
    return markdown(heads, rows)


def spoken(results: dict[str, Any]) -> str:
    parts = [MARKER, f"## Measured\n\n{results['device']}, bfloat16, {results['step_tokens']:,} tokens a step."]
    for family, title in TITLES.items():
        arms = [arm for arm in results["arms"] if arm["family"] == family]
        if not arms:
            continue
        whole = results["references"][family]
        parts.append(
            f"### {title}\n\nThe whole reference, not trained any further: {whole['val']:.3f} on the held-out text, "
            f"{whole['new']:.3f} on the other one."
        )
        cuts = [arm for arm in arms if arm["kept"] != "reference"]
        for length in sorted({arm["steps"] for arm in cuts}, reverse=True):
            chosen = [arm for arm in cuts if arm["steps"] == length]
            parts.append(f"Trained on {millions(length, results)} tokens, a learning rate schedule of that length:")
            parts.append(curves(chosen, results))
    return "\n\n".join(parts) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """Loss over tokens of the longest arms of either family."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from inheritune_lit.base.figure import BLUE, FAINT, GREEN, STYLE, VERMILION

    style: Any = STYLE | {"font.size": 9, "legend.frameon": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(10, 3.8), dpi=130, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (family, title) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
            arms = [a for a in results["arms"] if a["family"] == family and a["kept"] not in ("reference", "random")]
            longest = max(arm["steps"] for arm in arms)
            best: dict[str, Row] = {}
            for arm in sorted((a for a in arms if a["steps"] == longest), key=last, reverse=True):
                best[arm["kept"]] = arm
            firsts = [kept for kept in best if kept.startswith("first")]
            for kept, arm in best.items():
                quarter = len(arm["blocks"]) < len(best[firsts[0]]["blocks"])
                colour = BLUE if kept in firsts else GREEN if quarter else VERMILION
                points = [(step * results["step_tokens"] / 1e6, loss) for step, loss in arm["curve"] if step]
                label = f"{len(arm['blocks'])} blocks: {kept}" + " (the paper's)" * (kept in firsts)
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=label)
            axes.axhline(
                results["references"][family]["val"], color=FAINT, linestyle="--", linewidth=1, label="reference"
            )
            axes.set(xscale="log", xlabel="million tokens", ylabel="held-out loss, nats per token", ylim=(2, 7))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_title(title, loc="left", fontsize=10)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend()
        figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE / ".starts")
    results = take(parser.parse_args().folder)
    above = PAGE.read_text().split(MARKER)[0].rstrip()
    PAGE.write_text(f"{above}\n\n{spoken(results)}")
    draw(results, FIGURE)


if __name__ == "__main__":
    main()
