"""From tables and plots to report.html and report.md."""

import base64
import re
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup, escape

from inheritune_lit.report import PAGE, PLOTS, TEXT, training
from inheritune_lit.report.layers import layers_table
from inheritune_lit.report.plots import draw_curves
from inheritune_lit.report.score_plot import draw_scores
from inheritune_lit.report.score_tables import differences_table, scores_table
from inheritune_lit.report.scores import table_for
from inheritune_lit.report.subjects import Subject, is_one_training_loss, missing
from inheritune_lit.report.tables import Cell, Row, Table, heads
from inheritune_lit.runs.folder import share_of_training

HOURS_NOTE = "Hours, where they are known, are taken as proportional to tokens, validation and saving included."
TRAINING_NOTE = "Strong: validation; faint: training{of}, of which long curves are drawn as means of equal stretches."
NO_TRAINING_NOTE = (
    "Validation losses. Training losses are not drawn, as they are not the same for all of it: litGPT logs that of the "
    "first device, and these trained on different numbers of devices ({devices})."
)
TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Picture:
    """A figure, in a file of the report's folder."""

    caption: str
    path: Path

    @property
    def uri(self) -> str:
        """The same, for the page: as an image it can neither run nor fetch anything."""
        return f"data:{TYPES[self.path.suffix]};base64,{base64.b64encode(self.path.read_bytes()).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of the report: its plots, then its tables, then its pictures."""

    key: str
    title: str
    tables: tuple[tuple[str, Table], ...] = ()
    """(title or "", table)"""
    plots: tuple[Picture, ...] = ()
    """Of which the page shows one at a time"""
    plot_note: str = ""
    pictures: tuple[Picture, ...] = ()


def write(subjects: Sequence[Subject], folder: Path, *, baselines: str, command: Sequence[str]) -> None:
    """Writes the report into an empty folder.

    Raises:
        InheritError: scores or losses can't stand in one column, or a log can't be read.
    """
    names = [subject.name for subject in subjects]
    content: dict[str, Any] = {
        "title": " · ".join(names) if len(names) <= 3 else f"{len(names)} models",
        "date": time.strftime("%Y-%m-%d"),
        "verdicts": training.verdicts(subjects),
        "sections": [s for s in sections(subjects, folder / PLOTS, baselines) if s.tables or s.plots or s.pictures],
        "missing": missing(subjects),
        "commands": [*_commands(subjects), shlex.join(command)],
        "recipes": [(s.name, yaml.safe_dump(s.run.recipe, sort_keys=False)) for s in subjects if s.run],
    }
    environment = _templates()
    (folder / PAGE).write_text(environment.get_template("report.html").render(content), encoding="utf-8")
    (folder / TEXT).write_text(environment.get_template("report.md").render(content), encoding="utf-8")


def sections(subjects: Sequence[Subject], plots: Path, baselines: str) -> list[Section]:
    """All parts in their order, empty ones too; figures are written into the folder `plots`."""

    def tables(*found: tuple[str, Table | None]) -> tuple[tuple[str, Table], ...]:
        return tuple((title, table) for title, table in found if table)

    evaluations = _evaluations(subjects, plots, baselines)  # first, as they may be refused
    differing = ("What differs between their recipes", training.recipe_differences(subjects))
    reach = tables(("Tokens to a loss", training.reach_table(subjects)))
    held_out = tables(("", training.held_out_table(subjects)), ("By domain", training.domains_table(subjects)))
    losses = training.losses_table(subjects, baselines)
    curves = tuple(_drawn(axis, path) for axis, path in draw_curves(subjects, plots).items())
    return [
        Section("runs", "Runs", tables(("", training.runs_table(subjects)), differing)),
        Section("loss", "Loss", reach, curves, _curves_note(subjects)),
        Section("held-out", "Held-out text", held_out),
        Section("verdict", "Is it the run that was locked?", tables(*map(_verdict, subjects))),
        *evaluations,
        Section("published", losses[1], (("", losses[0]),)) if losses else Section("published", ""),
        Section("layers", "Layers", tables(("", layers_table(subjects))), pictures=_pictures(subjects, plots)),
        Section("environment", "Environment", tables(("", _versions(subjects)))),
    ]


def _curves_note(subjects: Sequence[Subject]) -> str:
    """What is drawn, and which part of a batch a training loss is of."""
    ranks = {s.name: s.run.ranks for s in subjects if s.run and s.run.ranks}
    if is_one_training_loss(subjects):
        share = share_of_training(next(iter(ranks.values()), ()))
        return f"{TRAINING_NOTE.format(of=f' ({share}, the first device’s)' if share else '')} {HOURS_NOTE}"
    devices = "; ".join(f"{name}: {' and '.join(map(str, counts))}" for name, counts in ranks.items())
    return f"{NO_TRAINING_NOTE.format(devices=devices)} {HOURS_NOTE}"


def _evaluations(subjects: Sequence[Subject], plots: Path, baselines: str) -> list[Section]:
    found: list[Section] = []
    for suite in dict.fromkeys(suite for subject in subjects for suite in subject.evaluations):
        those = [subject for subject in subjects if suite in subject.evaluations]
        published = table_for(suite, those, baselines)
        tables: list[tuple[str, Table]] = [("", scores_table(suite, those, published))]
        if differences := differences_table(suite, those):
            tables.append(("Against the random start", differences))
        key = f"suite-{len(found)}"
        picture = _drawn(f"Scores on {suite}", draw_scores(suite, those, published, plots / key))
        found.append(Section(key, f"Evaluation: {suite}", tuple(tables), (picture,)))
    return found


def _drawn(caption: str, stem: Path) -> Picture:
    return Picture(caption, stem.with_name(f"{stem.name}.svg"))


def _verdict(subject: Subject) -> tuple[str, Table | None]:
    """What `inheritune reproduce` found, if it looked."""
    if (found := subject.verdict) is None:
        return subject.name, None
    rows = tuple(Row(f"{layer}: {what}", heads(*cells)) for layer, what, *cells in found["table"])
    titles = heads("what", "expected", "got", "band, nats", "result")
    return found["sentence"], Table(titles, rows, tuple(found["reasons"]), is_text=True)


def _pictures(subjects: Sequence[Subject], folder: Path) -> tuple[Picture, ...]:
    pictures = []
    for number, subject in enumerate(subjects):
        for path in subject.figures:
            name = f"analysis_{number}_{re.sub(r'[^A-Za-z0-9.-]', '_', path.name)}"
            folder.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / name)
            pictures.append(Picture(f"{subject.name}: {path.stem.replace('_', ' ')}", folder / name))
    return tuple(pictures)


def _versions(subjects: Sequence[Subject]) -> Table | None:
    """Package versions, hardware and, where it is known, the commit, one column a run."""
    runs = [subject for subject in subjects if subject.run]
    if not runs:
        return None
    found = [dict(s.receipt.get("versions") or {}) | _hardware(s) for s in runs]
    keys = list(dict.fromkeys(key for entries in found for key in entries))
    rows = tuple(Row(key, tuple(Cell(str(entries.get(key, "–"))) for entries in found)) for key in keys)
    return Table(heads("", *(s.name for s in runs)), rows, is_text=True)


def _hardware(subject: Subject) -> dict[str, str]:
    found = subject.receipt.get("hardware") or {}
    entries = {
        key: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for key, value in found.items()
    }
    data = (subject.receipt.get("data") or {}).get("manifest_sha256")
    fingerprint = (subject.receipt.get("start") or {}).get("fingerprint")
    hashes = {"commit": subject.receipt.get("git"), "data manifest": data, "start": fingerprint}
    return {k: v for k, v in entries.items() if v} | {k: str(v)[:16] for k, v in hashes.items() if v}


def _commands(subjects: Sequence[Subject]) -> list[str]:
    commands = []
    for subject in subjects:
        if subject.run:
            commands.append(f"litgpt pretrain --config {shlex.quote(str(subject.folder / 'recipe.yaml'))}")
        for results in (*subject.evaluations.values(), subject.loss or {}):
            if command := results.get("command"):
                commands.append(command if isinstance(command, str) else shlex.join(command))
    return commands


def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("inheritune_lit.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"md": markdown, "breakable": breakable}
    return environment


def breakable(text: str) -> Markup:
    """Text that may go on in the next line after _ / . and the like, for names are long and phones are not."""
    return Markup(re.sub(r"([_/.])(?=\w)", r"\1<wbr>", str(escape(text))))


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a table's cell, too."""
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", " ".join(str(text).split()))
