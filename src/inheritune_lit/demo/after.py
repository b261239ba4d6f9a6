"""The demo's end: what one does with a trained model, each the command that a user would type."""

from collections.abc import Sequence
from pathlib import Path

from inheritune_lit.analyze import FORMAT
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, sha256_file
from inheritune_lit.checkpoint.folder import WEIGHTS
from inheritune_lit.checkpoint.receipt import check_files, read_receipt
from inheritune_lit.checkpoint.weights import Weights
from inheritune_lit.data.manifest import MANIFEST
from inheritune_lit.demo.inputs import run_module
from inheritune_lit.demo.stages import Paths
from inheritune_lit.export.command import CARD
from inheritune_lit.runs.folder import MODEL

HELD_OUT = "hamlet.txt"
QUESTIONS = 40
WINDOWS, LENGTH = 8, 128  # 1,024 tokens, as every choice of blocks to keep costs a pass through the head


def export(paths: Paths) -> bool:
    """`inheritune export` of the trained inherited start; returns whether it was there, whole."""
    run, out_dir = paths.run(inherited=True), exported(paths)
    try:
        receipt = read_receipt(out_dir)
        check_files(out_dir, receipt["files"])
        same = receipt["source"]["fingerprint"] == Weights(run / MODEL / WEIGHTS).fingerprint()
        card, results = (out_dir / CARD).read_text(encoding="utf-8"), read_json(scores(run), "results")
        if same and all(task in card for task in results["tasks"]):
            return True
    except (InheritError, OSError, KeyError, TypeError):
        pass
    overwrite = ["--overwrite"] if out_dir.exists() else []
    names = ["--license", "apache-2.0", "--base_model", "HuggingFaceTB/SmolLM2-135M-Instruct"]
    _inheritune("export", run, "--out_dir", out_dir, *names, *overwrite)
    return False


def exported(paths: Paths) -> Path:
    return paths.out_dir / "exported" / paths.run(inherited=True).name


def evaluate(paths: Paths) -> None:
    """`inheritune evaluate` on questions made from the held-out play: the reference and both runs."""
    from inheritune_lit.evaluate.cloze import write_cloze

    questions = paths.out_dir / "questions"
    write_cloze(paths.text / HELD_OUT, questions, QUESTIONS)
    for subject in subjects(paths):
        overwrite = ["--overwrite"] if _is_of_other_versions(scores(subject)) else []
        _inheritune("evaluate", subject, "--suite", "smoke", "--data_dir", questions, *overwrite)


def scores(subject: Path) -> Path:
    return subject / "evaluation" / "smoke.json"


def _is_of_other_versions(results: Path) -> bool:
    from inheritune_lit.evaluate.results import FORMAT, versions

    if not results.is_file():
        return False
    found = read_json(results, "results")
    return (found.get("format"), found.get("versions")) != (FORMAT, versions())


def analyze(paths: Paths) -> bool:
    """`inheritune analyze` of the reference, and of what training made of the blocks that were kept."""
    run = paths.run(inherited=True)
    done = [_analyze(paths, paths.reference, paths.reference), _analyze(paths, run, run / MODEL)]
    return all(done)


def _analyze(paths: Paths, subject: Path, checkpoint: Path) -> bool:
    try:
        found = read_json(subject / "analysis" / "analysis.json", "analysis")
        same = {
            "format": found["format"] == FORMAT,
            "fingerprint": found["model"]["fingerprint"] == Weights(checkpoint / WEIGHTS).fingerprint(),
            "data": found["data"]["manifest_sha256"] == sha256_file(paths.tokens / MANIFEST),
        }
        if all(same.values()):
            return True
    except (InheritError, OSError, KeyError, TypeError):
        pass
    sizes = ["--windows", WINDOWS, "--max_seq_length", LENGTH]
    overwrite = ["--overwrite"] if (subject / "analysis").exists() else []
    _inheritune("analyze", subject, "--data", paths.tokens, *sizes, *overwrite)
    return False


def report(paths: Paths) -> Path:
    """`inheritune report` about the reference and both runs; returns the page."""
    out_dir = paths.out_dir / "report"
    _inheritune("report", *subjects(paths), "--out_dir", out_dir)
    return out_dir / "report.html"


def subjects(paths: Paths) -> Sequence[Path]:
    return [paths.run(inherited=True), paths.run(inherited=False), paths.reference]


def _inheritune(command: str, *arguments: object) -> None:
    run_module("inheritune_lit", command, *map(str, arguments), name="inheritune")
