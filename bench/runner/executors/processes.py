"""Local processes, each of which runs one job at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from bench.runner.jobs import Job, Outcome
from bench.runner.work import run_job
from bench.task import Task

_opened: dict[str, Task] = {}
"""The task that this worker has open, shared by the jobs that it runs one after the other."""


def run(jobs: list[Job], show: Callable[[str, int, int], None], workers: int) -> Iterator[Outcome]:
    """Run the jobs over ``workers`` processes. A worker that dies takes the pool with it; the jobs left are tried once more, in a
    pool each."""
    left = list(jobs)
    with _pool(workers) as pool:
        futures = {pool.submit(_run_in_worker, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                    left.remove(futures[future])
                except BrokenProcessPool:
                    pass
        except BaseException:  # Ctrl-C: nobody waits for the rest, and what the workers have is stored
            for worker in multiprocessing.active_children():
                worker.terminate()
            pool.shutdown(cancel_futures=True)
            raise
    for job in left:
        with _pool(1) as pool:
            try:
                yield pool.submit(_run_in_worker, job).result()
            except BrokenProcessPool:
                yield Outcome(job, [], "its process was killed, perhaps for memory: run the same command again to go on")


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """Leave Ctrl-C to the parent, and end with it: a worker whose parent was killed would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _run_in_worker(job: Job) -> Outcome:
    return run_job(job, opened=_opened)
