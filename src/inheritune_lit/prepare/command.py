"""`inheritune prepare`: text → token shards and their manifest, on all cores.

Importing this module imports none of the heavy libraries: `--help` answers at once.
"""

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inheritune_lit import __version__
from inheritune_lit.base.differences import differences
from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, write_json_whole
from inheritune_lit.base.folders import refuse_to_replace, staging
from inheritune_lit.data.manifest import FORMAT, MANIFEST, TOKEN_BYTES, Manifest, plan_of
from inheritune_lit.prepare.settings import check_numbers, command, hold_out, make_budget

if TYPE_CHECKING:
    from inheritune_lit.prepare.listing import LeftOut
    from inheritune_lit.prepare.passes import Job
    from inheritune_lit.prepare.sampling import Budget

MAX_TASKS = 64  # by default; a number that does not depend on the machine, as it decides which shard a file goes to
WORK = ".work"  # logs, markers and records, inside the staging folder while it is being filled
PLAN = "plan.json"
# Settings that decide only what is made of the tasks' work: an interrupted run may go on with others.
LATE = ("allow_repeat", "renormalize")


def prepare(
    input_dir: str,
    *,
    out_dir: Path,
    tokenizer_dir: Path,
    budget: int | None = None,
    proportions: dict[str, float] | None = None,
    domains: dict[str, list[str]] | None = None,
    named_splits: Literal["hold_out", "leave_out", "mix"] | None = None,
    allow_repeat: bool = False,
    renormalize: bool = False,
    val_share: float = 0.0005,
    val_glob: str | None = None,
    seed: int = 42,
    bos: bool | None = None,
    text_key: str = "text",
    max_bad_share: float = 0.001,
    tasks: int | None = None,
    workers: int | None = None,
    executor: Literal["local", "slurm", "ray"] = "local",
    executor_options: dict[str, Any] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Turn text into token shards for inheritune_lit.data.PackedTokens.

    Documents are .txt files, lines of .jsonl, .json and .ndjson files ({"text": ...}), all also .gz, .zst, .bz2, .xz or
    .lz4, and rows of .parquet and .arrow files. What is left out is named. The result,
    OUT_DIR/DOMAIN/{train,val}/*.ds and manifest.json, is the same to the byte on every
    machine. An interrupted run goes on where it was when the same command is given again.

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
    out_dir, tokenizer_dir = Path(out_dir), Path(tokenizer_dir)
    check_numbers(val_share, tasks, workers, max_bad_share)
    refuse_to_replace(out_dir, tokenizer_dir, *([] if "://" in str(input_dir) else [Path(input_dir)]))
    from inheritune_lit.data.encoding import open_tokenizer
    from inheritune_lit.prepare.cluster import Submitted
    from inheritune_lit.prepare.listing import LeftOut, entries, list_files, pinned
    from inheritune_lit.prepare.passes import Job

    input_dir, revision = pinned(input_dir)
    listing = list_files(input_dir, domains, named_splits)
    files, left_out = hold_out(listing, val_share, val_glob, named_splits, input_dir), listing.left_out
    wanted = make_budget(budget, proportions, files, domains, allow_repeat, renormalize)
    if wanted is not None:
        without = [file for file in files if file.domain not in wanted.proportions]
        left_out = [*left_out, *(LeftOut(file.path, file.size, "its domain's share is 0") for file in without)]
        files = [file for file in files if file.domain in wanted.proportions]
    encoder, tokenizer = open_tokenizer(tokenizer_dir, bos)
    split: dict[str, Any] = {"seed": seed, "val_share": val_share}
    job = Job(
        str(input_dir) if "://" in str(input_dir) else str(Path(input_dir).absolute()),
        *(files, text_key, encoder, split, tasks or min(len(files), MAX_TASKS), workers),
        *(executor, executor_options or {}),
    )
    settings = {"revision": revision, "domains": domains, "budget": budget, "proportions": proportions}
    settings |= {"named_splits": named_splits, "text_key": None if text_key == "text" else text_key}
    settings |= {"allow_repeat": allow_repeat or None, "renormalize": renormalize or None}
    plan = {"format": FORMAT, "tokenizer": tokenizer, "dtype": encoder.dtype, **split, "val_glob": val_glob}
    plan |= {"tasks": job.tasks, **{name: value for name, value in settings.items() if value is not None}}
    plan |= {"files": {file.path: file.size for file in files}}
    if dry_run:
        _describe(plan, job, wanted, left_out)
        if executor == "slurm":
            _show_script(job, out_dir, wanted is not None)
        return
    if not overwrite and (out_dir / MANIFEST).is_file():
        _describe_done(out_dir, plan)
        return
    try:
        with staging(out_dir, overwrite=overwrite, resume=True) as folder:
            if _start_or_resume(folder, plan, overwrite):
                more = {"command": command(input_dir, out_dir, tokenizer_dir, plan), "left_out": entries(left_out)}
                _fill(folder, job, wanted, max_bad_share, plan, more)
            shutil.rmtree(folder / WORK, ignore_errors=True)
    except Submitted as submitted:
        print(submitted)
        return
    _print_table(out_dir)


def _refuse_changes(before: dict[str, Any], now: dict[str, Any], what: str) -> None:
    if lines := differences(before, now):
        shown = [*lines[:8], *([f"and {len(lines) - 8} more"] if len(lines) > 8 else [])]
        raise InheritError(
            "\n  ".join([f"{what}:", *shown])
            + "\nGive the same settings and files again, choose another --out_dir, or start over with --overwrite."
        )


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
    folder: Path, job: "Job", budget: "Budget | None", max_bad_share: float, plan: dict[str, Any], more: dict[str, Any]
) -> None:
    """Runs what is left to do, and writes the manifest."""
    from inheritune_lit.prepare.manifest_writer import check_quarantine, read_records, write_manifest
    from inheritune_lit.prepare.passes import sample

    work, sampling = folder / WORK, None
    if budget is None:
        records = read_records(job.tokenize(folder, work), job.tasks)
    else:
        where, sampling = sample(job, folder, work, budget)
        records = read_records(where, job.tasks)
    content = {name: value for name, value in plan.items() if name != "files"} | {
        "command": more["command"],
        "versions": {"inheritune_lit": __version__}
        | {name: version(name) for name in ("datatrove", "tokenizers", "sentencepiece")},
        "quarantine": check_quarantine(folder, records, max_bad_share),
    }
    domains = {file.domain for file in job.files}
    content |= {"sampling": sampling} if sampling else {}
    write_manifest(folder, work, content, records, more["left_out"], domains)


def _describe(plan: dict[str, Any], job: "Job", budget: "Budget | None", left_out: "list[LeftOut]") -> None:
    from inheritune_lit.prepare.listing import summary

    total = sum(file.size for file in job.files)
    print(f"{len(job.files):,} files, {total:,} bytes in {job.input_dir}, {job.tasks} tasks")
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


def _show_script(job: "Job", out_dir: Path, sampled: bool) -> None:
    from inheritune_lit.prepare.cluster import make_executor, slurm_script

    folder = (Path.cwd() / out_dir).with_name(f".{out_dir.name}.staging")
    work = folder / WORK / "pass1" if sampled else folder / WORK
    executor = make_executor("slurm", [], job.tasks, job.workers, work, job.options)
    print(f"The Slurm script:\n\n{slurm_script(executor, work)}")


def _describe_done(out_dir: Path, plan: dict[str, Any]) -> None:
    done = Manifest(out_dir)
    _refuse_changes(plan_of(done.content), plan, f"{out_dir} was made otherwise")
    done.check_files()
    print(f"{out_dir} is whole already, made from the same files with the same settings.")
    _print_table(out_dir)


def _print_table(out_dir: Path) -> None:
    from inheritune_lit.prepare.manifest_writer import print_table

    print_table(Manifest(out_dir))
