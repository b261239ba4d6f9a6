"""The settings of `inheritune prepare`, checked against each other and against the input."""

import json
import shlex
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit.base.errors import InheritError

if TYPE_CHECKING:
    from inheritune_lit.prepare.listing import Listing, SourceFile, Splits
    from inheritune_lit.prepare.sampling import Budget


def check_numbers(val_share: float, tasks: int | None, workers: int | None, max_bad_share: float) -> None:
    if not 0 <= val_share < 1:
        raise InheritError(f"val_share is {val_share}, expected a share of the documents: at least 0 and below 1.")
    if not 0 <= max_bad_share <= 1:
        raise InheritError(f"max_bad_share is {max_bad_share}, expected a share of the documents: from 0 to 1.")
    for name, value in (("tasks", tasks), ("workers", workers)):
        if value is not None and value < 1:
            raise InheritError(f"{name} is {value}, expected at least 1.")


def hold_out(
    listing: "Listing", val_share: float, val_glob: str | None, splits: "Splits | None", input_dir: str
) -> "list[SourceFile]":
    """The files, those held out that `val_glob` matches.

    Raises:
        InheritError: nothing would be held out, or everything; or files are named as splits and nobody said what to do.
    """
    from inheritune_lit.prepare.listing import check_splits

    check_splits(listing, splits, val_glob)
    files = [
        replace(file, held_out=file.held_out or (val_glob is not None and fnmatchcase(file.path, val_glob)))
        for file in listing.files
    ]
    held_out = sum(file.held_out for file in files)
    if not held_out and not val_share and val_glob is None:
        raise InheritError("val_share is 0 and there is no val_glob: nothing would be held out. Set one of them.")
    if held_out == len(files) or (val_glob is not None and not held_out):
        what = "--named_splits hold_out" if val_glob is None else f"val_glob {val_glob!r}"
        raise InheritError(
            f"{what} matches {held_out} of the {len(files)} files in {input_dir}, such as {files[0].path!r}; expected "
            "some but not all. It is compared with the path within the folder."
        )
    return files


def make_budget(
    tokens: int | None,
    proportions: dict[str, float] | None,
    files: "list[SourceFile]",
    domains: dict[str, list[str]] | None,
    allow_repeat: bool,
    renormalize: bool,
) -> "Budget | None":
    """The budget, checked against the domains that there are."""
    from inheritune_lit.prepare.sampling import Budget

    found = sorted({file.domain for file in files})
    if tokens is None:
        if proportions or allow_repeat or renormalize:
            raise InheritError(
                "proportions, allow_repeat and renormalize are about a budget of tokens: set budget too."
            )
        if missing := [domain for domain in domains or {} if domain not in found]:
            raise InheritError(f"No file matches the patterns of the domain {', '.join(missing)}. Mend or remove them.")
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
    names = ("budget", "proportions", "domains", "named_splits", "allow_repeat", "renormalize", "text_key")
    for name in (*names, "val_share", "val_glob", "seed", "tasks"):
        if (value := plan.get(name)) is not None:
            flags[name] = json.dumps(value) if isinstance(value, dict | bool) else value
    return shlex.join(
        ["inheritune", "prepare", str(input_dir), *(f"--{name}={value}" for name, value in flags.items())]
    )
