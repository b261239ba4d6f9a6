"""Tables for a terminal."""

from inheritune_lit.base.text_table import aligned, columns


def test_columns_to_the_left_and_to_the_right() -> None:
    assert columns(("model", "loss"), [("a", "10.25"), ("longer", "9.5")]) == [
        "model    loss",
        "──────  ─────",
        "a       10.25",
        "longer    9.5",
    ]
    assert aligned([("a", "bb", "1"), ("aa", "b", "22")], left=2) == ["a   bb   1", "aa  b   22"]


def test_nothing_stands_behind_the_last_word() -> None:
    assert aligned([("name", "note"), ("a", "")], left=2) == ["name  note", "a"]
