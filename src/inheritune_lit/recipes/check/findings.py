"""What `inheritune recipes validate` reports, and how it reads."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from inheritune_lit.base.yaml_document import Document

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing about a recipe.

    An error is refused by litGPT, or done otherwise than written in silence; a warning runs as written, but hardly as
    meant; a note could not be checked here.
    """

    severity: Severity
    key: str
    """Dotted, as in the file"""
    problem: str
    fix: str
    elsewhere: bool = False
    """About a folder that is not on this machine, but may be on the one where the recipe is to run"""


error, warning, note = (partial(Finding, severity) for severity in SEVERITIES)


def report(path: Path, findings: Sequence[Finding], document: Document | None = None) -> str:
    """All findings, the worst first, each with its key, its line, what is wrong and what to do."""
    counts = {severity: sum(f.severity == severity for f in findings) for severity in SEVERITIES}
    listed = [f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts.items() if count]
    lines = [f"{path}: {', '.join(listed) or 'nothing found'}"]
    for finding in sorted(findings, key=lambda f: SEVERITIES.index(f.severity)):
        line = document.lines.get(finding.key) if document else None
        where = f" (line {line})" if line else ""
        lines += ["", f"{finding.severity:<8} {finding.key}{where}"]
        lines += [_wrapped(finding.problem, ""), _wrapped(finding.fix, "→ ")]
    return "\n".join(lines)


def _wrapped(text: str, mark: str) -> str:
    indent = " " * 9
    after = indent + " " * len(mark)
    return textwrap.fill(text, 120, initial_indent=indent + mark, subsequent_indent=after, break_on_hyphens=False)
