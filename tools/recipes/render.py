"""All rendered files of recipes/: `litgpt pretrain` recipes, their locks, surgery recipes, the README's tables."""

import sys
from pathlib import Path

from inheritune_lit.plan.model import count_parameters
from recipes import gpt2, locks, low_data
from recipes.body import power


def render_all() -> dict[str, str]:
    """Path in recipes/ → text of every file that is made from a table, and of README.md."""
    page = (Path(__file__).parent / "readme.md").read_text(encoding="utf-8")
    for mark, runs in (("{LOW_DATA}\n", low_data.runs()), ("{GPT2}\n", gpt2.runs())):
        page = page.replace(mark, "".join(map(_row, runs)))
    files = low_data.render() | gpt2.render()
    return files | locks.render(files) | {"README.md": page}


def _row(run: low_data.Run | gpt2.Run) -> str:
    size, steps = f"{count_parameters(run.config).total / 1e9:.3f}B", f"{run.max_tokens // run.step_tokens:,}"
    cells = [f"`{run.name}`", run.model, run.start, size, power(run.max_tokens), steps, run.reproduces, run.result]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name, text in render_all().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
