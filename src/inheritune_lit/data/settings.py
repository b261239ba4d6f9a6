"""The settings of `inheritune prepare`, checked against each other and against the input."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.commit import InheritError

if TYPE_CHECKING:
    from inheritune_lit.data.sampling import Budget
    from inheritune_lit.data.sources import SourceFile


def check_numbers(val_share: float, tasks: int | None, workers: int | None, max_bad_share: float) -> None:
    if not 0 <= val_share < 1:
        raise InheritError(f"val_share is {val_share}, expected a share of the documents: at least 0 and below 1.")
    if not 0 <= max_bad_share <= 1:
        raise InheritError(f"max_bad_share is {max_bad_share}, expected a share of the documents: from 0 to 1.")
    for name, value in (("tasks", tasks), ("workers", workers)):
        if value is not None and value < 1:
            raise InheritError(f"{name} is {value}, expected at least 1.")


def check_split(val_share: float, val_glob: str | None, input_dir: str, files: "list[SourceFile]") -> None:
    from fnmatch import fnmatchcase

    if val_glob is None:
        if val_share == 0:
            raise InheritError("val_share is 0 and there is no val_glob: nothing would be held out. Set one of them.")
        return
    matched = sum(fnmatchcase(file.path, val_glob) for file in files)
    if matched in (0, len(files)):
        raise InheritError(
            f"val_glob {val_glob!r} matches {matched} of the {len(files)} files in {input_dir}, such as "
            f"{files[0].path!r}; expected some but not all. It is compared with the path within the folder."
        )


def make_budget(
    tokens: int | None,
    proportions: dict[str, float] | None,
    files: "list[SourceFile]",
    allow_repeat: bool,
    renormalize: bool,
) -> "Budget | None":
    """The budget, checked against the domains that there are."""
    from inheritune_lit.data.sampling import Budget

    found = sorted({file.domain for file in files})
    if tokens is None:
        if proportions or allow_repeat or renormalize:
            raise InheritError(
                "proportions, allow_repeat and renormalize are about a budget of tokens: set budget too."
            )
        return None
    if tokens < 1:
        raise InheritError(f"budget is {tokens}, expected at least 1 token.")
    if proportions is None and len(found) == 1:
        proportions = {found[0]: 1.0}
    if proportions is None or set(found) - set(proportions):
        raise InheritError(
            f"proportions has {', '.join(proportions or {}) or 'no domains'}, the input has {', '.join(found)}. Give "
            "each domain its share of the budget; 0 leaves it out."
        )
    if min(proportions.values()) < 0 or abs(sum(proportions.values()) - 1) > 1e-6:
        raise InheritError(f"proportions add up to {sum(proportions.values()):g}, expected shares that add up to 1.")
    wanted = Budget(tokens, {d: share for d, share in proportions.items() if share}, allow_repeat, renormalize)
    present = {domain: None if domain in found else 0 for domain in wanted.proportions}
    wanted.check(wanted.wanted(present), present)
    return wanted


def command(input_dir: str, out_dir: Path, tokenizer_dir: Path, plan: dict[str, Any]) -> str:
    """The command that makes these bytes: all that they depend on is spelt out, the rest left out."""
    flags = {"out_dir": out_dir, "tokenizer_dir": tokenizer_dir, "bos": str(plan["tokenizer"]["bos"]).lower()}
    names = ("budget", "proportions", "domains", "allow_repeat", "renormalize", "text_key")
    for name in (*names, "val_share", "val_glob", "seed", "tasks"):
        if (value := plan.get(name)) is not None:
            flags[name] = json.dumps(value) if isinstance(value, dict | bool) else value
    return shlex.join(
        ["inheritune", "prepare", str(input_dir), *(f"--{name}={value}" for name, value in flags.items())]
    )
