"""All rendered files of recipes/: `litgpt pretrain` recipes, surgery recipes, the README with its tables."""

from pathlib import Path

from inheritune_lit.recipes.body import power
from inheritune_lit.recipes.listing import Row, rows
from inheritune_lit.recipes.render_gpt2 import render_gpt2
from inheritune_lit.recipes.render_low_data import render_low_data


def render_all() -> dict[str, str]:
    """Path in recipes/ → text of every file that is made from a table, but for the README."""
    return render_low_data() | render_gpt2()


def render_readme(folder: Path) -> str:
    """recipes/README.md: its text from the page beside this module, its tables from the recipes in `folder`."""
    page = (Path(__file__).parent / "readme.md").read_text(encoding="utf-8")
    listed = rows(folder)
    gpt2 = [row for row in listed if row.name.startswith("gpt2/")]
    low_data = [row for row in listed if row not in gpt2]
    return page.replace("{LOW_DATA}\n", _table(low_data)).replace("{GPT2}\n", _table(gpt2))


def _table(listed: list[Row]) -> str:
    titles = ["recipe", "model", "start", "parameters", "tokens", "steps", "reproduces", "result"]
    lines = [titles, *map(_cells, listed)]
    header, *body = (f"| {' | '.join(cells)} |\n" for cells in lines)
    return "".join([header, f"|{'---|' * len(titles)}\n", *body])


def _cells(row: Row) -> list[str]:
    return [
        f"`{row.name}`",
        row.model,
        row.start,
        f"{row.parameters / 1e9:.3f}B",
        power(row.tokens),
        f"{row.steps:,}",
        row.reproduces,
        row.result,
    ]
