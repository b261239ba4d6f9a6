"""datatrove's local executor, run so that it can be killed at any moment, shows its progress and keeps quiet.

What a task does, when it counts as done, its log and its statistics are datatrove's. Ours is the pool around it:
datatrove's `multiprocess.Pool` waits for ever when a worker is killed (out of memory, say), and its workers go on
writing when their parent is killed.
"""

import fcntl
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from tqdm import tqdm

from inheritune_lit.base.errors import InheritError
from inheritune_lit.base.file_system import lock, unlock

PATIENCE = 60  # seconds that workers of a killed run are given to notice it

_counters: Any = None  # in a worker: [input bytes, tokens], shared with the parent


def advance(input_bytes: int = 0, tokens: int = 0) -> None:
    """Tells the parent's progress bar of work done; does nothing outside a worker."""
    if _counters is not None:
        with _counters.get_lock():
            _counters[0] += input_bytes
            _counters[1] += tokens


class Executor(LocalPipelineExecutor):
    """A LocalPipelineExecutor whose workers live and die with it.

    Args:
        pipeline: datatrove's steps.
        tasks: Into how many tasks the input is dealt. The output depends on it.
        workers: How many run at once. The output does not depend on it.
        work_dir: Where logs, statistics and completion markers go; only one executor at a time may use it.
    """

    def __init__(self, pipeline: list[Any], tasks: int, workers: int, work_dir: Path) -> None:
        super().__init__(pipeline, tasks=tasks, workers=workers, logging_dir=str(work_dir))
        self._lock_file = work_dir / "workers.lock"

    def run(self, on_progress: Callable[[int, int], None] = lambda input_bytes, tokens: None) -> None:
        """Runs the tasks that have no completion marker.

        Args:
            on_progress: Called a few times a second with (input bytes, tokens) done so far by this call.

        Raises:
            InheritError: a worker was killed. Finished tasks stay finished. A task's own error is raised as it is.
        """
        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        _wait_for_workers_of_a_killed_run(self._lock_file)
        todo = self.get_incomplete_ranks()
        # forkserver: its workers start with datatrove imported, and with none of this process's threads or locks
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["inheritune_lit.prepare.shards"])
        counters, others = context.Array("q", 2), set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(
            max(1, min(self.workers, len(todo))),
            mp_context=context,
            initializer=_start_worker,
            initargs=(counters, self._lock_file, max(1, cores() // self.workers)),
        )
        try:
            running = {pool.submit(self._run_for_rank, rank) for rank in todo}
            while running:
                done, running = wait(running, timeout=0.2, return_when=FIRST_EXCEPTION)
                on_progress(*counters.get_obj())
                for future in done:
                    future.result()
        except BrokenProcessPool as error:
            raise InheritError(
                "A worker process died without a message: it was killed, perhaps for want of memory. Finished "
                "tasks are kept: run the same command again to resume, with fewer --workers if memory was short."
            ) from error
        except BaseException:  # an error or Ctrl-C: don't let the other tasks run on for hours
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(counters: Any, lock_file: Path, threads: int) -> None:
    def end_with_the_parent() -> None:
        multiprocessing.parent_process().join()  # type: ignore[union-attr]  # only the main process has none
        os._exit(1)

    threading.Thread(target=end_with_the_parent, daemon=True).start()
    global _counters
    _counters = counters
    # datatrove logs to the console too; its log files have it all, and errors reach the parent as exceptions
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    lock(lock_file, fcntl.LOCK_SH)  # held until this process ends, see _wait_for_workers_of_a_killed_run
    # the lock that tqdm makes by itself is a semaphore, which a process that ends at once leaves behind
    tqdm.set_lock(threading.RLock())
    # tokenizers' threads: workers × threads = cores
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if threads > 1 else "false")


def _wait_for_workers_of_a_killed_run(lock_file: Path) -> None:
    """Two runs must not write the same shard: the old one's workers end soon after it, but not at the same instant."""
    lock_file.touch()
    for _ in range(PATIENCE * 10):
        try:
            return unlock(lock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            time.sleep(0.1)
    raise InheritError(f"Workers of an earlier run still write beside {lock_file}. Stop them, then run again.")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
