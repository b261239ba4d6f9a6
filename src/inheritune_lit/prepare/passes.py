"""Running the pipeline: once over everything, or for a budget in passes until there are enough candidates to cut."""

import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.files import read_json, write_json_whole
from inheritune_lit.data.encoding import Encoder
from inheritune_lit.prepare.cluster import run_on_cluster
from inheritune_lit.prepare.executor import Executor, cores
from inheritune_lit.prepare.listing import SourceFile
from inheritune_lit.prepare.sampling import SPACE, Budget, Cut, cut, rate_for
from inheritune_lit.prepare.settings import PrepareSettings
from inheritune_lit.prepare.shards import ShardSet, ShardWriter, read_candidates, read_record
from inheritune_lit.prepare.sources import CorpusReader

MAX_TASKS = 64  # by default; a number that does not depend on the machine, as it decides which shard a file goes to
RATES = "rates.json"
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
    def workers(self) -> int:
        return self.settings.workers or cores()

    @property
    def reader(self) -> CorpusReader:
        return CorpusReader(self._input_dir, self.files, self.settings.text_key)

    @property
    def _input_dir(self) -> str:
        return str(self.settings.local_dir or self.settings.input_dir)

    def tokenize(self, out_dir: Path, work: Path, rates: dict[str, float] | None = None) -> list[dict[str, Any]]:
        """Runs all tasks that are not done; returns the tasks' records."""
        settings, records = self.settings, work / "records"
        writer = ShardWriter(out_dir, records, self._input_dir, self.files, self.encoder, settings.split, rates)
        steps = [self.reader, writer]
        if settings.executor == "local":
            self._run(steps, work)
        else:
            options = settings.executor_options or {}
            run_on_cluster(settings.executor, steps, work, options, tasks=self.tasks, workers=settings.workers)
        return [read_record(records, task) for task in range(self.tasks)]

    def _run(self, steps: list[Any], work: Path) -> None:
        sizes = [sum(file.size for file in self.files[task :: self.tasks]) for task in range(self.tasks)]
        total = sum(sizes)
        with tqdm(total=total, unit="B", unit_scale=True, desc="prepare", dynamic_ncols=True) as bar:

            def show(input_bytes: int, tokens: int) -> None:
                bar.set_postfix_str(f"{tokens / 1e6:.1f}M tokens", refresh=False)
                bar.update(min(done + input_bytes, total) - bar.n)

            executor = Executor(steps, self.tasks, min(self.workers, self.tasks), work)
            todo = set(executor.get_incomplete_ranks())
            done = sum(size for task, size in enumerate(sizes) if task not in todo)
            if len(todo) < self.tasks:
                bar.write(f"Resuming: {self.tasks - len(todo)} of {self.tasks} tasks are done.")
            try:
                executor.run(show)
            except InheritError as error:
                raise InheritError(f"{error}\nThe logs are in {work / 'logs'}.") from error
            bar.update(total - bar.n)


def sample(job: Job, folder: Path, work: Path, budget: Budget) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Fills `folder` with a sample of the budget; returns its tasks' records, and what to say of each domain.

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
        records = job.tokenize(candidates, candidates, rates)
        documents = {domain: _documents(candidates, records, domain) for domain in budget.proportions}
        found = {domain: int(lengths.sum()) for domain, (_, lengths) in documents.items()}
        wanted = budget.wanted({domain: found[domain] if rates[domain] >= 1 else None for domain in found})
        if all(found[domain] >= wanted[domain] or rates[domain] >= 1 for domain in wanted):
            break
        _start_pass(work / f"pass{number + 1}", _next_rates(rates, found, wanted))
    budget.check(wanted, found)
    cuts = {domain: cut(*documents[domain], wanted[domain], repeat=rates[domain] >= 1) for domain in documents}
    entry = {domain: {"wanted": wanted[domain], "got": cuts[domain].tokens} for domain in wanted}
    for domain in entry:
        if cuts[domain].tokens > found[domain]:  # repeated
            entry[domain]["available"] = found[domain]
    return cut_out(job, candidates, folder, records, cuts), entry


def cut_out(
    job: Job, candidates: Path, folder: Path, records: list[dict[str, Any]], cuts: dict[str, Cut]
) -> list[dict[str, Any]]:
    """Copies what is chosen of the candidates to `folder`; returns the tasks' records of it.

    It begins with nothing: an interrupted run may have cut otherwise, told to repeat where this one is not. Copying
    and hashing let go of Python's lock, so that threads do.
    """
    for place in folder.iterdir():
        if place.is_dir() and place not in candidates.parents:
            shutil.rmtree(place)
    with ThreadPoolExecutor(job.workers) as pool:
        done = pool.map(partial(_cut_task, job.encoder, candidates, folder, cuts), records, itertools.count())
        return list(tqdm(done, total=job.tasks, unit="task", desc="cut", dynamic_ncols=True))


def _cut_task(
    encoder: Encoder, candidates: Path, folder: Path, cuts: dict[str, Cut], record: dict[str, Any], task: int
) -> dict[str, Any]:
    shards = ShardSet(folder, task, encoder)
    for shard in record["shards"]:
        chosen = cuts[shard["domain"]]
        bounds = chosen.copies * [SPACE] + [chosen.bound]  # a validation document is taken once
        for bound in bounds if shard["split"] == "train" else [max(bounds)]:
            shards.copy(candidates / shard["path"], bound, (shard["domain"], shard["split"]))
    return record | {"shards": shards.close()}


def _start_pass(folder: Path, rates: dict[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json_whole(folder / RATES, rates)


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


def _documents(folder: Path, records: list[dict[str, Any]], domain: str) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, lengths in tokens) of a domain's training documents."""
    shards = [shard for record in records for shard in record["shards"]]
    paths = [folder / s["path"] for s in shards if (s["domain"], s["split"]) == (domain, "train")]
    hashes, lengths = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for found, ends in map(read_candidates, paths):
        hashes.append(found)
        lengths.append(np.diff(ends, prepend=0))
    return np.concatenate(hashes), np.concatenate(lengths)


def estimate(job: Job) -> dict[str, float]:
    """About how many tokens each domain has, from the beginnings of a few of its files."""
    sizes = {}
    for domain in sorted({file.domain for file in job.files}):
        files = [file for file in job.files if file.domain == domain]
        read = characters = encoded = tokens = 0
        for file in files[:: max(1, len(files) // ESTIMATE_FILES)][:ESTIMATE_FILES]:
            reader, first = job.reader, ""
            for document in reader.read_file(file.path):
                characters += len(document.text)
                first += document.text[: ESTIMATE_CHARACTERS - len(first)]
                if reader.position >= ESTIMATE_BYTES:
                    break
            read += max(reader.position, 1)
            encoded += len(first)
            tokens += len(job.encoder.encode([first]).ids)
        density = tokens / max(encoded, 1) * characters / max(read, 1)
        sizes[domain] = density * sum(file.size for file in files)
    return sizes
