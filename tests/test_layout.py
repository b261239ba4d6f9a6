"""The house: a room for each command, formats below the commands, and imports that run downwards only."""

import ast
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import inheritune_lit

PACKAGE = Path(inheritune_lit.__file__).parent
# From the ground up. What stands in one line does not import each other.
FLOORS = (
    ("base",),
    ("gpt2", "published"),
    ("checkpoint",),
    ("data",),
    ("prepare", "surgery", "recipes"),
    ("runs", "plan"),
    ("export",),
    ("verify", "evaluate"),
    ("pretrain", "analyze", "report"),
    ("choose", "demo", "grow", "reproduce"),
)


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        if inside.parts[0] not in ("__init__.py", "__main__.py"):
            yield inside.parts[0].removesuffix(".py"), path


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a module imports from, wherever in it the import stands."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("inheritune_lit.") and "__" not in name}
    return rooms


def test_every_room_has_its_floor() -> None:
    assert {room for room, _ in modules()} == set(chain(*FLOORS))
    assert len(FLOORS) <= 10
    assert len(set(chain(*FLOORS))) <= 22


def test_imports_run_downwards() -> None:
    floor = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
    upwards = [
        f"{path.relative_to(PACKAGE)} imports {imported}"
        for room, path in modules()
        for imported in imported_rooms(path) - {room}
        if floor[imported] >= floor[room]
    ]
    assert not upwards
