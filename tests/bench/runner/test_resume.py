"""Kills, crowds and full disks: nothing is lost, nothing is trained twice, and the records come out the same.

Processes come from a fork server that has imported torch but never used it: they start in a moment, whatever this one did.
torch._dynamo is what the first optimizer of a process imports.
"""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from bench import launcher
from bench.storage.records import read_records
from tests.conftest import TOY, Bench

GRID = ("method=[dense,one_shot,imp]", "threads=1", "jobs=1", "checkpoint_seconds=0")

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.conftest", "bench.runner.grid", "bench.leaderboard.pages", "torch._dynamo"])


def child(words, begun, log):
    """``bench run`` in a process of its own; every training it begins or takes up is a line in ``log``."""
    import torch

    import bench.lab.training
    from bench.cli import main
    from bench.training.loop import Progress

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in a shell's background, it is ignored
    loop = bench.lab.training.train

    def logged(*arguments):
        at = next(i for i, value in enumerate(arguments) if isinstance(value, Progress))
        with open(log, "a") as file:
            file.write(f"{arguments[at].step} {arguments[at + 1]} {os.getpid()}\n")
        loop(*arguments)

    bench.lab.training.train = logged
    begun.set()
    raise SystemExit(main(["run", TOY, *words]))


def start(folder, *words):
    """Start a child; returns once it is about to run its command."""
    begun = processes.Event()
    process = processes.Process(
        target=child, args=([*words, f"store={folder}/store", f"runs={folder}/runs"], begun, str(folder / "log"))
    )
    process.start()
    assert begun.wait(60)
    return process


def finish(process):
    """Its exit status."""
    process.join(120)
    return process.exitcode


def contents(folder):
    """What must not depend on when and how often a run was interrupted."""
    return {r.id: r.content() for r in read_records(folder / "runs")}


def stages(folder):
    """Names of every stored stage, unfinished business included."""
    return sorted(str(p.relative_to(folder)) for p in (folder / "store" / "stages").glob("*/*"))


def test_twenty_kills(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    grid = (*GRID, "train.pause=0.02")
    finish(start(whole, *grid, "--dry-run"))  # the fork server is warm now
    process, began = start(whole, *grid), time.monotonic()
    assert finish(process) == 0
    takes = time.monotonic() - began
    process = start(killed, *grid)
    # on a busy machine every random moment may be before a checkpoint
    while process.is_alive() and not list(killed.glob("store/stages/*/*/done")):
        time.sleep(0.01)
    process.kill()
    finish(process)
    moments, hit = random.Random(0), 0
    for _ in range(20):
        process = start(killed, *grid)
        time.sleep(moments.uniform(0, 0.4 * takes))
        process.kill()
        hit += finish(process) == -signal.SIGKILL
    assert hit >= 10
    assert finish(start(killed, *grid)) == 0
    assert contents(killed) == contents(whole)
    assert len(contents(whole)) == 5
    assert stages(killed) == stages(whole)
    resumed = [line for line in (killed / "log").read_text().splitlines() if int(line.split()[0])]
    assert resumed  # some training did go on from its checkpoint


def test_two_processes_share_a_store(tmp_path):
    grid = (*GRID, "train.pause=0.005", "controls=[random]", "seeds=[0,1]")
    both = [start(tmp_path, *grid) for _ in range(2)]
    assert [finish(process) for process in both] == [0, 0]
    trained = (tmp_path / "log").read_text().splitlines()
    # a seed's trainings: dense; 0.5, which one_shot and imp share; 0.2 of each; a random mask at each density
    assert len(trained) == 2 * (1 + 1 + 2 + 2)
    assert all(line.startswith("0 24 ") for line in trained)
    assert len(stages(tmp_path)) == len(trained)
    assert len(contents(tmp_path)) == 2 * (1 + 2 * 2 * 2)
    alone = tmp_path / "alone"
    alone.mkdir()
    assert finish(start(alone, *grid)) == 0
    assert contents(alone) == contents(tmp_path / ".")


def as_host(name, words, begun, log):
    """A child on a machine of another name."""
    os.environ["BENCH_HOST"] = name
    child(words, begun, log)


def test_two_hosts_and_a_holder_that_is_stopped_past_its_lease(tmp_path):
    """The other host takes up what the stopped one was training. Nothing else is trained twice, and one stage of each is kept."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for folder in (alone, shared):
        (folder / "store").mkdir(parents=True)
        (folder / "store" / "store.json").write_text('{"store": "s", "locks": "lease", "lease_seconds": 4.0}')
    grid = (*GRID, "train.pause=0.05")
    assert finish(start(alone, *grid)) == 0
    hosts = {}
    for name in ("stopped", "other"):
        begun = processes.Event()
        words = [*grid, f"store={shared}/store", f"runs={shared}/runs"]
        hosts[name] = processes.Process(target=as_host, args=(name, words, begun, str(shared / "log")))
        hosts[name].start()
        assert begun.wait(60)
        if name == "stopped":
            while not (shared / "log").exists():  # it begins its first training
                time.sleep(0.01)
            os.kill(hosts[name].pid, signal.SIGSTOP)
    assert finish(hosts["other"]) == 0
    os.kill(hosts["stopped"].pid, signal.SIGCONT)
    assert finish(hosts["stopped"]) == 0
    assert contents(shared) == contents(alone)
    assert stages(shared) == stages(alone)
    begun = [line.split()[0] for line in (shared / "log").read_text().splitlines()]
    assert begun.count("0") in (len(stages(alone)), len(stages(alone)) + 1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c(tmp_path, jobs):
    process = start(tmp_path, "method=[one_shot,imp]", "threads=1", f"jobs={jobs}", "train.pause=0.2", "checkpoint_seconds=0")
    for _ in range(300):
        if list((tmp_path / "store").glob("stages/*/*/done")):
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    began = time.monotonic()
    assert finish(process) == 130
    assert time.monotonic() - began < 15  # a training takes five seconds, the grid twenty
    assert contents(tmp_path) == {}
    assert stages(tmp_path)


def test_workers_end_with_a_killed_parent(tmp_path):
    process = start(tmp_path, "method=[one_shot,imp]", "threads=1", "jobs=2", "train.pause=0.2", "checkpoint_seconds=0")
    for _ in range(300):
        if list((tmp_path / "store").glob("stages/*/*/done")):
            break
        time.sleep(0.1)
    told = [path for path in tmp_path.glob("store/grids/*/*.json") if path.name != "grid.json"]
    workers = [psutil.Process(json.loads(path.read_text())["pid"]) for path in told]
    assert len(workers) == 2
    assert process.pid not in [worker.pid for worker in workers]
    process.kill()
    finish(process)
    deadline = time.monotonic() + 10
    while alive := [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def test_ctrl_c_says_how_to_go_on(bench, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.lab.training.train", interrupted)
    monkeypatch.setattr("sys.argv", ["bench", "run", "tasks/toy", "densities=[0.5]"])
    assert bench.run() == 130
    assert bench.err == "bench: interrupted; finished trainings are kept. To go on: bench run tasks/toy 'densities=[0.5]'\n"


def test_ctrl_c_waits_for_imports():
    """NumPy takes an interruption for a failure of its own, and cannot be imported after it."""
    whole, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)

    def imported():
        with launcher.ctrl_c_waits():
            os.kill(os.getpid(), signal.SIGINT)
            whole.append(time.sleep(0.01))

    try:
        with pytest.raises(KeyboardInterrupt):
            imported()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(whole) == 1


def test_ctrl_c_leaves_the_server_of_workers_alone():
    """It still imports when the key is pressed, and says nothing."""
    code = (
        "import os, signal; from multiprocessing import forkserver; from bench.runner.executors import processes\n"
        "processes.PRELOADED = ('decimal',)\n"
        "before = signal.getsignal(signal.SIGINT); context = processes.warm_up()\n"
        "os.kill(forkserver._forkserver._forkserver_pid, signal.SIGINT)\n"
        "assert signal.getsignal(signal.SIGINT) is before\n"
        "process = context.Process(target=print, args=('it works',)); process.start(); process.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("it works\n")


def test_a_killed_worker_costs_only_its_job(bench):
    score = bench.folder / "deadly.py"
    score.write_text("import os\n\ndef deadly(model, maskables, data):\n    os.kill(os.getpid(), 9)\n")
    assert bench.run("jobs=2", f"method.score=magnitude,{score}:deadly", "densities=[0.5]") == 1
    failed = [line for line in bench.err.splitlines() if line.startswith("failed")]
    assert len(failed) == 1
    assert "deadly" in failed[0]
    assert "its process was killed, perhaps for memory: run the same command again" in failed[0]
    assert {r.identity.method_config.get("score") for r in bench.records()} == {None, "magnitude"}


def test_an_error_of_a_class_that_no_other_process_knows_costs_only_its_job(bench):
    score = bench.folder / "odd.py"
    score.write_text(
        "class Failure(OSError):\n    def __str__(self):\n        class Odd(str):\n            pass\n\n"
        "        return Odd('out of luck')\n\n\ndef odd(model, maskables, data):\n    raise Failure\n"
    )
    assert bench.run("jobs=2", f"method.score=magnitude,{score}:odd", "densities=[0.5]") == 1
    (failed,) = [line for line in bench.err.splitlines() if line.startswith("failed")]
    assert failed.endswith("seed 0: out of luck")


def test_a_full_disk(bench, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    assert bench.run("method=dense") == 0
    with monkeypatch.context() as patch:
        patch.setattr("bench.storage.stages.save_file", full)
        assert "no space left below" in bench.fails()
    with monkeypatch.context() as patch:
        patch.setattr("bench.runner.recorder.write_record", full)
        assert "No space left on device" in bench.fails()
    assert [r.identity.method for r in bench.records()] == ["dense"]
    assert bench.run() == 0
    assert len(bench.records()) == 3


def test_a_damaged_stage_costs_its_job_and_says_what_to_delete(bench):
    assert bench.run("method=[dense,imp]", "seeds=[0,1]") == 0
    before = {r.id: r.content() for r in bench.records()}
    dense = bench.record("dense").ticket.stages[0]
    folder = bench.folder / "store" / "stages" / dense
    (folder / "state.safetensors").write_bytes(b"nonsense")
    for path in (bench.folder / "runs").rglob("*.json"):
        path.unlink()
    bench.run("method=imp", "seeds=[0,1]")
    assert f"stage {folder} is damaged (its checksum differs): delete that folder and run again" in bench.err
    assert {r.identity.seed for r in bench.records() if r.identity.method == "imp"} == {1}
    for path in sorted(folder.iterdir()):
        path.unlink()
    folder.rmdir()
    assert bench.run("method=[dense,imp]", "seeds=[0,1]") == 0
    assert {r.id: r.content() for r in bench.records()} == before


def test_tampered_metrics_of_a_stage(bench):
    assert bench.run("method=dense") == 0
    path = bench.stages()[0] / "evals.test.json"
    path.write_text(path.read_text().replace('"accuracy":', '"accuracy":1'))
    bench.path(bench.record("dense")).unlink()
    assert "evals.test.json is damaged" in bench.fails("method=dense")
    path.unlink()
    assert bench.run("method=dense") == 0


def test_the_dense_network_is_trained_once_a_seed(bench: Bench, trainings):
    assert bench.run("method=[dense,one_shot,imp]", "seeds=[0,1]") == 0
    # dense; 0.5, which one_shot and imp share; 0.2 of each
    assert trainings == [(0, 24)] * 2 * 4
    assert len(bench.stages()) == 8
    dense = {r.ticket.stages[-1] for r in bench.records() if r.identity.method == "dense"}
    assert len(dense) == 2
    assert all(r.ticket.stages[0] in dense for r in bench.records())
    trainings.clear()
    assert bench.run("method=[dense,one_shot,imp]", "seeds=[0,1]") == 0
    assert trainings == []
