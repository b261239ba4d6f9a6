"""The settings of `inheritune prepare`, checked against each other and against the input."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inheritune_lit.base.errors import InheritError

if TYPE_CHECKING:
    from inheritune_lit.prepare.listing import Listing, SourceFile
    from inheritune_lit.prepare.sampling import Budget


@dataclass(frozen=True)
class PrepareSettings:
    """Turn text into token shards for inheritune_lit.data.PackedTokens.

    Documents are .txt files, lines of .jsonl, .json and .ndjson files ({"text": ...}), all also .gz, .zst, .bz2, .xz or
    .lz4, and rows of .parquet and .arrow files. What is left out is named. The result, OUT_DIR/DOMAIN/{train,val}/*.ds
    and manifest.json, is the same to the byte on every machine. If the run is interrupted, repeat the command: it
    resumes.

    Args:
        input_dir: The folder of documents, or the URL of one, such as hf://datasets/OWNER/NAME. The hub's is read at
            one commit, which the manifest names; hf://datasets/OWNER/NAME@COMMIT asks for a certain one.
        out_dir: The folder to write. It appears when it is whole.
        tokenizer_dir: A folder with a tokenizer that litGPT reads, such as the checkpoint to be trained.
        budget: Training tokens to take, a random sample of whole documents; by default everything. With another budget
            and the same seed, the larger sample contains the smaller.
        proportions: The share of the budget for each domain, adding up to 1; 0 leaves a domain out.
        domains: Patterns of the paths in INPUT_DIR that make up each domain. By default a top-level subfolder is one.
        named_splits: What is done with files that are named as validation (valid, dev, eval …) or test splits: hold_out
            takes validation's as validation documents and leaves test's out, leave_out leaves both out, mix reads them
            like all others, where the names mean something else. By default they are an error.
        allow_repeat: Take a domain several times if it has too little text for its share of the budget.
        renormalize: Share out among the other domains what a domain lacks of its share, or a missing domain's share.
        val_share: The share of documents held out for validation, from 0 up to 1, chosen by a hash of their text.
        val_glob: Files held out for validation as a whole: a pattern of their path in INPUT_DIR, such as '*hamlet*'.
        seed: Another seed samples and holds out other documents.
        bos: Whether every document begins with the BOS token. By default what the tokenizer's own files say. Every
            document ends with one EOS.
        text_key: The key or column that holds a document's text.
        max_bad_share: The share of documents that may be blank, broken or not UTF-8. They are left out and listed in
            quarantine.jsonl; more of them are an error.
        tasks: Into how many tasks, and so shards per domain, the files are dealt. By default one per file, at most 64.
        workers: How many tasks run at the same time. By default as many as there are cores. More need more memory.
        executor: What runs the tasks: this machine, or a cluster through datatrove; OUT_DIR must then be shared. With
            slurm, a job is submitted; run the same command again when it has ended.
        executor_options: More of datatrove's own arguments for a cluster, such as partition, time and cpus_per_task.
        overwrite: Replace OUT_DIR if it exists, and start over instead of resuming.
        dry_run: Print what would be done, and write nothing.
    """

    input_dir: str
    _: KW_ONLY
    out_dir: Path
    tokenizer_dir: Path
    budget: int | None = None
    proportions: dict[str, float] | None = None
    domains: dict[str, list[str]] | None = None
    named_splits: Literal["hold_out", "leave_out", "mix"] | None = None
    allow_repeat: bool = False
    renormalize: bool = False
    val_share: float = 0.0005
    val_glob: str | None = None
    seed: int = 42
    bos: bool | None = None
    text_key: str = "text"
    max_bad_share: float = 0.001
    tasks: int | None = None
    workers: int | None = None
    executor: Literal["local", "slurm", "ray"] = "local"
    executor_options: dict[str, Any] | None = None
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.val_share < 1:
            raise InheritError(
                f"val_share is {self.val_share}, expected a share of the documents: at least 0 and below 1."
            )
        if not 0 <= self.max_bad_share <= 1:
            raise InheritError(
                f"max_bad_share is {self.max_bad_share}, expected a share of the documents: from 0 to 1."
            )
        for name in ("tasks", "workers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InheritError(f"{name} is {value}, expected at least 1.")

    @property
    def local_dir(self) -> Path | None:
        """The input folder; None where it is a URL."""
        return None if "://" in str(self.input_dir) else Path(self.input_dir).absolute()

    @property
    def split(self) -> dict[str, Any]:
        """What split_of() is told beside the text."""
        return {"seed": self.seed, "val_share": self.val_share}


def hold_out(listing: "Listing", settings: PrepareSettings) -> "list[SourceFile]":
    """The files, those held out that `val_glob` matches.

    Raises:
        InheritError: nothing would be held out, or everything; or files are named as splits and nobody said what to do.
    """
    from inheritune_lit.prepare.formats import named_splits

    val_glob = settings.val_glob
    named = named_splits([file.path for file in listing.files]) if settings.named_splits is None else {}
    if found := [path for path in named if val_glob is None or not fnmatchcase(path, val_glob)]:
        raise InheritError(
            f"{len(found):,} of {len(listing.files):,} files are named as validation or test splits: "
            f"{', '.join(found[:4])}{', …' if len(found) > 4 else ''}. Choose: --named_splits hold_out takes the "
            "validation files as this run's validation documents and leaves the test files out, leave_out leaves both "
            "out, mix reads them like all others."
        )
    files = [
        replace(file, held_out=file.held_out or (val_glob is not None and fnmatchcase(file.path, val_glob)))
        for file in listing.files
    ]
    held_out = sum(file.held_out for file in files)
    if not held_out and not settings.val_share and val_glob is None:
        raise InheritError("val_share is 0 and there is no val_glob: nothing would be held out. Set one of them.")
    if held_out == len(files) or (val_glob is not None and not held_out):
        what = "--named_splits hold_out" if val_glob is None else f"val_glob {val_glob!r}"
        raise InheritError(
            f"{what} matches {held_out} of the {len(files)} files in {settings.input_dir}, such as {files[0].path!r}; "
            "expected some but not all. It is compared with the path within the folder."
        )
    return files


def make_budget(settings: PrepareSettings, found: list[str]) -> "Budget | None":
    """The budget, checked against the domains that were found; None where everything is taken."""
    from inheritune_lit.prepare.sampling import Budget

    proportions, repeat, renormalize = settings.proportions, settings.allow_repeat, settings.renormalize
    if settings.budget is None:
        if proportions or repeat or renormalize:
            raise InheritError(
                "proportions, allow_repeat and renormalize are about a budget of tokens: set budget too."
            )
        if missing := [domain for domain in settings.domains or {} if domain not in found]:
            raise InheritError(f"No file matches the patterns of the domain {', '.join(missing)}. Mend or remove them.")
        return None
    if settings.budget < 1:
        raise InheritError(f"budget is {settings.budget}, expected at least 1 token.")
    if proportions is None and len(found) == 1:
        proportions = {found[0]: 1.0}
    if proportions is None or set(found) - set(proportions):
        raise InheritError(
            f"proportions has {', '.join(proportions or {}) or 'no domains'}, the input has {', '.join(found)}. Give "
            "each domain its share of the budget; 0 leaves it out."
        )
    if min(proportions.values()) < 0 or abs(sum(proportions.values()) - 1) > 1e-6:
        raise InheritError(f"proportions add up to {sum(proportions.values()):g}, expected shares that add up to 1.")
    budget = Budget(settings.budget, {d: share for d, share in proportions.items() if share}, repeat, renormalize)
    present = {domain: None if domain in found else 0 for domain in budget.proportions}
    budget.check(budget.wanted(present), present)
    return budget


def command(settings: PrepareSettings, plan: Mapping[str, Any]) -> str:
    """The command that makes these bytes: all that they depend on is spelt out, the rest left out."""
    flags: dict[str, Any] = {"out_dir": settings.out_dir, "tokenizer_dir": settings.tokenizer_dir}
    flags |= {"bos": str(plan["tokenizer"]["bos"]).lower()}
    names = ("budget", "proportions", "domains", "named_splits", "allow_repeat", "renormalize", "text_key")
    for name in (*names, "val_share", "val_glob", "seed", "tasks"):
        if (value := plan.get(name)) is not None:
            flags[name] = json.dumps(value) if isinstance(value, dict | bool) else value
    words = (f"--{name}={value}" for name, value in flags.items())
    return shlex.join(["inheritune", "prepare", settings.input_dir, *words])
