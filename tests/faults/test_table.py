"""README.md's table and the tests: every test it names exists, and every test of this folder stands in it."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def functions_of(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_table() -> None:
    rows = [line for line in (HERE / "README.md").read_text().splitlines() if line.startswith("|")]
    named = {
        (HERE.parents[1] / file if "/" in file else HERE / file, test)
        for row in rows
        for file, test in NAMED.findall(row)
    }
    missing = [f"{path}::{test}" for path, test in named if not path.is_file() or test not in functions_of(path)]
    assert not missing, "named, and not there"
    here = {(path, test) for path in HERE.glob("test_*.py") if path != Path(__file__) for test in functions_of(path)}
    assert not [f"{path}::{test}" for path, test in here - named], "there, and not named"
    assert all(row.count("|") == 4 for row in rows), "three columns"
    assert all(NAMED.search(row) for row in rows[2:]), "a promise without a test"
    assert len(rows) > 40
