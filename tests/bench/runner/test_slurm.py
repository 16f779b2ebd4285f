"""The SLURM executor: submitit's processes on this machine end to end, the text of its sbatch files, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from bench.config import settings
from bench.runner import remote
from bench.runner.executors import slurm
from bench.runner.executors.worker_check import WorkerCheck
from bench.runner.jobs import Job, Outcome
from bench.runner.status import GridStatus
from bench.storage.records import read_records
from tests.conftest import TOY

pytest.importorskip("submitit")


def jobs(folder, *words):
    """The jobs of a toy grid."""
    grid = settings(TOY, ["threads=1", f"store={folder}/store", f"runs={folder}/runs", *words])
    return [Job(setting, seed) for setting in grid for seed in setting.config["seeds"]]


def pool(folder, *words, **options):
    """The cluster as the executor's pool, and the jobs of a grid."""
    wanted = jobs(folder, *words)
    return slurm._Cluster(GridStatus.begin(folder / "store", wanted, "bench run"), slurm.Options(**options)), wanted


def contents(folder):
    return {r.id: r.content() for r in read_records(folder)}


def _interrupt_one(folder, done):
    """Tell the first job that stores a checkpoint that its time is over, as SLURM does."""
    until = time.monotonic() + 120
    while time.monotonic() < until and not done:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "submitit.core._submit" in words and str(folder) in " ".join(words) and list(folder.rglob("stages/*/*/done")):
                process.send_signal(signal.SIGUSR2)
                done.append(process.pid)
                return
        time.sleep(0.05)


def test_a_grid_on_submitits_local_executor(bench):
    """One of the jobs comes to its time limit on the way. Its records are those of a serial run all the same."""
    grid = ("method=imp", "seeds=[0,1]", "controls=[random]", "train.pause=0.03", "checkpoint_seconds=0")
    assert bench.run(*grid, f"store={bench.folder}/serial") == 0
    serial, interrupted = contents(bench.folder / "runs"), []
    threading.Thread(target=_interrupt_one, args=(bench.folder / "store", interrupted), daemon=True).start()
    cluster = ("executor=slurm", "executor.cluster=local", "executor.array=2", "executor.time=10")
    assert bench.run(*grid, *cluster, f"runs={bench.folder}/cluster") == 0, bench.err
    assert contents(bench.folder / "cluster") == serial
    assert interrupted
    logs = "".join(path.read_text() for path in (bench.folder / "store").rglob("slurm/*.err"))
    logs += "".join(path.read_text() for path in (bench.folder / "store").rglob("slurm/*.out"))
    assert "Requeued job" in logs


def test_the_sbatch_file(tmp_path, monkeypatch):
    """Options arrive in it, several jobs are an array, and what the job returns is the outcome."""
    from submitit.core import submission
    from submitit.slurm.test_slurm import mocked_slurm

    alone = os.environ.get("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", alone or "")
    monkeypatch.setattr(slurm, "_queued", lambda: set())
    with mocked_slurm() as mock:
        options = {"partition": "short", "account": "lab7", "time": 90, "gpus": 1, "cpus": 3, "memory": 12, "array": 2}
        cluster, wanted = pool(tmp_path, "method=[dense,one_shot]", "densities=[0.5]", **options)
        for job in wanted:
            assert cluster.free()
            cluster.start(job)
        assert not cluster.free()
        assert cluster.finished(0) == []
        text = next(tmp_path.rglob("*_submission.sh")).read_text()
        for line in (
            "--partition=short",
            "--account=lab7",
            "--time=90",
            "--gpus-per-node=1",
            "--cpus-per-task=3",
            "--mem=12GB",
            "--array=0-1%2",
            "--signal=USR2@90",
            "--open-mode=append",
        ):
            assert f"#SBATCH {line}\n" in text
        with mock.job_context("12_0"):
            submission.process_job(cluster._folder)
        monkeypatch.setattr(slurm, "GRACE", 0.0)
        (job, outcome), other = cluster.finished(0)
        assert (job, outcome.error, len(outcome.records)) == (wanted[0], None, 1)
        assert other == (wanted[1], None)  # it is not in the queue and left no result: it died
    assert [r.identity.method for r in read_records(tmp_path / "runs")] == ["dense"]


@pytest.mark.parametrize("done", [False, True])
def test_what_is_left_of_a_finished_grid_is_cancelled(tmp_path, done):
    """Of a grid that ends before it is finished, jobs go on."""
    cancelled, told = [], []
    cluster, wanted = pool(tmp_path, "method=dense", cluster="local")
    cluster.status.done, cluster.status.tell = int(done), told.append
    handle = SimpleNamespace(job_id="12_0", cancel=lambda check: cancelled.append("12_0"))
    cluster._sent = [slurm._Sent(wanted[0], handle)]
    cluster.close()
    assert cancelled == ["12_0"] * done
    assert told == ["1 jobs go on in the cluster (`scancel 12` ends them); the same command collects them"] * (not done)


def test_a_job_that_is_in_the_queue_is_not_dead(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 7))
    monkeypatch.setattr(slurm.time, "monotonic", lambda: next(clock))
    living = {"12", "12_0"}
    monkeypatch.setattr(slurm, "_queued", lambda: set(living))
    handle = SimpleNamespace(job_id="12_0", paths=SimpleNamespace(result_pickle=tmp_path / "none", stderr="log"))
    cluster = slurm._Cluster.__new__(slurm._Cluster)
    cluster.options, cluster._asked, cluster._living = slurm.Options(), -100.0, set()
    sent = slurm._Sent(None, handle)
    assert not any(cluster._is_over(sent) for _ in range(20))
    living.clear()
    assert not cluster._is_over(sent)
    assert any(cluster._is_over(sent) for _ in range(10))


def test_missing_package_and_missing_cluster(bench, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert bench.run("executor=slurm", "method=dense") == 2
    assert bench.err == "bench: executor=slurm finds no srun here: run the command on a login node of a SLURM cluster\n"
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert bench.run("executor=slurm", "method=dense") == 2
    assert bench.err == "bench: executor=slurm needs the package submitit: pip install 'ticket-bench[slurm]'\n"


@pytest.mark.parametrize(
    "said", ["invalid partition specified: nowhere", "Requested node configuration is not available", "Invalid account"]
)
def test_what_slurm_refuses_is_one_line(bench, monkeypatch, said):
    """A partition that is not there, more GPUs than any node has, an account that may not."""
    tools = bench.folder / "tools"
    tools.mkdir()
    for name, body in {
        "srun": "exit 0",
        "sbatch": f"echo 'sbatch: error: {said}' >&2; echo 'sbatch: error: Batch job submission failed: {said}' >&2; exit 1",
        "sinfo": "echo 'debug, with gpu:2'; echo 'long, with (null)'",
        "squeue": "exit 0",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    assert bench.run("executor=slurm", "executor.partition=nowhere", "executor.gpus=9", "method=[dense,imp]") == 1
    assert bench.err.count("\n") == 1
    assert f"{said}): executor.partition=nowhere" in bench.err
    assert "executor.gpus=9; partitions here and their GPUs: debug, with gpu:2; long, with (null)" in bench.err


# what workers must have in common with the grid


def remote_job(folder, **changed):
    (job,) = jobs(folder, "method=dense")
    return remote.RemoteJob.of(job, replace(WorkerCheck.of(folder / "store" / "grids" / "g"), **changed), folder / "status.json")


def test_a_remote_job_runs_and_comes_back(tmp_path):
    told = remote_job(tmp_path).run()
    (job,) = jobs(tmp_path, "method=dense")
    outcome = Outcome.from_json(job, told)
    assert outcome.error is None
    assert [r.content() for r in outcome.records] == [r.content() for r in read_records(tmp_path / "runs")]


def test_a_worker_that_differs_is_refused_before_it_trains(tmp_path):
    for changed, line in (
        ({"token": "another"}, "is not the same folder"),
        ({"versions": {"Ticket Bench": "another"}}, "has Ticket Bench "),
        ({"versions": {"torch": "1.0"}}, "has torch "),
    ):
        told = json.loads(remote_job(tmp_path, **changed).run())
        assert line in told["error"]
        assert told["records"] == []
    assert not (tmp_path / "store" / "stages").exists()


def test_the_slurm_executor_loads_no_submitit_before_it_runs():
    code = "import sys, bench.runner.executors; sys.exit('submitit' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0
