"""The report: what it says of runs whose numbers are known, what it refuses, and the page in a real browser."""

import json
import math
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.image import imread

from inheritune_lit import published
from inheritune_lit.base.errors import InheritError
from inheritune_lit.report import report
from inheritune_lit.report.score_tables import scores_table
from inheritune_lit.report.scores import Score, bold_in, is_bold, is_chance, is_noise, table_for
from inheritune_lit.report.subjects import read_subjects
from inheritune_lit.report.training import held_out_table, losses_table, reach_table, recipe_differences, verdicts

LOW_DATA = published.scores("low_data")
TOKENS_PER_STEP = 4 * 16


def recipe(out_dir: Path, start: str | None = "checkpoints/target", **train: Any) -> dict[str, Any]:
    return {
        "model_name": "open_llama_3b",
        "model_config": {"n_layer": 13, "block_size": 16, "hf_config": {"name": "open_llama_3b"}},
        "initial_checkpoint_dir": start,
        "tokenizer_dir": "checkpoints/target",
        "out_dir": str(out_dir),
        "train": {"max_tokens": 100 * TOKENS_PER_STEP, "max_seq_length": 16, "global_batch_size": 4} | train,
        "optimizer": {"init_args": {"lr": 3e-4, "betas": [0.9, 0.95]}},
    }


def make_run(
    folder: Path, losses: Callable[[int], float], *, random: bool = False, devices: Sequence[int] = (2,), **train: Any
) -> Path:
    """A finished run of 100 steps, as `inheritune pretrain` leaves it; its validation losses are 0.1 above `losses`.

    Args:
        devices: Of each of its launches.
    """
    log = folder / "logs/csv/version_0/metrics.csv"
    log.parent.mkdir(parents=True)
    settings = recipe(folder, None if random else "checkpoints/target", **train)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    rows = ["step,iter,total_tokens,loss,val_loss"]
    for step in range(1, 101):
        rows.append(f"{step - 1},{step},{step * TOKENS_PER_STEP},{losses(step)},")
        if step % 20 == 0:
            rows.append(f"{step - 1},,,,{losses(step) + 0.1}")
    log.write_text("\n".join(rows) + "\n")
    inheritance = {"source": {"name": "open_llama_3b"}, "start": "inherit", "blocks": list(range(13))}
    start = (
        {"fingerprint": "random", "inheritance": None}
        if random
        else {"fingerprint": "f" * 64, "inheritance": inheritance}
    )
    receipt = {
        **{"format": 1, "kind": "run", "recipe": settings, "start": start, "tokens": 6400, "steps": 100},
        **{
            "data": {"path": "data/tokens", "manifest_sha256": "d" * 64},
            "seconds": 7200.0,
            "parameters": 1_816_143_360,
        },
        **{"tokens_per_second": 1.1, "mfu": None, "versions": {"litgpt": "0.5.13"}, "git": None},
        **{"hardware": {"gpus": ["NVIDIA H100"] * 2, "world_size": max(devices, default=1)}},
        "launches": [{"from_step": i, "to_step": i + 1, "world_size": count} for i, count in enumerate(devices)],
        **{"validation_loss_untrained": losses(0) + 0.1, "losses": {}},
    }
    (folder / "run.json").write_text(json.dumps(receipt))
    return folder


def evaluate(run: Path, suite: str = "low_data", **changes: Any) -> Path:
    """Writes scores as `inheritune evaluate` does: the paper's own for its 1.5B model, but for the changes."""
    model = next(model for model in LOW_DATA.models if model.role == "paper")
    tasks = {
        name: {
            **{"metric": task.metric, "value": model.scores[name] / 100, "stderr": 0.01, "version": "2.0"},
            **{"num_fewshot": task.num_fewshot, "samples": task.questions, "seconds": 1.0},
        }
        for name, task in LOW_DATA.tasks.items()
    }
    for name, change in changes.items():
        tasks[name] |= change
    content = {
        **{"format": 1, "kind": "evaluation", "suite": suite, "tasks": tasks, "limit": None, "versions": {}},
        "model": {"name": run.name, "path": str(run), "fingerprint": "f", "parameters": 1},
        "command": f"inheritune evaluate {run} --suite {suite}",
    }
    (run / "evaluation").mkdir(exist_ok=True, parents=True)
    (run / "evaluation" / f"{suite}.json").write_text(json.dumps(content))
    return run


def measure_loss(run: Path, per_window: list[float], **changes: Any) -> Path:
    mean = sum(per_window) / len(per_window)
    content = {
        **{"format": 1, "kind": "validation_loss", "data": {"path": "data/tokens", "manifest_sha256": "d" * 64}},
        **{"max_seq_length": 16, "windows": len(per_window), "tokens": 16 * len(per_window), "mean": mean},
        **{"stderr": 0.5, "perplexity": math.exp(mean), "per_window": per_window},
        "domains": {name: {"mean": mean + i, "stderr": 0.25, "windows": 2} for i, name in enumerate(("c4", "github"))},
    }
    (run / "evaluation").mkdir(exist_ok=True)
    (run / "evaluation/loss.json").write_text(json.dumps(content | changes))
    return run


def falling(start: float, end: float) -> Callable[[int], float]:
    return lambda step: start + (end - start) * step / 100


def two_runs(folder: Path) -> list[Path]:
    """An inherited start, which falls from 6 to 3, and a random one, which falls from 8 to 4."""
    inherited = make_run(folder / "inherited", falling(6, 3))
    return [inherited, make_run(folder / "random", falling(8, 4), random=True)]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return two_runs(tmp_path)


def cells(table: Any) -> dict[str, list[str]]:
    return {row.label: [cell.text for cell in row.cells] for row in table.rows}


# -- what it says of training


def test_only_what_differs_between_recipes_is_shown(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", falling(6, 3))
    other = make_run(tmp_path / "other", falling(8, 4), random=True, lr_warmup_steps=7, global_batch_size=8)
    table = recipe_differences(read_subjects([one, other]))
    assert table
    assert cells(table) == {
        "start": ["inherited from open_llama_3b", "random"],
        "train.global_batch_size": ["4", "8"],
        "train.lr_warmup_steps": ["not stated", "7"],
    }
    assert "The other 8 settings are the same" in table.notes[0]
    assert recipe_differences(read_subjects([one])) is None


def test_tokens_to_the_random_starts_loss(runs: list[Path]) -> None:
    """Validation of the inherited start is 6.1 − 0.03·step, so that it is at 4.1 after 66.7 of 100 steps."""
    subjects = read_subjects(runs)
    table = reach_table(subjects)
    assert table
    assert cells(table) == {"inherited": ["4,267", "1.50×"], "random": ["6,400", "1.00×"]}
    assert verdicts(subjects) == [
        "inherited reached the final validation loss of random (4.100 nats) with 67% of its tokens, 4,267."
    ]


@pytest.mark.parametrize(
    ("devices", "lines", "said"),
    [
        ([(1,), (1,)], 2, "faint: training, of which long"),
        ([(4,), (4,)], 2, "faint: training (of 1/4 of each batch, the first device’s), of which long"),
        ([(1,), (2,)], 0, "trained on different numbers of devices (one: 1; other: 2)"),
        ([(1, 2), (2,)], 0, "trained on different numbers of devices (one: 1 and 2; other: 2)"),
        ([()], 1, "faint: training, of which long"),
    ],
    ids=["one device", "four", "one and two", "changed on the way", "not known"],
)
def test_training_losses_of_other_parts_of_a_batch_are_not_compared(
    tmp_path: Path, devices: list[tuple[int, ...]], lines: int, said: str
) -> None:
    """litGPT logs the first device's training loss: it is drawn where it is of the same part of a batch for all."""
    names = ("one", "other")
    runs = [
        make_run(tmp_path / name, falling(6, 3), devices=counts) for name, counts in zip(names, devices, strict=False)
    ]
    report(runs, out_dir=tmp_path / "report")
    drawn = (tmp_path / "report/plots/loss_tokens.svg").read_text()
    assert drawn.count("stroke-opacity: 0.3") == lines
    assert "one" in drawn, "its validation is there"
    for file in ("report.md", "report.html"):
        assert said in (tmp_path / "report" / file).read_text()


def test_what_did_not_happen_is_reported_too(tmp_path: Path) -> None:
    bad = make_run(tmp_path / "bad", falling(9, 5))
    good = make_run(tmp_path / "good", falling(3, 2))
    subjects = read_subjects([bad, good, make_run(tmp_path / "random", falling(8, 4), random=True)])
    table = reach_table(subjects)
    assert table
    assert cells(table) == {"bad": ["not reached", "–"], "good": ["0", "untrained"], "random": ["6,400", "1.00×"]}
    said = verdicts(subjects)
    assert [sentence.split(" the ")[0] for sentence in said] == ["bad did not reach", "good was at", "good was at"]
    assert "of bad (5.100 nats)" in said[2], "of two inherited starts, the better one beside the other comes last"


def test_held_out_losses_are_paired_where_windows_are_known(runs: list[Path]) -> None:
    inherited, random = runs
    measure_loss(inherited, [1.0, 2.0, 4.0])
    measure_loss(random, [2.0, 3.5, 4.0])
    table = held_out_table(read_subjects(runs))
    assert table
    difference = table.rows[0].cells[2]
    # differences −1, −1.5, 0: mean −5/6, standard deviation 0.7638, error 0.441
    assert (difference.text, difference.detail, difference.marks) == ("−0.833", "± 0.441", "≈")
    measure_loss(random, [3.0, 4.5, 5.5])
    measure_loss(inherited, [1.0, 2.0, 4.0], stderr=0.3)
    for run in runs:
        path = run / "evaluation/loss.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "per_window"}))
    table = held_out_table(read_subjects(runs))
    assert table
    difference = table.rows[0].cells[2]
    assert (difference.text, difference.detail, difference.marks) == ("−2.000", "± 0.583", "")  # √(0.3² + 0.5²)


@pytest.mark.parametrize(
    "change",
    [{"max_seq_length": 32}, {"windows": 2}, {"data": {"path": "data/tokens", "manifest_sha256": "other"}}],
    ids=["length", "windows", "data"],
)
def test_losses_on_different_windows_are_refused(runs: list[Path], change: dict[str, Any]) -> None:
    measure_loss(runs[0], [1.0, 2.0, 4.0])
    measure_loss(runs[1], [1.0, 2.0, 4.0], **change)
    with pytest.raises(InheritError, match="inherited and random can't stand in one column: .* of the first is"):
        held_out_table(read_subjects(runs))


# -- scores


def test_bold_rule_by_hand() -> None:
    rule = published.BoldRule(0.9, 2)
    assert is_bold(45.0, 50.0, [60, 60, 60, 60], rule), "exactly nine tenths"
    assert not is_bold(44.99, 50.0, [60, 60, 60, 60], rule)
    assert is_bold(44.99, 50.0, [44, 44, 60, 60], rule)
    assert not is_bold(44.99, 50.0, [44, 44.99, 60, 60], rule), "as good as a baseline is not better"
    assert not is_bold(44.99, None, [44, 60], rule)


def test_bold_rule_on_the_papers_own_row() -> None:
    """By hand: WSC beats three baselines, WNLI two; PIQA, WinoGrande and LogiQA miss both conditions."""
    row = next(model for model in LOW_DATA.models if model.role == "paper")
    bold = [task for task, value in row.scores.items() if bold_in(LOW_DATA, task, value)]
    assert bold == ["wsc", "boolq", "mmlu", "wnli", "qnli", "mnli", "truthfulqa_mc2"]


def test_noise_and_chance_by_hand() -> None:
    assert is_noise(Score(50, 3), Score(59.9, 4)), "2·√(3² + 4²) = 10"
    assert not is_noise(Score(50, 3), Score(60.1, 4))
    assert is_noise(Score(50, 3), Score(58.4, None)), "an unknown error is taken to be as large: 2·√18 = 8.49"
    assert not is_noise(Score(50, 3), Score(58.6, None))
    assert not is_noise(Score(50, None), Score(50, None))
    assert is_chance(Score(52, 1), "piqa")
    assert not is_chance(Score(52.1, 1), "piqa")
    assert is_chance(Score(63.46, 4.7), "wsc"), "what a constant answer scores"
    assert is_chance(Score(25 + 12, 6), "next_line"), "one of four lines is right"
    assert not is_chance(Score(25 + 12.1, 6), "next_line")
    assert not is_chance(Score(35, 1), "truthfulqa_mc2"), "no chance level is known"
    assert not is_chance(Score(0, 1), "a_task_of_ones_own")


def test_chance_is_marked_where_it_is_known(tmp_path: Path) -> None:
    task = {"metric": "acc_norm", "value": 0.225, "stderr": 0.067, "version": "1.0", "num_fewshot": 0, "samples": 40}
    names = {}
    for name in ("next_line", "a_task_of_ones_own"):
        run = evaluate(make_run(tmp_path / name / "reference", falling(6, 3)), "smoke")
        path = run / "evaluation/smoke.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tasks": {name: task}}))
        report([run], out_dir=tmp_path / name / "report")
        drawn = (tmp_path / name / "report/plots/suite-0.svg").read_text()
        names[name] = re.findall(r">(chance|reference|published)</text>", drawn)
        assert ("22.50° ± 6.7" in (tmp_path / name / "report/report.md").read_text()) == (name == "next_line")
    assert names == {"next_line": ["reference", "chance"], "a_task_of_ones_own": ["reference"]}


def test_scores_beside_the_published_ones(runs: list[Path]) -> None:
    for run in runs:
        evaluate(run, wsc={"value": 0.6346, "stderr": 0.047}, piqa={"value": 0.73, "stderr": None})
    table = scores_table("low_data", read_subjects(runs), LOW_DATA)
    assert [head.text for head in table.heads[:3]] == ["model", "WSC", "PIQA"]
    assert table.heads[6].detail == "acc 5-shot v2.0"
    assert [row.label for row in table.rows] == [
        *("OpenLLaMA-3B", "OPT-1.3B", "Pythia-1.4B", "MPT-1.3B", "Sheared LLaMA-1.3B", "Inheritune-1.5B"),
        *("inherited", "random"),
    ]
    by = {row.label: row.cells for row in table.rows}
    wsc, piqa = by["inherited"][:2]
    assert (wsc.text, wsc.detail, wsc.bold, wsc.marks) == ("63.46", "± 4.7", True, "≈°")
    assert (piqa.text, piqa.detail, piqa.bold, piqa.marks) == ("73.00", "", True, "≈"), "1.97 apart, 2·√2·1.01 allowed"
    # published, 104 questions: √(0.3846·0.6154/104) = 4.77 %
    assert (by["OPT-1.3B"][0].text, by["OPT-1.3B"][0].detail) == ("38.46", "± 4.8")
    assert not any(cell.bold for cell in by["OPT-1.3B"]), "the rule is for the method's own models"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "1.0"}, "acc, 0-shot, version 2.0, of random acc, 0-shot, version 1.0"),
        ({"num_fewshot": 5}, "acc, 0-shot, version 2.0, of random acc, 5-shot, version 2.0"),
        ({"metric": "acc_norm"}, "acc, 0-shot, version 2.0, of random acc_norm, 0-shot, version 2.0"),
    ],
    ids=["version", "few-shot", "metric"],
)
def test_scores_of_different_kinds_are_refused(runs: list[Path], change: dict[str, Any], said: str) -> None:
    evaluate(runs[0])
    evaluate(runs[1], piqa=change)
    with pytest.raises(InheritError, match=f"piqa of inherited is {said}: these scores can't stand in one column"):
        report(runs, out_dir=runs[0].parent / "report", baselines="none")
    assert not (runs[0].parent / "report").exists(), "nothing is written"


def test_scores_of_another_kind_than_the_published_are_refused(runs: list[Path], tmp_path: Path) -> None:
    for run in runs:
        evaluate(run, mmlu={"num_fewshot": 0})
    with pytest.raises(
        InheritError, match="mmlu of inherited is acc, 0-shot, version 2.0, the published .* acc, 5-shot"
    ):
        report(runs, out_dir=tmp_path / "report")
    subjects = read_subjects(runs)
    assert table_for("low_data", subjects, "auto") is LOW_DATA
    assert table_for("low_data", subjects, "none") is None
    assert list(cells(scores_table("low_data", subjects, None))) == ["inherited", "random"]
    with pytest.raises(InheritError, match="no published table is named lowdata"):
        report(runs, out_dir=tmp_path / "report", baselines="lowdata")


# -- the files


class Page(HTMLParser):
    """What a page is made of, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.links.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "id":
                self.ids.append(value or "")


def add_analysis(run: Path) -> None:
    (run / "analysis").mkdir()
    (run / "analysis/analysis.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><circle r="4"/></svg>')
    blocks = [{"block": i, "rank": 8.0 - 2 * i, "mass": 10.0 - i} for i in range(4)]
    (run / "analysis/analysis.json").write_text(json.dumps({"format": 1, "blocks": blocks}))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of everything: two runs with scores, losses, and one with an analysis."""
    folder = tmp_path_factory.mktemp("page")
    runs = two_runs(folder)
    for run in runs:
        measure_loss(evaluate(run), [2.0, 3.0, 4.0])
    add_analysis(runs[0])
    report(runs, out_dir=folder / "report")
    return folder / "report/report.html"


def test_the_page_is_self_contained(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    assert all(link.startswith(("#", "data:")) for link in found.links)
    assert not {"script", "iframe", "object", "embed", "base"} & set(found.tags)
    assert found.handlers == []
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert len(found.ids) == len(set(found.ids)), "an id is given once"
    anchors = {link[1:] for link in found.links if link.startswith("#")}
    assert anchors <= set(found.ids)
    shown = [link.partition("base64,")[2] for link in found.links if link.startswith("data:image/svg+xml")]
    files = [f"loss_{axis}" for axis in ("tokens", "steps", "hours")] + ["suite-0", "analysis_0_analysis"]
    assert [b64decode(image) for image in shown] == [(page.parent / f"plots/{f}.svg").read_bytes() for f in files]
    for heading in ("Runs", "Loss", "Held-out text", "By domain", "Evaluation: low_data", "Layers", "Environment"):
        assert f">{heading}</h" in text


def test_plots_and_text_lie_beside_it(page: Path) -> None:
    folder = page.parent
    names = {path.name for path in (folder / "plots").iterdir()}
    curves = {f"loss_{axis}.{kind}" for axis in ("tokens", "steps", "hours") for kind in ("png", "svg")}
    assert names == curves | {"suite-0.png", "suite-0.svg", "analysis_0_analysis.svg"}
    scores = (folder / "plots/suite-0.svg").read_text()
    for name in ("inherited", "random", "OpenLLaMA-3B", "published", "chance"):
        assert f">{name}</text>" in scores, "in the legend"
    for name in curves:
        if name.endswith("png"):
            assert imread(folder / "plots" / name).std() > 0.05
        else:
            text = (folder / "plots" / name).read_text()
            assert "#0072b2" in text
            assert "#d55e00" in text
            assert ">random  4.100</text>" in text, "where the random start ends, in the legend"
    assert ">GPU-hours<" in (folder / "plots/loss_hours.svg").read_text()
    markdown = (folder / "report.md").read_text()
    assert all(f"](plots/{link})" in markdown for link in ("loss_tokens.svg", "suite-0.svg", "analysis_0_analysis.svg"))
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert "| inherited | 4 | 5.0 | 3.0 | 8.5 | 7.5 | " in rows
    assert any(line.startswith("| inherited (inherited from open\\_llama\\_3b) | **50.96**") for line in rows)


def test_a_hostile_name_is_text(tmp_path: Path) -> None:
    name = "<script>alert(1)<∕script>|$x_1$`*&\"'"  # a folder's name can hold all but a slash
    run = evaluate(make_run(tmp_path / name, falling(6, 3)))
    settings = yaml.safe_load((run / "recipe.yaml").read_text())
    settings["model_config"]["hf_config"]["name"] = "</pre><img src=x onerror=alert(1)>"
    (run / "recipe.yaml").write_text(yaml.safe_dump(settings))
    (run / "analysis").mkdir()
    shutil.copyfile(evaluate(run) / "recipe.yaml", run / 'analysis/"><b>.svg')
    report([run], out_dir=tmp_path / "report")
    found = Page((tmp_path / "report/report.html").read_text())
    assert found.tags.count("img") == 5, "one run alone has curves, too"
    assert ">&lt;script" in (tmp_path / "report/plots/loss_tokens.svg").read_text()
    assert "script" not in found.tags
    assert "b" not in found.tags
    assert found.handlers == []
    assert all(link.startswith(("#", "data:")) for link in found.links)
    markdown = (tmp_path / "report/report.md").read_text().split("```")[0]
    assert "<script" not in markdown.replace("\\<script", "")
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table[:3]}) == 1, "its | makes no column"


def test_a_bare_run_says_what_is_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", falling(6, 3))
    (run / "run.json").rename(run / "launch.json")
    content = json.loads((run / "launch.json").read_text())
    unfinished = {key: content[key] for key in ("recipe", "start", "data", "versions")}
    (run / "launch.json").write_text(json.dumps(unfinished | {"kind": "launch", "gpus": []}))
    shutil.rmtree(run / "logs")
    report([run], out_dir=tmp_path / "report")
    text = (tmp_path / "report/report.md").read_text()
    for line in (
        "not finished",
        "evaluate .* --loss DATA",
        "evaluate .* --suite low",
        "analyze",
        "random start is here",
    ):
        assert re.search(line, text.partition("## What is missing")[2])
    assert not (tmp_path / "report/plots").exists()
    assert "<img" not in (tmp_path / "report/report.html").read_text()


def test_a_model_that_was_only_evaluated(runs: list[Path], tmp_path: Path) -> None:
    reference = evaluate(tmp_path / "open_llama_3b", suite="low_data")
    evaluate(runs[0])
    report([runs[0], reference], out_dir=tmp_path / "report")
    assert "| open\\_llama\\_3b (no run on record) |" in (tmp_path / "report/report.md").read_text()


def test_what_a_killed_evaluation_left_is_no_result(runs: list[Path]) -> None:
    evaluate(runs[0])
    (runs[0] / "evaluation/.low_data.json").write_text('{"format": 1, "ki')
    assert list(read_subjects(runs)[0].evaluations) == ["low_data"]


@pytest.mark.parametrize(
    ("file", "lost"),
    [
        ("evaluation/low_data.json", "suite"),
        ("evaluation/low_data.json", "tasks"),
        ("evaluation/loss.json", "perplexity"),
        ("analysis/analysis.json", "blocks"),
        ("run.json", "tokens"),
    ],
)
def test_results_without_a_key(runs: list[Path], tmp_path: Path, file: str, lost: str) -> None:
    add_analysis(measure_loss(evaluate(runs[0]), [2.0, 3.0, 4.0]))
    content = json.loads((runs[0] / file).read_text())
    del content[lost]
    (runs[0] / file).write_text(json.dumps(content))
    with pytest.raises(InheritError, match=f"{re.escape(str(runs[0] / file))} is damaged: no {lost}"):
        report(runs, out_dir=tmp_path / "report")


def test_a_run_that_diverged(tmp_path: Path) -> None:
    """Its curve ends where it stopped being a number, nothing is compared with its end, and the page says so."""
    good = make_run(tmp_path / "good", falling(6, 3))
    late = make_run(tmp_path / "late", lambda step: 8 - step / 50 if step < 70 else math.nan, random=True)
    never = make_run(tmp_path / "never", lambda step: math.nan, random=True)
    subjects = read_subjects([good, late, never])
    assert verdicts(subjects) == []
    assert reach_table(subjects) is None
    report([good, late, never], out_dir=tmp_path / "report")
    drawn = (tmp_path / "report/plots/loss_tokens.svg").read_text()
    assert "6.900" in drawn, "its last number: 8.1 − 60/50"
    assert ">never  " not in drawn
    said = (tmp_path / "report/report.md").read_text().partition("## What is missing")[2]
    assert "late ended with a validation loss of nan: it diverged." in said
    random = make_run(tmp_path / "random", falling(4, 2), random=True)
    bad = make_run(tmp_path / "bad", lambda s: 5.0 if s < 70 else math.nan)
    for untrained in (7.5, math.nan):  # before its first step
        receipt = json.loads((bad / "run.json").read_text()) | {"validation_loss_untrained": untrained}
        (bad / "run.json").write_text(json.dumps(receipt))
        (verdict,) = verdicts(read_subjects([bad, random]))
        assert verdict.endswith("its lowest is 5.100.")
    report([never], out_dir=tmp_path / "alone")
    assert not (tmp_path / "alone/plots").exists()


def test_a_report_does_not_replace_a_run(runs: list[Path]) -> None:
    with pytest.raises(InheritError, match="would replace"):
        report(runs, out_dir=runs[0], overwrite=True)
    assert (runs[0] / "recipe.yaml").is_file()


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InheritError, match="has neither recipe.yaml nor evaluation/ nor analysis/"):
        read_subjects([tmp_path / "empty"])
    with pytest.raises(InheritError, match="No folder .*absent"):
        read_subjects([tmp_path / "absent"])
    run = make_run(tmp_path / "run", falling(6, 3))
    with pytest.raises(InheritError, match="named twice"):
        read_subjects([run, run])


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [tmp_path / place / "run" for place in ("a/x", "b/x", "c")]
    names = [s.name for s in read_subjects([make_run(folder, falling(6, 3)) for folder in folders])]
    assert names == ["a/x/run", "b/x/run", "c/run"]


def test_gpt2_stands_beside_its_published_losses(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", falling(6, 3))
    settings = yaml.safe_load((run / "recipe.yaml").read_text())
    settings["model_config"]["hf_config"] = {"model_type": "gpt2"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(settings))
    found = losses_table(read_subjects([run]), "auto")
    assert found
    assert cells(found[0])["large, inherited"] == ["18", "100K", "2.8090", "OpenWebText"]
    assert cells(found[0])["run"] == ["13", "100", "3.1000", "data/tokens"]
    assert "LLM-Inheritune" in found[0].notes[0]
    assert losses_table(read_subjects([run]), "none") is None
    assert losses_table(read_subjects([make_run(tmp_path / "llama", falling(6, 3))]), "auto") is None


def test_command_without_torch(runs: list[Path], tmp_path: Path) -> None:
    """Several runs before and after an option; a report is replaced, any other folder is not."""
    check = (
        "import sys; from inheritune_lit.__main__ import main; main(sys.argv[1:]); "
        "sys.exit(str([n for n in ('torch', 'lightning', 'lm_eval', 'matplotlib.pyplot') if n in sys.modules]))"
    )
    command = [sys.executable, "-c", check, "report", str(runs[0]), "--out_dir", str(tmp_path / "out"), str(runs[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]", "nothing heavy was imported"
    assert f"{tmp_path / 'out/report.html'} (" in done.stdout
    report(runs, out_dir=tmp_path / "out")
    (tmp_path / "out/thesis.tex").write_text("precious")
    with pytest.raises(InheritError, match="exists already"):
        report(runs, out_dir=tmp_path / "out")
    assert (tmp_path / "out/thesis.tex").exists()


# -- in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--enable-logging=stderr", "--v=0", "--force-device-scale-factor=1", "--host-resolver-rules=MAP * ~NOTFOUND"),
)
DARK, LIGHT = 0, 1


def browse(page: Path, folder: Path, *, width: int = 1200, height: int = 3000, scheme: int = LIGHT) -> dict[str, Any]:
    """Opens a page in Chromium: its picture (H, W, 3) in 0 … 255, its console's lines, and what it wanted to fetch."""
    assert CHROMIUM
    folder.mkdir()
    picture, log = folder / "page.png", folder / "net.json"
    options = [f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", f"--screenshot={picture}"]
    options += [f"--window-size={width},{height}", f"--blink-settings=preferredColorScheme={scheme}"]
    command = [CHROMIUM, *SWITCHES, *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # Chromium asks for its own updates whatever it is told; those have no origin
    ours = [e["url"] for e in events if "url" in e and e.get("initiator", "not an origin") != "not an origin"]
    return {
        "picture": np.round(imread(picture)[..., :3] * 255).astype(int),
        "console": [line for line in done.stderr.splitlines() if "CONSOLE" in line],
        "requests": {url for url in ours if not url.startswith(("file:", "data:"))},
    }


def pixels(picture: np.ndarray, colour: str) -> int:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture - wanted).max(axis=-1) <= 2).sum())


@pytest.mark.skipif(
    not CHROMIUM, reason="no chromium on PATH (Debian: apt-get install --no-install-recommends chromium)"
)
def test_the_page_in_chromium(page: Path, tmp_path: Path) -> None:
    light, dark = (browse(page, tmp_path / name, scheme=scheme) for name, scheme in (("light", LIGHT), ("dark", DARK)))
    phone = browse(page, tmp_path / "phone", width=500, height=2000)
    for seen in (light, dark, phone):
        assert seen["console"] == []
        assert seen["requests"] == set()
    for seen in (light, phone):
        assert pixels(seen["picture"], "#0072b2") > 100, "the inherited start's curve"
        assert pixels(seen["picture"], "#d55e00") > 100, "the random start's"
        assert pixels(seen["picture"], "#ffffff") > 0.5 * seen["picture"][..., 0].size
    red, _, blue = np.moveaxis(dark["picture"], -1, 0)
    assert (red - blue > 100).sum() > 300, "the random start's curve, lighter"
    assert pixels(dark["picture"], "#ffffff") < 0.1 * dark["picture"][..., 0].size


@pytest.mark.skipif(
    not CHROMIUM, reason="no chromium on PATH (Debian: apt-get install --no-install-recommends chromium)"
)
def test_the_browser_would_tell(page: Path, tmp_path: Path) -> None:
    """The negative control: a page that fetches and complains, without curves."""
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://example.com/x.png"><script>console.error("broken")</script>')
    seen = browse(bad, tmp_path / "bad")
    assert any("broken" in line for line in seen["console"])
    assert "http://example.com/x.png" in seen["requests"]
    assert pixels(seen["picture"], "#0072b2") == 0
