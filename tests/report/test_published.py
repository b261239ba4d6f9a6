"""The published numbers, against the arithmetic that they have to obey, and against each other."""

import math

import pytest

from inheritune_lit.base.errors import InheritError
from inheritune_lit.published import LOSS_TABLES, SCORE_TABLES, losses, read, scores

LOW_DATA, FINEWEB = scores("low_data"), scores("fineweb_edu")


@pytest.mark.parametrize("table", [LOW_DATA, FINEWEB], ids=SCORE_TABLES)
def test_every_accuracy_is_a_number_of_right_answers(table) -> None:
    """A typing error in a score, or a task of another size, would hardly be a multiple of 1/questions.

    That is, where questions are few: a task of 10,000 has a multiple near every score of two decimals.
    """
    off = []
    for model in table.models:
        for name, score in model.scores.items():
            task = table.tasks[name]
            right = round(score * task.questions / 100)
            distance = abs(100 * right / task.questions - score)
            decimals = len(str(score).partition(".")[2])
            if task.is_count and distance > 10 ** -max(decimals, 1):  # rounded or cut to its decimals
                off.append((model.name, name, score, distance))
    assert off == []


def test_winograd_is_wsc() -> None:
    """Multiples of 1/104, and two of them add up to all 104 questions: what a constant answer scores."""
    values = {model.scores["wsc"] for model in LOW_DATA.models if "wsc" in model.scores}
    assert values == {round(100 * right / 104, 2) for right in (66, 40, 38, 53)}
    assert LOW_DATA.tasks["wsc"].constant == pytest.approx(100 - 36.54)
    # not WSC273's: 63.46 would be 173.2 of 273 questions
    assert abs(63.46 * 2.73 - round(63.46 * 2.73)) > 0.1


def test_low_data_is_whole() -> None:
    assert len(LOW_DATA.tasks) == 10
    whole = [model for model in LOW_DATA.models if len(model.scores) == 10]
    assert [model.role for model in whole] == ["reference", *["baseline"] * 4, "paper"]
    assert all(model.scores.keys() <= LOW_DATA.tasks.keys() for model in LOW_DATA.models)
    assert {name for name, task in LOW_DATA.tasks.items() if task.num_fewshot} == {"mmlu"}
    assert LOW_DATA.tasks["mmlu"].num_fewshot == 5
    others = [(m.reference, m.tokens, m.scores["mmlu"]) for m in LOW_DATA.models if len(m.scores) == 1]
    assert others == [
        ("LLaMA-2-7B", 10**9, 24.27),
        ("OpenLLaMA-3B", 50 * 10**9, 25.71),
        ("LLaMA-2-7B", 50 * 10**9, 26.07),
        ("OpenLLaMA-7B", 50 * 10**9, 26.72),
    ]


def test_fineweb_means_are_those_of_the_five_scores() -> None:
    assert len(FINEWEB.models) == 6
    for model in FINEWEB.models:
        assert len(model.scores) == len(FINEWEB.tasks) == 5
        mean = round(sum(model.scores.values()) / 5, 6)
        assert math.floor(mean * 100) / 100 == model.mean, "the paper cuts to two decimals"


def test_constant_answers_beat_chance() -> None:
    for task in (*LOW_DATA.tasks.values(), *FINEWEB.tasks.values()):
        assert task.chance is None or 0 <= task.chance <= 50
        if task.constant is not None:
            assert task.chance is not None
            assert task.constant > task.chance
            right = round(task.constant * task.questions / 100)
            assert round(100 * right / task.questions, 2) == task.constant


def test_gpt2_losses_tell_the_papers_story() -> None:
    table = losses("gpt2_losses")
    by = {(run.data, run.size, run.blocks, run.start, run.steps): run.loss for run in table.runs}
    assert len(by) == len(table.runs) == len({run.log for run in table.runs}) == 39, "no run twice"
    for size, whole, n in (("large", 36, 18), ("medium", 24, 16), ("xlarge", 48, 24)):
        inherited = by["OpenWebText", size, n, "inherited", 100_000]
        assert inherited < by["OpenWebText", size, whole, "random", 100_000]
        short, long = (by["OpenWebText", size, n, "random", steps] for steps in (100_000, 200_000))
        assert short > long
    sizes = read("gpt2_losses")["sizes"]
    for run in table.runs:
        assert run.blocks is None or run.blocks <= sizes[run.size]["blocks"]
        assert 2.5 < run.loss < 3.3


def test_unknown_table_is_named() -> None:
    with pytest.raises(
        InheritError, match="No published table is named 'llama'. There are low_data, fineweb_edu, gpt2"
    ):
        read("llama")
    assert all(read(name)["source"].startswith("arXiv 2404.08634") for name in (*SCORE_TABLES, *LOSS_TABLES))
