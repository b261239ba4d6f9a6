"""Questions made of a text alone."""

import json
from pathlib import Path

import pytest

from inheritune_lit.base.errors import InheritError
from inheritune_lit.evaluate.cloze import make_cloze, write_cloze

LINES = [f"line {i} has a few words more than four" for i in range(30)]
TEXT = "\n".join([*LINES[:12], "", "Ham.", *LINES[12:], "short one"])


def test_the_answer_is_the_line_that_follows() -> None:
    questions = make_cloze(TEXT, 15)
    assert len(questions) == 15
    for question in questions:
        answer = question["choices"][question["answer"]]
        before = TEXT.split(f"\n{answer}\n")[0].splitlines()[-4:]
        assert question["context"].splitlines() == before
        assert len(set(question["choices"])) == 4
        assert set(question["choices"]) <= set(LINES)
    assert len({question["answer"] for question in questions}) == 4, "the answer is not always in the same place"


def test_the_same_text_and_seed_give_the_same_questions() -> None:
    assert make_cloze(TEXT, 5, seed=1) == make_cloze(TEXT, 5, seed=1) != make_cloze(TEXT, 5, seed=2)
    more = [question["context"] for question in make_cloze(TEXT, 9, seed=1)]
    assert {question["context"] for question in make_cloze(TEXT, 5, seed=1)} < set(more)


def test_file(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_text(TEXT)
    folder = write_cloze(tmp_path / "play.txt", tmp_path / "questions", 7)
    rows = [json.loads(row) for row in (folder / "test.jsonl").read_text().splitlines()]
    assert rows == make_cloze(TEXT, 7)
    with pytest.raises(InheritError, match="The text has 23 lines to ask for, 24 were asked for"):
        write_cloze(tmp_path / "play.txt", tmp_path / "questions", 24)
