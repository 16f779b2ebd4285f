"""Workers on a Ray cluster, or on a fresh one of this machine. Needs ``pip install ticket-bench[ray]``.

Each worker is an actor, which keeps its task's data loaded from job to job. Ray itself retries nothing: a worker that dies
with its process or its node costs its job a retry from the last checkpoint, as everywhere.
"""

from __future__ import annotations

import importlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import BenchError, UsageError
from bench.runner.executors.queue import RETRIES, spread
from bench.runner.executors.worker_check import WorkerCheck

if TYPE_CHECKING:
    from bench.runner.jobs import Job, Outcome
    from bench.runner.status import GridStatus, WorkerStatus
    from bench.task import Task

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default: whoever computes beside it would bring a training to a stand
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # it would set up an environment on every node
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do by itself, and warns of
}


@dataclass(frozen=True)
class Options:
    """What Ray is asked for."""

    address: str | None = None
    """Of the cluster: auto, HOST:PORT or ray://HOST:PORT; null: a fresh one on this machine."""
    cpus: int | float = 1
    """CPUs for a worker, which are also its threads."""
    gpus: int | float = 0
    """GPUs for a worker: a fraction lets several share one; 0: it sees none."""


def run(jobs: list[Job], status: GridStatus, workers: int | Literal["auto"], options: Options) -> Iterator[Outcome]:
    """Run the jobs over ``workers`` actors; ``auto``: as many as the cluster holds and the jobs can use."""
    ray = _ray()
    if options.cpus <= 0 or options.gpus < 0 or (options.gpus > 1 and options.gpus % 1):
        raise UsageError("executor.cpus must be above 0, and executor.gpus a share of one GPU or a whole number of them")
    ours = not ray.is_initialized()
    if ours:
        _reach(options.address)
        fresh = (
            {} if options.address or workers == "auto" else {"num_cpus": max(os.cpu_count() or 1, int(workers * options.cpus))}
        )
        try:
            ray.init(options.address or "local", logging_level="ERROR", log_to_driver=False, include_dashboard=False, **fresh)
        except Exception as error:  # ConnectionError, RuntimeError, ValueError and others, by what is wrong
            raise _unreachable(options.address, error) from None
    try:
        room = sum(_room(node["Resources"], options) for node in ray.nodes() if node["Alive"])
        if room == 0:
            raise BenchError(
                f"no node of the Ray cluster has room for a worker of executor.cpus={options.cpus:g} "
                f"executor.gpus={options.gpus:g}; the largest has {_largest(ray.nodes())}"
            )
        size = min(room, sum(job.width for job in jobs)) if workers == "auto" else workers
        yield from spread(jobs, _Actors(size, status, options), status)
    finally:
        if ours:
            ray.shutdown()


def _ray() -> Any:
    """Return the package Ray, which is loaded when it is needed."""
    os.environ.update({key: value for key, value in SETTINGS.items() if key not in os.environ})
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise BenchError("executor=ray needs Ray: pip install ticket-bench[ray]") from None


def _reach(address: str | None) -> None:
    """Knock at a HOST:PORT: Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise _unreachable(address, error) from None


def _unreachable(address: str | None, error: Exception) -> BenchError:
    return BenchError(
        f"no Ray cluster answers at executor.address={address}: start one (`ray start --head`), or leave the address out for a "
        f"fresh one on this machine ({' '.join(str(error).split()):.200})"
    )


def _room(resources: dict[str, float], options: Options) -> int:
    """How many workers a node has room for."""
    asked = {"CPU": options.cpus, "GPU": options.gpus}
    return int(min(resources.get(kind, 0) / share for kind, share in asked.items() if share))


def _largest(nodes: list[dict[str, Any]]) -> str:
    most = {kind: max((node["Resources"].get(kind, 0) for node in nodes if node["Alive"]), default=0) for kind in ("CPU", "GPU")}
    return f"{most['CPU']:g} CPUs and {most['GPU']:g} GPUs"


@dataclass
class _Remote:
    """One actor, what it was last asked, and the job of that if it was one."""

    actor: Any
    asked: Any
    job: Job | None = None


class _Actors:
    """A pool of actors. They exist once the cluster has room for them, and are free once they have passed the check."""

    def __init__(self, size: int, status: GridStatus, options: Options):
        self._ray, self._status, self._options = _ray(), status, options
        self._check = WorkerCheck.of(status.path.parent)
        self._workers = {place: self._begin(place) for place in range(1, size + 1)}
        self._failures = dict.fromkeys(self._workers, 0)

    def free(self) -> bool:
        return any(worker.asked is None for worker in self._workers.values())

    def start(self, job: Job) -> None:
        worker = next(worker for worker in self._workers.values() if worker.asked is None)
        worker.job, worker.asked = job, worker.actor.run.remote(job)

    def finished(self, seconds: float) -> list[tuple[Job, Outcome | None]]:
        from bench.runner.jobs import Outcome

        asked = {worker.asked: place for place, worker in self._workers.items() if worker.asked is not None}
        if not asked:
            time.sleep(seconds)
            return []
        ended: list[tuple[Job, Outcome | None]] = []
        for reference in self._ray.wait(list(asked), timeout=seconds)[0]:
            place = asked[reference]
            worker = self._workers[place]
            job, worker.job, worker.asked = worker.job, None, None
            try:
                answer = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:  # the actor, its node or what it runs on is gone
                if job:
                    ended.append((job, None))
                self._replace(place, job is None, " ".join(str(error).split()))
                continue
            if job:
                ended.append((job, Outcome.from_json(job, answer)))
            elif answer:
                self._drop(place, answer)
        return ended

    def close(self) -> None:
        for worker in self._workers.values():
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(worker.actor)

    def _begin(self, place: int) -> _Remote:
        actor = (
            self._ray.remote(_Actor)
            .options(
                num_cpus=self._options.cpus,
                num_gpus=self._options.gpus,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy="SPREAD",
            )
            .remote(bool(self._options.gpus), {key: value for key, value in os.environ.items() if key.startswith("BENCH_")})
        )
        return _Remote(actor, actor.begin.remote(self._check, self._status.worker(str(place))))

    def _replace(self, place: int, at_begin: bool, why: str) -> None:
        """Put another actor in the place of one that died; where none can begin, there is no point."""
        self._failures[place] += at_begin
        if self._failures[place] > RETRIES:
            self._drop(place, f"Ray cannot start a worker: {why:.300}")
        else:
            self._workers[place] = self._begin(place)

    def _drop(self, place: int, why: str) -> None:
        """Go on without a worker; the last one's reason is the grid's."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._workers.pop(place).actor)
        if not self._workers:
            raise BenchError(why)
        self._status.tell(why)


class _Actor:
    """What runs on the cluster: one worker."""

    def __init__(self, gpus: bool, variables: dict[str, str]):
        os.environ.update(variables)
        if not gpus:  # Ray leaves a worker that asked for no GPU all of them
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._opened: dict[str, Task] = {}

    def begin(self, check: WorkerCheck, log: WorkerStatus) -> str | None:
        """Return why this worker is not fit for the grid, if it is not."""
        if why := check.refusal():
            return why
        self._log = log
        log.take_output()
        return None

    def run(self, job: Job) -> str:
        """Take a job as far as it goes."""
        from bench.runner.run_job import run_job

        try:
            return run_job(job, self._log, self._opened).to_json()
        finally:
            self._log.begin("")
