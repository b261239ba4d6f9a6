"""`inheritune prepare`: a folder of text → token shards and their manifest, on all cores.

Importing this module imports none of the heavy libraries: `--help` answers at once.
"""

import shlex
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inheritune_lit import __version__
from inheritune_lit.commit import InheritError, read_json, staging, write_json
from inheritune_lit.data.manifest import FORMAT, MANIFEST, TOKEN_BYTES, Manifest, differences, plan_of

if TYPE_CHECKING:
    from inheritune_lit.data.encoding import Encoder
    from inheritune_lit.data.sources import SourceFile

MAX_TASKS = 64  # by default; a number that does not depend on the machine, as it decides which shard a file goes to
WORK = ".work"  # logs, markers and records, inside the staging folder while it is being filled
PLAN = "plan.json"


def prepare(
    input_dir: Path,
    *,
    out_dir: Path,
    tokenizer_dir: Path,
    val_share: float = 0.0005,
    val_glob: str | None = None,
    seed: int = 42,
    bos: bool | None = None,
    tasks: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Turn a folder of text into token shards for inheritune_lit.data.PackedTokens.

    Documents are .txt files and lines of .jsonl files ({"text": ...}), both also .gz or .zst. A top-level subfolder is
    a domain. The result, OUT_DIR/DOMAIN/{train,val}/*.ds and manifest.json, is the same to the byte on every machine.
    An interrupted run goes on where it was when the same command is given again.

    Args:
        input_dir: The folder of documents.
        out_dir: The folder to write. It appears when it is whole.
        tokenizer_dir: A folder with a tokenizer that litGPT reads, such as the checkpoint to be trained.
        val_share: The share of documents held out for validation, from 0 up to 1, chosen by a hash of their text.
        val_glob: Files held out for validation as a whole: a pattern of their path in INPUT_DIR, such as '*hamlet*'.
        seed: Another seed holds out other documents.
        bos: Whether every document begins with the BOS token. By default litGPT's own rule for this tokenizer. Every
            document ends with EOS.
        tasks: Into how many tasks, and so shards per domain, the files are dealt. By default one per file, at most 64.
        workers: How many tasks run at the same time. By default as many as there are cores. More need more memory.
        overwrite: Replace OUT_DIR if it exists, and start over instead of resuming.
        dry_run: Print what would be done, and write nothing.
    """
    input_dir, out_dir, tokenizer_dir = Path(input_dir), Path(out_dir), Path(tokenizer_dir)
    _check_numbers(val_share, tasks, workers)
    from inheritune_lit.data.encoding import open_tokenizer
    from inheritune_lit.data.executor import cores
    from inheritune_lit.data.sources import list_files

    files = list_files(input_dir)
    if val_glob is not None:
        _check_glob(val_glob, input_dir, files)
    elif val_share == 0:
        raise InheritError("val_share is 0 and there is no val_glob: nothing would be held out. Set one of them.")
    encoder, tokenizer = open_tokenizer(tokenizer_dir, bos)
    plan = {
        "format": FORMAT,
        "tokenizer": tokenizer,
        "dtype": encoder.dtype,
        "seed": seed,
        "val_share": val_share,
        "val_glob": val_glob,
        "tasks": tasks or min(len(files), MAX_TASKS),
        "files": {file.path: file.size for file in files},
    }
    if dry_run:
        _describe(plan, files, input_dir)
        return
    if not overwrite and (out_dir / MANIFEST).is_file():
        done = Manifest(out_dir)
        _refuse_changes(plan_of(done.content), plan, f"{out_dir} was made otherwise")
        done.check_files()
        print(f"{out_dir} is whole already, made from the same files with the same settings.")
        _print_table(done)
        return
    with staging(out_dir, overwrite=overwrite, resume=True) as folder:
        if _start_or_resume(folder, plan, overwrite):
            _run(folder, plan, input_dir, files, encoder, workers or cores())
            _finish(folder, plan, _command(input_dir, out_dir, tokenizer_dir, plan))
        shutil.rmtree(folder / WORK, ignore_errors=True)
    _print_table(Manifest(out_dir))


def _check_numbers(val_share: float, tasks: int | None, workers: int | None) -> None:
    if not 0 <= val_share < 1:
        raise InheritError(f"val_share is {val_share}, expected a share of the documents: at least 0 and below 1.")
    for name, value in (("tasks", tasks), ("workers", workers)):
        if value is not None and value < 1:
            raise InheritError(f"{name} is {value}, expected at least 1.")


def _check_glob(val_glob: str, input_dir: Path, files: "list[SourceFile]") -> None:
    from fnmatch import fnmatchcase

    matched = sum(fnmatchcase(file.path, val_glob) for file in files)
    if matched in (0, len(files)):
        raise InheritError(
            f"val_glob {val_glob!r} matches {matched} of the {len(files)} files in {input_dir}, such as "
            f"{files[0].path!r}; expected some but not all. It is compared with the path within the folder."
        )


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
    if not overwrite and (folder / MANIFEST).is_file():
        before = plan_of(read_json(folder / MANIFEST, "manifest"))
    elif not overwrite and (folder / WORK / PLAN).is_file():
        before = read_json(folder / WORK / PLAN, "plan of the interrupted run")
    else:
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (folder / WORK).mkdir()
        write_json(folder / WORK / f".{PLAN}", plan)
        (folder / WORK / f".{PLAN}").rename(folder / WORK / PLAN)
        return True
    _refuse_changes(before, plan, f"An interrupted run left {folder}, begun otherwise")
    return not (folder / MANIFEST).is_file()


def _run(
    folder: Path, plan: dict[str, Any], input_dir: Path, files: "list[SourceFile]", encoder: "Encoder", workers: int
) -> None:
    from tqdm import tqdm

    from inheritune_lit.data.executor import Executor
    from inheritune_lit.data.shards import ShardWriter
    from inheritune_lit.data.sources import TextFolderReader

    tasks, work = plan["tasks"], folder / WORK
    split = {name: plan[name] for name in ("seed", "val_share", "val_glob")}
    steps = [
        TextFolderReader(input_dir, files),
        ShardWriter(folder, work / "records", input_dir, files, encoder, split),
    ]
    total = sum(file.size for file in files)
    with tqdm(total=total, unit="B", unit_scale=True, desc="prepare", dynamic_ncols=True) as bar:

        def show(input_bytes: int, tokens: int) -> None:
            bar.set_postfix_str(f"{tokens / 1e6:.1f}M tokens", refresh=False)
            bar.update(done + input_bytes - bar.n)

        executor = Executor(steps, tasks, min(workers, tasks), work, show)
        todo = set(executor.get_incomplete_ranks())
        done = sum(file.size for i, file in enumerate(files) if i % tasks not in todo)
        if len(todo) < tasks:
            bar.write(f"Resuming: {tasks - len(todo)} of {tasks} tasks are done.")
        try:
            executor.run()
        except InheritError as error:
            raise InheritError(f"{error}\nThe logs are in {work / 'logs'}.") from error
        show(total - done, sum(_record(folder, task)["tokens"] for task in todo))


def _record(folder: Path, task: int) -> dict[str, Any]:
    record = read_json(folder / WORK / "records" / f"{task:05d}.json", f"record of task {task}")
    return record | {"tokens": sum(shard["tokens"] for shard in record["shards"])}


def _finish(folder: Path, plan: dict[str, Any], command: str) -> None:
    """Merges the tasks' records into the manifest, checks that it describes what is there, and puts it in place."""
    records = [_record(folder, task) for task in range(plan["tasks"])]
    manifest = {name: value for name, value in plan.items() if name != "files"} | {
        "command": command,
        "versions": {"inheritune_lit": __version__}
        | {name: version(name) for name in ("datatrove", "tokenizers", "sentencepiece")},
        "source": {"files": sorted((file for record in records for file in record["files"]), key=lambda f: f["path"])},
        "blank_documents": sum(record["blank_documents"] for record in records),
        "splits": {split: _domains(records, split) for split in ("train", "val")},
    }
    for split, entries in manifest["splits"].items():
        if not sum(entry["tokens"] for entry in entries):
            documents = sum(entry["documents"] for domains in manifest["splits"].values() for entry in domains)
            raise InheritError(
                f"No tokens for the split {split!r} from {documents:,} documents ({manifest['blank_documents']:,} "
                f"blank ones were skipped). Set val_share ({plan['val_share']}) or val_glob ({plan['val_glob']!r}) so "
                "that both splits get some, and start over with --overwrite."
            )
    write_json(folder / WORK / MANIFEST, manifest)
    (folder / WORK / MANIFEST).rename(folder / MANIFEST)
    Manifest(folder).check_files()


def _domains(records: list[dict[str, Any]], split: str) -> list[dict[str, Any]]:
    """One entry per domain of a split, sorted, its shards in the order of the tasks."""
    shards = [shard for record in records for shard in record["shards"] if shard["split"] == split]
    return [
        {
            "domain": domain,
            "tokens": sum(shard["tokens"] for shard in mine),
            "documents": sum(shard["documents"] for shard in mine),
            "max_token_id": max(shard["max_token_id"] for shard in mine),
            "shards": [{name: shard[name] for name in ("path", "tokens", "documents", "sha256")} for shard in mine],
        }
        for domain in sorted({shard["domain"] for shard in shards})
        if (mine := [shard for shard in shards if shard["domain"] == domain])
    ]


def _command(input_dir: Path, out_dir: Path, tokenizer_dir: Path, plan: dict[str, Any]) -> str:
    """The command that makes these bytes: all that they depend on is spelt out, the rest left out."""
    flags = {"out_dir": out_dir, "tokenizer_dir": tokenizer_dir, "bos": str(plan["tokenizer"]["bos"]).lower()}
    flags |= {name: plan[name] for name in ("val_share", "val_glob", "seed", "tasks") if plan[name] is not None}
    return shlex.join(
        ["inheritune", "prepare", str(input_dir), *(f"--{name}={value}" for name, value in flags.items())]
    )


def _describe(plan: dict[str, Any], files: "list[SourceFile]", input_dir: Path) -> None:
    print(f"{len(files):,} files, {sum(file.size for file in files):,} bytes in {input_dir}, {plan['tasks']} tasks")
    for domain in sorted({file.domain for file in files}):
        sizes = [file.size for file in files if file.domain == domain]
        print(f"  {domain}: {len(sizes):,} files, {sum(sizes):,} bytes")
    tokenizer = plan["tokenizer"]
    print(
        f"{tokenizer['file']}: {tokenizer['vocab_size']:,} ids, {8 * TOKEN_BYTES[plan['dtype']]} bits a token, "
        f"{'BOS ' + str(tokenizer['bos_id']) if tokenizer['bos'] else 'no BOS'}, EOS {tokenizer['eos_id']}"
    )


def _print_table(manifest: Manifest) -> None:
    entries = [(entry, split) for split, domains in manifest.content["splits"].items() for entry in domains]
    rows = [(e["domain"], split, f"{e['documents']:,}", f"{e['tokens']:,}") for e, split in entries]
    rows = [("domain", "split", "documents", "tokens"), *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for name, split, documents, tokens in rows:
        print(f"{name:<{widths[0]}}  {split:<{widths[1]}}  {documents:>{widths[2]}}  {tokens:>{widths[3]}}")
    if blank := manifest.content["blank_documents"]:
        print(f"{blank:,} blank documents were skipped")
