"""Running the pipeline: once over everything, or for a budget in passes until there are enough candidates to cut."""

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, write_json_whole
from inheritune_lit.data.encoding import Encoder
from inheritune_lit.prepare.cluster import make_executor, run_on_ray, run_on_slurm
from inheritune_lit.prepare.cutting import ShardCutter
from inheritune_lit.prepare.executor import Executor, cores
from inheritune_lit.prepare.listing import SourceFile
from inheritune_lit.prepare.sampling import Budget, Cut, cut, rate_for
from inheritune_lit.prepare.settings import PrepareSettings
from inheritune_lit.prepare.shards import ShardWriter, hash_file, index_file, read_record
from inheritune_lit.prepare.sources import CorpusReader

MAX_TASKS = 64  # by default; a number that does not depend on the machine, as it decides which shard a file goes to
RATES = "rates.json"
CUTS = "cuts.json"
ESTIMATE_FILES = 8  # of each domain, of which at most …
ESTIMATE_BYTES = 2**22  # … so much is read, and of that …
ESTIMATE_CHARACTERS = 2**18  # … so much is tokenized


@dataclass(frozen=True)
class Job:
    """What is read and how it becomes tokens; every task of every pass does the same."""

    settings: PrepareSettings
    files: list[SourceFile]
    encoder: Encoder

    @property
    def tasks(self) -> int:
        return self.settings.tasks or min(len(self.files), MAX_TASKS)

    @property
    def reader(self) -> CorpusReader:
        return CorpusReader(self._input_dir, self.files, self.settings.text_key)

    @property
    def _input_dir(self) -> str:
        return str(self.settings.local_dir or self.settings.input_dir)

    def tokenize(self, out_dir: Path, work: Path, rates: dict[str, float] | None = None) -> Path:
        """Runs all tasks that are not done; returns the folder of their records."""
        settings, records = self.settings, work / "records"
        writer = ShardWriter(out_dir, records, self._input_dir, self.files, self.encoder, settings.split, rates)
        steps = [self.reader, writer]
        if settings.executor == "local":
            sizes = [sum(file.size for file in self.files[task :: self.tasks]) for task in range(self.tasks)]
            self._run(steps, work, sizes, "prepare")
        else:
            executor = make_executor(
                settings.executor, steps, self.tasks, settings.workers, work, settings.executor_options or {}
            )
            (run_on_slurm if settings.executor == "slurm" else run_on_ray)(executor, work)
        return records

    def cut(self, candidates: Path, out_dir: Path, work: Path, cuts: dict[str, Cut]) -> Path:
        """Copies what is chosen of the candidates; returns the folder of the records."""
        records = work / "records"
        done = [read_record(candidates / "records", task) for task in range(self.tasks)]
        sizes = [sum(shard["tokens"] for shard in record["shards"]) for record in done]
        self._run([ShardCutter(candidates, out_dir, records, self.encoder, cuts)], work, sizes, "cut")
        return records

    def _run(self, steps: list[Any], work: Path, sizes: list[int], what: str) -> None:
        total = sum(sizes)
        with tqdm(total=total, unit="B", unit_scale=True, desc=what, dynamic_ncols=True) as bar:

            def show(input_bytes: int, tokens: int) -> None:
                if tokens:
                    bar.set_postfix_str(f"{tokens / 1e6:.1f}M tokens", refresh=False)
                bar.update(min(done + input_bytes, total) - bar.n)

            executor = Executor(steps, self.tasks, min(self.settings.workers or cores(), self.tasks), work)
            todo = set(executor.get_incomplete_ranks())
            done = sum(size for task, size in enumerate(sizes) if task not in todo)
            if len(todo) < self.tasks:
                bar.write(f"Resuming: {self.tasks - len(todo)} of {self.tasks} tasks are done.")
            try:
                executor.run(show)
            except InheritError as error:
                raise InheritError(f"{error}\nThe logs are in {work / 'logs'}.") from error
            bar.update(total - bar.n)


def sample(job: Job, folder: Path, work: Path, budget: Budget) -> tuple[Path, dict[str, Any]]:
    """Fills `folder` with a sample of the budget; returns the folder of its records, and what to say of it.

    A pass takes a share of each domain's documents as candidates, a little more than an estimate says is needed. If it
    was not enough after all, another pass takes more. The sample is cut out of the candidates by their exact lengths:
    the estimate decides how long it takes, not what comes out.
    """
    for number in itertools.count(1):
        candidates = work / f"pass{number}"
        if (work / f"pass{number + 1}" / RATES).exists():
            continue
        if not (candidates / RATES).exists():
            _start_pass(candidates, _first_rates(job, budget))
        shutil.rmtree(work / f"pass{number - 1}", ignore_errors=True)
        rates = read_json(candidates / RATES, "rates of the pass")
        job.tokenize(candidates, candidates, rates)
        lengths = {domain: list(_candidates(job, candidates, domain)) for domain in budget.proportions}
        found = {domain: sum(int(n.sum()) for _, n in shards) for domain, shards in lengths.items()}
        wanted = budget.wanted({domain: found[domain] if rates[domain] >= 1 else None for domain in found})
        if all(found[domain] >= wanted[domain] or rates[domain] >= 1 for domain in wanted):
            break
        _start_pass(work / f"pass{number + 1}", _next_rates(rates, found, wanted))
    budget.check(wanted, found)
    cuts = {
        domain: cut(
            np.concatenate([hashes for hashes, _ in shards] or [np.empty(0, np.uint64)]),
            np.concatenate([n for _, n in shards] or [np.empty(0, np.int64)]),
            wanted[domain],
            repeat=rates[domain] >= 1,
        )
        for domain, shards in lengths.items()
    }
    entry = {domain: {"wanted": wanted[domain], "got": cuts[domain].tokens} for domain in wanted}
    for domain in entry:
        if cuts[domain].tokens > found[domain]:  # repeated
            entry[domain]["available"] = found[domain]
    _start_cut(folder, work, cuts)
    return job.cut(candidates, folder, work / "cut", cuts), entry


def _start_pass(folder: Path, rates: dict[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json_whole(folder / RATES, rates)


def _start_cut(folder: Path, work: Path, cuts: dict[str, Cut]) -> None:
    """Throws away what an interrupted run cut otherwise: it may have been told to repeat, and this one not to."""
    content = {domain: asdict(cut) for domain, cut in cuts.items()}
    if (work / "cut" / CUTS).exists() and read_json(work / "cut" / CUTS, "cuts") == content:
        return
    shutil.rmtree(work / "cut", ignore_errors=True)
    for entry in folder.iterdir():
        if entry.is_dir() and entry != work:
            shutil.rmtree(entry)
    (work / "cut").mkdir()
    write_json_whole(work / "cut" / CUTS, content)


def _first_rates(job: Job, budget: Budget) -> dict[str, float]:
    sizes = estimate(job)
    available = {domain: int(sizes.get(domain, 0) * (1 - job.settings.val_share)) for domain in budget.proportions}
    if budget.renormalize and sum(available.values()) <= budget.tokens:
        return dict.fromkeys(available, 1.0)
    wanted = budget.wanted(available)
    rates = {domain: rate_for(wanted[domain], available[domain]) for domain in wanted}
    for domain, rate in rates.items():
        print(f"{domain}: about {available[domain]:,} tokens, {wanted[domain]:,} wanted; candidates are {rate:.2%}")
    return rates


def _next_rates(rates: dict[str, float], found: dict[str, int], wanted: dict[str, int]) -> dict[str, float]:
    """Raised where there was too little; what was found at a rate says what there is, however few they were."""
    return {
        domain: rate
        if found[domain] >= wanted[domain]
        else min(1.0, max(2 * rate, rate_for(wanted[domain], found[domain] / rate)))
        for domain, rate in rates.items()
    }


def _candidates(job: Job, folder: Path, domain: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(hashes, lengths in tokens) of each training shard of a domain."""
    for task in range(job.tasks):
        for shard in read_record(folder / "records", task)["shards"]:
            if (shard["domain"], shard["split"]) == (domain, "train"):
                path = folder / shard["path"]
                ends = np.fromfile(index_file(path), "<u8").astype(np.int64)
                yield np.fromfile(hash_file(path), "<u8"), np.diff(ends, prepend=0)


def estimate(job: Job) -> dict[str, float]:
    """About how many tokens each domain has, from the beginnings of a few of its files."""
    sizes = {}
    for domain in sorted({file.domain for file in job.files}):
        files = [file for file in job.files if file.domain == domain]
        chosen = files[:: max(1, len(files) // ESTIMATE_FILES)][:ESTIMATE_FILES]
        read = characters = encoded = tokens = 0
        for file in chosen:
            reader, seen, first = job.reader, 0, ""
            for document in reader.read_file(file.path):
                seen += len(document.text)
                if len(first) < ESTIMATE_CHARACTERS:
                    first += document.text[: ESTIMATE_CHARACTERS - len(first)]
                if reader.position >= ESTIMATE_BYTES:
                    break
            read += max(reader.position, 1)
            characters += seen
            encoded += len(first)
            tokens += len(job.encoder.encode([first]).ids)
        density = tokens / max(encoded, 1) * characters / max(read, 1)
        sizes[domain] = density * sum(file.size for file in files)
    return sizes
