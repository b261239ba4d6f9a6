"""README.md's table and the tests: every test it names exists, and every test of this folder stands in it."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def tests_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_table() -> None:
    rows = [line for line in (HERE / "README.md").read_text().splitlines() if line.startswith("|")]
    named = {(HERE / file, test) for line in rows for file, test in NAMED.findall(line)}
    named |= {(HERE.parent / file, test) for file, test in ()}
    where = {name: name if name.is_file() else HERE.parent / name.name for name, _ in named}
    missing = [f"{path.name}::{test}" for path, test in named if test not in tests_in(where[path])]
    assert not missing, "named, and not there"
    shown = {(where[path], test) for path, test in named}
    here = {(path, test) for path in HERE.glob("test_*.py") if path != Path(__file__) for test in tests_in(path)}
    unnamed = [f"{path.name}::{test}" for path, test in here - shown]
    assert not unnamed, "there, and not named"
    assert all(line.count("|") == 4 for line in rows), "three columns"
    assert all(NAMED.search(line) for line in rows[2:] if not line.startswith("|---")), "a promise without a test"
