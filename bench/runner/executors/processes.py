"""Processes on this machine, each of which runs one job at a time and keeps its task's data loaded."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from bench.runner.executors.queue import spread

if TYPE_CHECKING:
    from bench.runner.jobs import Job, Outcome
    from bench.runner.status import GridStatus, WorkerStatus
    from bench.task import Task

PRELOADED = ("bench.runner.run_job", "torch._dynamo")
"""Imported by the server from which workers are forked, so that they start at once; the second is what the first optimizer
of a process imports. The server computes nothing, so it has no threads or devices that a fork would break."""
PATIENCE = 5.0
"""Seconds that a worker has to end when it is told to."""


@dataclass(frozen=True)
class Options:
    """There are none."""


def run(jobs: list[Job], status: GridStatus, workers: int, options: Options) -> Iterator[Outcome]:
    """Run the jobs over ``workers`` processes. A worker that dies is replaced, and its job taken up from its last checkpoint."""
    return spread(jobs, _Processes(workers, status), status)


def warm_up() -> ForkServerContext:
    """Start the server from which workers are forked, unless it runs; it goes on importing by itself, whatever Ctrl-C ends."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    if threading.current_thread() is threading.main_thread():  # others cannot change what a signal does
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the server inherits
        try:
            ensure_running()
        finally:
            signal.signal(signal.SIGINT, before)
    ensure_running()
    return context


@dataclass
class _Local:
    """One process, our end of the pipe to it, and the job that it runs."""

    process: BaseProcess
    pipe: Connection
    job: Job | None = None


class _Processes:
    """A pool of processes; they are started when there is a job for them."""

    def __init__(self, size: int, status: GridStatus):
        self._size, self._status = size, status
        self._workers: dict[int, _Local] = {}
        self._context = warm_up()

    def free(self) -> bool:
        return len(self._workers) < self._size or any(worker.job is None for worker in self._workers.values())

    def start(self, job: Job) -> None:
        worker = next((worker for worker in self._workers.values() if worker.job is None), None) or self._begin()
        worker.job = job
        with suppress(OSError):  # it died while it had nothing to do: noticed like any other death
            worker.pipe.send(job)

    def finished(self, seconds: float) -> list[tuple[Job, Outcome | None]]:
        from bench.runner.jobs import Outcome

        busy = {worker.pipe: (place, worker, worker.job) for place, worker in self._workers.items() if worker.job}
        if not busy:
            time.sleep(seconds)
        ended: list[tuple[Job, Outcome | None]] = []
        for pipe in wait(list(busy), seconds):
            place, worker, job = busy[pipe]  # type: ignore[index]
            try:
                ended.append((job, Outcome.from_json(job, worker.pipe.recv())))
                worker.job = None
            except (EOFError, OSError):
                ended.append((job, None))
                self._end(self._workers.pop(place))
        return ended

    def close(self) -> None:
        for worker in self._workers.values():
            worker.process.terminate()  # all that a worker has done is stored
        for worker in self._workers.values():
            self._end(worker)

    def _begin(self) -> _Local:
        place = next(place for place in range(1, self._size + 1) if place not in self._workers)
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._status.worker(str(place))))
        process.start()
        theirs.close()  # so that its death ends the pipe
        self._workers[place] = _Local(process, ours)
        return self._workers[place]

    def _end(self, worker: _Local) -> None:
        worker.pipe.close()
        worker.process.join(PATIENCE)
        worker.process.kill()
        worker.process.join()


def _work(pipe: Connection, log: WorkerStatus) -> None:
    """The life of a worker. Ctrl-C is its parent's business, and it ends with its parent, which might have been killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    log.take_output()
    from bench.runner.run_job import run_job

    opened: dict[str, Task] = {}
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            sys.exit()
        pipe.send(run_job(job, log, opened).to_json())
        log.begin("")
