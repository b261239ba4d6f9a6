"""`inheritune prepare`: text → token shards and their manifest, on all cores.

Importing this module imports none of the heavy libraries: `--help` answers at once.
"""

import shutil
from dataclasses import asdict, replace
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import __version__
from inheritune_lit.base.differences import differences
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, write_json_whole
from inheritune_lit.base.folders import refuse_to_replace, staging
from inheritune_lit.data.manifest import FORMAT, MANIFEST, TOKEN_BYTES, Manifest, plan_of
from inheritune_lit.prepare.settings import PrepareSettings, command, hold_out, make_budget

if TYPE_CHECKING:
    from inheritune_lit.prepare.listing import LeftOut
    from inheritune_lit.prepare.passes import Job
    from inheritune_lit.prepare.sampling import Budget

WORK = ".work"  # logs, markers and records, inside the staging folder while it is being filled
PLAN = "plan.json"
# Settings that decide only what is made of the tasks' work: an interrupted run may go on with others.
LATE = ("allow_repeat", "renormalize")


@wraps(PrepareSettings)
def prepare(*args: Any, **options: Any) -> None:
    settings = PrepareSettings(*args, **options)
    refuse_to_replace(settings.out_dir, settings.tokenizer_dir, *filter(None, [settings.local_dir]))
    from inheritune_lit.data.encoding import open_tokenizer
    from inheritune_lit.prepare.cluster import Submitted
    from inheritune_lit.prepare.listing import LeftOut, list_files, pinned
    from inheritune_lit.prepare.manifest_writer import print_table
    from inheritune_lit.prepare.passes import Job

    input_dir, revision = pinned(settings.input_dir)
    settings = replace(settings, input_dir=input_dir)
    listing = list_files(input_dir, settings.domains, settings.named_splits)
    files, left_out = hold_out(listing, settings), listing.left_out
    budget = make_budget(settings, sorted({file.domain for file in files}))
    if budget is not None:
        without = [file for file in files if file.domain not in budget.proportions]
        left_out = [*left_out, *(LeftOut(file.path, file.size, "its domain's share is 0") for file in without)]
        files = [file for file in files if file.domain in budget.proportions]
    encoder, tokenizer = open_tokenizer(settings.tokenizer_dir, settings.bos)
    job = Job(settings, files, encoder)
    plan = {"format": FORMAT, "tokenizer": tokenizer, "dtype": encoder.dtype, **settings.split}
    plan |= {"val_glob": settings.val_glob, "tasks": job.tasks} | ({"revision": revision} if revision else {})
    for name in ("domains", "budget", "proportions", "named_splits", "text_key", "allow_repeat", "renormalize"):
        if (value := getattr(settings, name)) not in (None, False, "text"):
            plan[name] = value
    plan |= {"files": {file.path: file.size for file in files}}
    if settings.dry_run:
        _describe(plan, job, budget, left_out)
        return
    if not settings.overwrite and (settings.out_dir / MANIFEST).is_file():
        _describe_done(settings.out_dir, plan)
        return
    try:
        with staging(settings.out_dir, overwrite=settings.overwrite, resume=True) as folder:
            if _start_or_resume(folder, plan, settings.overwrite):
                _fill(folder, job, budget, plan, [asdict(file) for file in left_out])
            shutil.rmtree(folder / WORK, ignore_errors=True)
    except Submitted as submitted:
        print(submitted)
        return
    print_table(Manifest(settings.out_dir))


def _refuse_changes(before: dict[str, Any], now: dict[str, Any], what: str) -> None:
    if lines := differences(before, now):
        remedy = "Give the same settings and files again, choose another --out_dir, or start over with --overwrite."
        raise InheritError.listing(what, lines, remedy, most=8)


def _start_or_resume(folder: Path, plan: dict[str, Any], overwrite: bool) -> bool:
    """Makes the staging folder ready; returns whether there is anything left to do in it.

    manifest.json appears in it in one rename and after everything else, so that a run which was killed just before the
    folder's own rename is known to be whole.
    """
    early = {name: value for name, value in plan.items() if name not in LATE}
    if not overwrite and (folder / MANIFEST).is_file():
        before, now = plan_of(read_json(folder / MANIFEST, "manifest")), plan
    elif not overwrite and (folder / WORK / PLAN).is_file():
        before, now = read_json(folder / WORK / PLAN, "plan of the interrupted run"), early
    else:
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (folder / WORK).mkdir()
        write_json_whole(folder / WORK / PLAN, early)
        return True
    _refuse_changes(before, now, f"An interrupted run left {folder}, begun otherwise")
    return not (folder / MANIFEST).is_file()


def _fill(
    folder: Path, job: "Job", budget: "Budget | None", plan: dict[str, Any], left_out: list[dict[str, Any]]
) -> None:
    """Runs what is left to do, and writes the manifest."""
    from inheritune_lit.prepare.manifest_writer import check_quarantine, write_manifest
    from inheritune_lit.prepare.passes import sample

    work = folder / WORK
    records, sampling = sample(job, folder, work, budget) if budget else (job.tokenize(folder, work), None)
    content = {name: value for name, value in plan.items() if name != "files"} | {
        "command": command(job.settings, plan),
        "versions": {"inheritune_lit": __version__}
        | {name: version(name) for name in ("datatrove", "tokenizers", "sentencepiece")},
        "quarantine": check_quarantine(folder, records, job.settings.max_bad_share),
    }
    content |= {"sampling": sampling} if sampling else {}
    write_manifest(folder, content, records, left_out, {file.domain for file in job.files})


def _describe(plan: dict[str, Any], job: "Job", budget: "Budget | None", left_out: "list[LeftOut]") -> None:
    from inheritune_lit.prepare.listing import summary

    total = sum(file.size for file in job.files)
    print(f"{len(job.files):,} files, {total:,} bytes in {job.settings.input_dir}, {job.tasks} tasks")
    wanted = budget.wanted(dict.fromkeys(budget.proportions)) if budget else {}
    for domain in sorted({file.domain for file in job.files}):
        sizes = [file.size for file in job.files if file.domain == domain]
        share = f", {wanted[domain]:,} tokens wanted" if budget else ""
        print(f"  {domain}: {len(sizes):,} files, {sum(sizes):,} bytes{share}")
    if held_out := [file for file in job.files if file.held_out]:
        print(f"  held out whole: {len(held_out):,} files, {sum(file.size for file in held_out):,} bytes")
    print("\n".join(f"left out: {line}" for line in summary(left_out)) or "left out: no file")
    tokenizer = plan["tokenizer"]
    print(
        f"{tokenizer['file']}: {tokenizer['vocab_size']:,} ids, {8 * TOKEN_BYTES[plan['dtype']]} bits a token, "
        f"{'BOS ' + str(tokenizer['bos_id']) if tokenizer['bos'] else 'no BOS'}, EOS {tokenizer['eos_id']} "
        f"({job.encoder.special[tokenizer['eos_id']]})"
    )


def _describe_done(out_dir: Path, plan: dict[str, Any]) -> None:
    from inheritune_lit.prepare.manifest_writer import print_table

    done = Manifest(out_dir)
    _refuse_changes(plan_of(done.content), plan, f"{out_dir} was made otherwise")
    done.check_files()
    print(f"{out_dir} is whole already, made from the same files with the same settings.")
    print_table(done)
