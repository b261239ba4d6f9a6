"""Numbers that the method's authors published, as data files with their source, for reports to stand beside.

Neither torch nor litGPT is imported here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from inheritune_lit.base.errors import InheritError

SCORE_TABLES = ("low_data", "fineweb_edu")
LOSS_TABLES = ("gpt2_losses",)


@dataclass(frozen=True)
class Task:
    """A column of a table of scores."""

    title: str
    metric: str
    """As lm-eval names it"""
    num_fewshot: int
    questions: int
    """In the split that it is scored on"""
    chance: float | None
    """Per cent that uniform guesses score; None where that is no number of the format"""
    constant: float | None = None
    """Per cent that always giving the commonest answer scores, where answers have fixed names"""
    is_count: bool = True
    """Whether the metric counts right answers, so that its standard error follows from the score"""


@dataclass(frozen=True)
class Model:
    """A row of a table of scores, in per cent as printed."""

    name: str
    role: str
    """reference, baseline (a public model) or paper (the authors' own)"""
    scores: Mapping[str, float]
    reference: str | None = None
    """The model that its blocks come from"""
    tokens: int | None = None
    """It was trained on, beyond its reference"""
    mean: float | None = None


@dataclass(frozen=True)
class BoldRule:
    share_of_reference: float
    baselines_beaten: int


@dataclass(frozen=True)
class Scores:
    """A published table of evaluation scores."""

    title: str
    source: str
    harness: str
    tasks: Mapping[str, Task]
    models: tuple[Model, ...]
    bold: BoldRule | None = None

    def of_role(self, role: str) -> list[Model]:
        return [model for model in self.models if model.role == role]


@dataclass(frozen=True)
class LossRun:
    """One run's final validation loss."""

    data: str
    size: str
    blocks: int | None
    """None where the authors don't say"""
    start: str
    steps: int
    loss: float
    """Nats per token"""
    log: str
    """Whose last line it is"""


@dataclass(frozen=True)
class Losses:
    """A published table of validation losses."""

    title: str
    source: str
    note: str
    runs: tuple[LossRun, ...]


@cache
def read(name: str) -> dict[str, Any]:
    """The content of a published data file.

    Raises:
        InheritError: there is none of that name.
    """
    import yaml

    known = (*SCORE_TABLES, *LOSS_TABLES)
    if name not in known:
        raise InheritError(f"No published table is named {name!r}. There are {', '.join(known)}.")
    content: dict[str, Any] = yaml.safe_load((files(__package__) / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


@cache
def scores(name: str) -> Scores:
    """A table of evaluation scores: one of SCORE_TABLES."""
    content = read(name)
    return Scores(
        **{key: content[key] for key in ("title", "source", "harness")},
        tasks={task: Task(**settings) for task, settings in content["tasks"].items()},
        models=tuple(Model(**model) for model in content["models"]),
        bold=BoldRule(**content["bold"]) if "bold" in content else None,
    )


@cache
def losses(name: str) -> Losses:
    """A table of validation losses: one of LOSS_TABLES."""
    content = read(name)
    runs = tuple(LossRun(**run) for run in content["runs"])
    return Losses(content["title"], content["source"], content["note"], runs)
