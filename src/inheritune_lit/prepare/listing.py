"""What lies in an input folder: the files of documents, each in a domain, and what is left out, with the reason."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Literal

from datatrove.io import DataFolder, get_datafolder

from inheritune_lit.base.errors import InheritError
from inheritune_lit.prepare.formats import (
    ARROW,
    EXPECTED,
    HARMLESS,
    SPLITS,
    STATE,
    named_splits,
    reason_to_leave_out,
)

HUB = "hf://"

Splits = Literal["hold_out", "leave_out", "mix"]


@dataclass(frozen=True)
class SourceFile:
    """A file of documents: its path in the input folder, its size in bytes, its domain, and whether all is for val."""

    path: str
    size: int
    domain: str
    held_out: bool = False


@dataclass(frozen=True)
class LeftOut:
    """A file that is not read, and why."""

    path: str
    size: int
    why: str


@dataclass(frozen=True)
class Listing:
    """Every file of an input folder, each in one of the two, sorted by path."""

    files: list[SourceFile]
    left_out: list[LeftOut]


def pinned(input_dir: str | Path) -> tuple[str, str | None]:
    """The Hugging Face hub's URL at the commit that it means now, and that commit: a name there may mean another later.

    Anything else is returned as it is, without a commit.

    Raises:
        InheritError: the hub can't be reached, or has no such repository.
    """
    if not str(input_dir).startswith(HUB):
        return str(input_dir), None
    from huggingface_hub import HfApi, HfFileSystem

    hub = HfFileSystem()
    try:
        place = hub.resolve_path(str(input_dir))
        found = HfApi(endpoint=hub.endpoint).repo_info(
            place.repo_id, repo_type=place.repo_type, revision=place.revision
        )
    except OSError as error:  # all of huggingface_hub's and requests' are one
        raise InheritError(f"Can't find out which commit {input_dir} is at: {error}") from error
    commit = str(found.sha)
    return HUB + replace(place, revision=commit, _raw_revision=None).unresolve(), commit


def list_files(
    input_dir: str | Path, domains: Mapping[str, Sequence[str]] | None = None, splits: Splits | None = None
) -> Listing:
    """Every file under a folder, to be read or left out.

    Args:
        input_dir: A folder, or the URL of one, such as hf://datasets/OWNER/NAME.
        domains: The patterns of each domain's files; by default a top-level subfolder is a domain.
        splits: What is done with files that are named as a validation or test split; see `prepare`.

    Raises:
        InheritError: there is no such folder, nothing in it to read, or nothing of a domain; a link to a folder; a file
            matches no domain; files are named as validation or test splits, and `splits` does not say what to do.
    """
    for domain in domains or {}:
        if Path(domain).name != domain or domain.startswith(".") or not domain:
            raise InheritError(f"{domain!r} is no name for a domain: it becomes a folder's, so no /, and no . first.")
    folder = get_datafolder(str(input_dir))
    if not folder.isdir(""):
        raise InheritError(f"{input_dir} is not a folder. Give a folder of {EXPECTED}.")
    own_name = Path(folder.path).resolve().name or "text"
    if str(input_dir).startswith(HUB):
        own_name = own_name.partition("@")[0]
    sizes = dict(_sizes(folder, input_dir))
    reasons = {path: reason_to_leave_out(path) for path in sizes} | _not_listed(folder, sizes)
    named = {} if splits in (None, "mix") else named_splits([path for path, why in reasons.items() if why is None])
    files, left_out = [], []
    for path, size in sizes.items():
        why = reasons[path]
        if why is None and splits and (split := named.get(path)) and (splits, split) != ("hold_out", "validation"):
            why = f"named as a {split} split"
        if why is not None:
            left_out.append(LeftOut(path, size, why))
            continue
        domain = _domain_of(path, own_name, domains, splits != "mix")
        files.append(SourceFile(path, size, domain, path in named and splits == "hold_out"))
    if not files:
        raise InheritError(f"No documents under {input_dir}: expected files named {EXPECTED}.{_shown(left_out)}")
    _check_domains(files, left_out, domains)
    return Listing(files, left_out)


def _sizes(folder: DataFolder, input_dir: str | Path) -> Iterator[tuple[str, int]]:
    for path, info in sorted(folder.find("", detail=True).items()):
        hidden = any(part.startswith(".") for part in PurePath(path).parts)
        if info.get("islink") and not hidden and not folder.isfile(path):  # fsspec follows links to files only
            what = "a folder, which is not followed" if folder.isdir(path) else "nothing that is there"
            raise InheritError(
                f"{input_dir}: {path} is a link to {what}: {info['destination']}. Mount or copy it there, or remove it."
            )
        yield path, info["size"]


def _not_listed(folder: DataFolder, sizes: Mapping[str, int]) -> dict[str, str]:
    """The Arrow files beside a state.json, of Hugging Face's `save_to_disk`, that it does not list."""
    found: dict[str, str] = {}
    for state in (path for path in sizes if PurePath(path).name == STATE):
        parent = PurePath(state).parent
        beside = [path for path in sizes if PurePath(path).parent == parent and path.lower().endswith(ARROW)]
        try:
            with folder.open(state, "rb") as file:
                listed = {str(parent / entry["filename"]) for entry in json.load(file)["_data_files"]}
        except (TypeError, KeyError, ValueError):
            continue  # another program's
        if missing := sorted(listed - sizes.keys()):
            raise InheritError(f"{state} lists {', '.join(missing)}, which is not there. Copy the data set again.")
        found |= {path: f"not listed in {STATE}" for path in beside if path not in listed}
    return found


def _domain_of(path: str, own_name: str, domains: Mapping[str, Sequence[str]] | None, splits: bool) -> str:
    if domains is None:
        folders = PurePath(path).parts[:-1]
        if splits:  # one that is named as a split is no domain
            folders = tuple(part for part in folders if part.lower() not in SPLITS)
        return folders[0] if folders else own_name
    for domain, patterns in domains.items():
        if _matches(path, patterns):
            return domain
    raise InheritError(
        f"{path!r} matches the patterns of none of the domains {', '.join(domains)}. Move it or add one."
    )


def _check_domains(
    files: Sequence[SourceFile], left_out: Sequence[LeftOut], domains: Mapping[str, Sequence[str]] | None
) -> None:
    """A domain all of whose files are left out would vanish.

    Raises:
        InheritError: naming each, with its files.
    """
    read = {file.domain for file in files} | {PurePath(file.path).parts[0] for file in files}
    lost = dict[str, list[LeftOut]]()
    for file in left_out:
        if file.why in HARMLESS or file.why.startswith("named as"):
            continue
        names = PurePath(file.path).parts[:-1]
        if domains is not None:
            names = tuple(name for name, patterns in domains.items() if _matches(file.path, patterns))
        if names and names[0] not in read:
            lost.setdefault(names[0], []).append(file)
    for name, gone in lost.items():
        raise InheritError(
            f"Nothing of the domain {name!r} would be read: its files are left out.{_shown(gone)}\nExpected "
            f"{EXPECTED}. Unpack, rename or convert them, or move them out of the folder."
        )


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def summary(left_out: Sequence[LeftOut]) -> list[str]:
    """One line for each reason, with the number of files, their bytes and the first of them."""
    reasons = sorted({file.why for file in left_out})
    groups = [[file for file in left_out if file.why == why] for why in reasons]
    return [
        f"{len(group):,} {'file' if len(group) == 1 else 'files'}, {sum(file.size for file in group):,} bytes: "
        f"{why} ({group[0].path.encode(errors='backslashreplace').decode()}{', …' if len(group) > 1 else ''})"
        for why, group in zip(reasons, groups, strict=True)
    ]


def _shown(left_out: Sequence[LeftOut]) -> str:
    return "".join(f"\n  {line}" for line in summary(left_out))
