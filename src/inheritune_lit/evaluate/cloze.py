"""A task out of nothing but a text: which of four lines is the one that comes next?"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inheritune_lit.base.errors import InheritError

CHOICES = 4
CONTEXT = 4  # lines that are shown
WORDS = 5  # what a line has at least, lest it be a name or a stage direction


def make_cloze(text: str, questions: int, seed: int = 0) -> list[dict[str, Any]]:
    """Questions with `context` (four lines), `choices` (four lines of the text) and `answer` (which one comes next).

    The same text and seed give the same questions for ever: what is drawn is the beginning of an order by SHA-256.

    Raises:
        InheritError: the text is too short for so many.
    """
    lines = [line.strip() for line in text.splitlines()]
    candidates = [i for i, line in enumerate(lines) if len(line.split()) >= WORDS]
    places = [i for i in candidates if i >= CONTEXT and all(lines[i - CONTEXT : i])]
    if len(places) < questions or len({lines[i] for i in candidates}) < CHOICES:
        raise InheritError(
            f"The text has {len(places):,} lines to ask for, {questions:,} were asked for: each needs {WORDS} words, "
            f"and {CONTEXT} lines without a gap before it. Give a longer text."
        )
    asked = sorted(places, key=_order(seed))[:questions]
    return [_question(lines, candidates, place, seed) for place in sorted(asked)]


def _question(lines: list[str], candidates: list[int], place: int, seed: int) -> dict[str, Any]:
    others: list[str] = []
    for i in sorted(candidates, key=_order(seed, place)):
        if lines[i] not in (lines[place], *others):
            others.append(lines[i])
        if len(others) == CHOICES - 1:
            break
    choices = sorted([lines[place], *others], key=_order(seed, place, "choices"))
    context = "\n".join(lines[place - CONTEXT : place])
    return {"context": context, "choices": choices, "answer": choices.index(lines[place])}


def _order(*seed: object) -> Callable[[object], bytes]:
    return lambda value: hashlib.sha256(repr((*seed, value)).encode()).digest()


def write_cloze(text_file: Path, data_dir: Path, questions: int, seed: int = 0) -> Path:
    """Writes the questions as the data set `next_line` of `data_dir`, which the suite smoke reads.

    Raises:
        InheritError: the text is too short.
    """
    folder = data_dir / "next_line"
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_cloze(text_file.read_text(encoding="utf-8"), questions, seed)
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder
