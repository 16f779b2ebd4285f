"""SLURM, by way of submitit: every job of the grid is a job of the cluster, and those sent together are an array.

    <store>/grids/<grid>/slurm/        what submitit writes: sbatch files, pickles of plain values, a log for every job

The nodes share the folders of the store and of the runs, and run the same code. A job that SLURM preempts, or that comes to its
time limit, stores a checkpoint and queues again.
"""

from __future__ import annotations

import getpass
import io
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import BenchError, UsageError
from bench.runner.executors.queue import spread
from bench.runner.executors.worker_check import WorkerCheck

if TYPE_CHECKING:
    from bench.runner.jobs import Job, Outcome
    from bench.runner.status import GridStatus

GRACE = 30.0
"""Seconds that a job may be out of SLURM's queue before its missing result means that it died."""
ASK_EVERY = 10.0
"""Seconds between two looks at SLURM's queue."""
NOTICE = 90
"""Seconds before its time limit at which a job is told to store a checkpoint."""


@dataclass(frozen=True)
class Options:
    """What SLURM is asked for."""

    partition: str | None = None
    """Where jobs queue; null: the cluster's default."""
    account: str | None = None
    """Who pays; null: the user's default."""
    time: int = 240
    """Time limit of a job in minutes. A job that comes to it stores a checkpoint and queues again."""
    requeues: int = 100
    """How often a job may come to its time limit."""
    gpus: int = 0
    """GPUs for a job."""
    cpus: int = 1
    """Cores for a job, which are also its threads."""
    memory: int | None = None
    """Of a job, in GB; null: the cluster's default."""
    array: int = 64
    """How many jobs wait or run at a time."""
    cluster: Literal["slurm", "local"] = "slurm"
    """local: processes of this machine instead of a cluster, to try a command."""


def run(jobs: list[Job], status: GridStatus, workers: int | Literal["auto"], options: Options) -> Iterator[Outcome]:
    """Run the jobs on the cluster. Where this process ends before them, they go on, and the same command collects them."""
    if workers != "auto":
        options = replace(options, array=min(workers, options.array))
    return spread(jobs, _Cluster(status, options), status)


class Work:
    """What runs on the cluster. It is a callable with a checkpoint, as submitit asks for of what may queue again."""

    def __init__(self, values: dict[str, Any], gpus: int):
        """``values``: the fields of a ``RemoteJob``; ``gpus``: how many it was given."""
        self.values, self.gpus = values, gpus

    def __call__(self) -> str:
        """Run the job. When the cluster takes the machine back, the training that runs is stored first."""
        import signal

        from submitit.core.job_environment import JobEnvironment

        from bench.runner.remote import RemoteJob
        from bench.training import interruption

        if not self.gpus:  # not every cluster hides those that a job did not ask for
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        notice = JobEnvironment._usr_sig()
        requeue = signal.getsignal(notice)
        try:
            with interruption.on(notice, signal.SIGTERM) as got:
                return RemoteJob(**self.values).run()
        except interruption.Interrupted:
            if got[-1] == notice and callable(requeue):
                requeue(notice, None)  # ends this process
            raise SystemExit(1) from None  # SLURM itself queues the job again, or it was cancelled

    def checkpoint(self) -> Any:
        """What queues again: the same, as all that was done is in the store."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass
class _Sent:
    """A job of the cluster, and since when it is out of the queue without a result."""

    job: Job
    handle: Any
    missing: float | None = None


class _Cluster:
    """The cluster as a pool of ``options.array`` workers."""

    def __init__(self, status: GridStatus, options: Options):
        self.status, self.options = status, options
        self._waiting: list[Job] = []
        self._sent: list[_Sent] = []
        self._asked, self._living, self._count = -ASK_EVERY, set[str](), 0
        try:
            import submitit
        except ImportError:
            raise UsageError("executor=slurm needs the package submitit: pip install 'ticket-bench[slurm]'") from None
        self._folder = status.path.parent.absolute() / "slurm"
        self._check = WorkerCheck.of(status.path.parent)
        try:
            self._executor = submitit.AutoExecutor(self._folder, cluster=options.cluster, slurm_max_num_timeout=options.requeues)
        except RuntimeError:
            raise UsageError("executor=slurm finds no srun here: run the command on a login node of a SLURM cluster") from None
        optional = {"slurm_partition": options.partition, "slurm_account": options.account, "mem_gb": options.memory}
        self._executor.update_parameters(
            name="bench",
            timeout_min=options.time,
            gpus_per_node=options.gpus,
            cpus_per_task=options.cpus,
            slurm_array_parallelism=options.array,
            slurm_signal_delay_s=NOTICE,
            **{key: value for key, value in optional.items() if value is not None},
        )

    def free(self) -> bool:
        return len(self._waiting) + len(self._sent) < self.options.array

    def start(self, job: Job) -> None:
        self._waiting.append(job)

    def finished(self, seconds: float) -> list[tuple[Job, Outcome | None]]:
        self._submit()
        time.sleep(seconds)
        ended = [(sent, self._outcome(sent)) for sent in self._sent if self._is_over(sent)]
        self._sent = [sent for sent in self._sent if not any(sent is other for other, _ in ended)]
        return [(sent.job, outcome) for sent, outcome in ended]

    def close(self) -> None:
        if self.status.done + self.status.failed == self.status.jobs:  # others finished what they are at
            for sent in self._sent:
                sent.handle.cancel(check=False)
        elif self._sent:
            ids = " ".join(sorted({sent.handle.job_id.partition("_")[0] for sent in self._sent}))
            self.status.tell(
                f"{len(self._sent)} jobs go on in the cluster (`scancel {ids}` ends them); the same command collects them"
            )

    def _submit(self) -> None:
        """Send all jobs that wait, as one array."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from bench.runner.remote import RemoteJob

        if not self._waiting:
            return
        jobs, self._waiting = self._waiting, []
        handles = []
        try:
            with redirect_stderr(io.StringIO()), self._executor.batch():  # sbatch's own lines come back in the error
                for job in jobs:
                    self._count += 1
                    remote = RemoteJob.of(job, self._check, self.status.path.with_name(f"{self._count}.json"))
                    handles.append(self._executor.submit(Work(vars(remote), self.options.gpus)))
        except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
            raise BenchError(_refusal(error, self.options)) from None
        self._sent += [_Sent(job, handle) for job, handle in zip(jobs, handles, strict=True)]

    def _is_over(self, sent: _Sent) -> bool:
        """Whether a job has a result, or died without one."""
        if sent.handle.paths.result_pickle.exists():
            return True
        if self.options.cluster == "local":
            return bool(sent.handle.done())
        if time.monotonic() - self._asked > ASK_EVERY:
            self._asked, self._living = time.monotonic(), _queued()
        if sent.handle.job_id in self._living:
            sent.missing = None
        elif sent.missing is None:
            sent.missing = time.monotonic()
        return sent.missing is not None and time.monotonic() - sent.missing > GRACE

    def _outcome(self, sent: _Sent) -> Outcome | None:
        """What a job returned; None if it died."""
        from bench.runner.jobs import Outcome

        if not sent.handle.paths.result_pickle.exists():
            self.status.tell(f"{sent.job}: job {sent.handle.job_id} ended without a result, see {sent.handle.paths.stderr}")
            return None
        kind, told = sent.handle._get_outcome_and_result()
        if kind == "error":
            return sent.job.failed(f"{told.strip().splitlines()[-1]}; see {sent.handle.paths.stderr}")
        return Outcome.from_json(sent.job, told)


def _queued() -> set[str]:
    """The ids of all jobs of this user that wait or run."""
    done = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"squeue fails ({done.stderr.strip()}): the jobs go on; run the same command again to collect them")
    return set(done.stdout.split())


def _refusal(error: Exception, options: Options) -> str:
    """Why the cluster does not take a job, in one line."""
    errors = [line for line in str(error).splitlines() if "error" in line.lower()]
    why = errors[-1].strip() if errors else str(error)
    known = subprocess.run(["sinfo", "--noheader", "--format=%R, with %G"], capture_output=True, text=True, check=False)
    partitions = "; ".join(dict.fromkeys(known.stdout.split("\n"))).strip("; ")
    hint = f"executor.partition={options.partition} executor.account={options.account} executor.gpus={options.gpus}"
    return f"SLURM refuses the job ({why}): {hint}; partitions here and their GPUs: {partitions or 'unknown'}"
