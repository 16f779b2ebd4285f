"""Executors: the same records on each, whoever dies; what workers elsewhere refuse; `bench status`."""

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace

import pytest

from bench.runner.executors.worker_check import WorkerCheck
from bench.runner.status import GridStatus, read_grids, write_status
from tests.bench.runner.test_resume import contents, finish, stages, start

GRID = ("method=[imp,snip]", "controls=[random]", "threads=1", "checkpoint_seconds=0", "train.pause=0.02")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same grid by one process."""
    folder = tmp_path_factory.mktemp("serial")
    assert finish(start(folder, *GRID, "executor=serial")) == 0
    return folder


def workers(folder):
    """What the workers of the folder's grid say of themselves."""
    found = [p for p in (folder / "store" / "grids").glob("*/*.json") if p.name != "grid.json"]
    return {path: json.loads(path.read_text()) for path in found}


def test_killed_workers_change_nothing(tmp_path, whole):
    moments = random.Random(0)
    process, killed = start(tmp_path, *GRID, "jobs=2"), set()
    while process.is_alive() and len(killed) < 2:
        time.sleep(moments.uniform(0, 0.3))
        for said in workers(tmp_path).values():
            if said["training"] and said["pid"] not in killed and len(killed) < 2:
                os.kill(said["pid"], signal.SIGKILL)
                killed.add(said["pid"])
    assert finish(process) == 0
    assert len(killed) == 2
    assert contents(tmp_path) == contents(whole)
    assert stages(tmp_path) == stages(whole)
    (grid,) = (tmp_path / "store" / "grids").glob("*/grid.json")
    said = json.loads(grid.read_text())
    assert (said["done"], said["failed"], said["waiting"], said["ended"]) == (2, 0, 0, True)


def test_status(bench, monkeypatch):
    monkeypatch.setattr("sys.argv", ["bench", "run", "tasks/toy"])
    assert bench("status", f"store={bench.folder / 'none'}") == 2
    assert "there is no store" in bench.err
    assert bench.run("method=dense") == 0
    assert bench("status", f"store={bench.folder / 'store'}") == 0
    assert bench.out.startswith("no grid runs on the store")
    assert bench("status", f"store={bench.folder / 'store'}", "--all", "--json") == 0
    (grid,) = json.loads(bench.out)
    assert (grid["state"], grid["command"], grid["done"], grid["networks_left"]) == ("ended", "bench run tasks/toy", 1, 0)
    (worker,) = grid["workers"]
    assert (worker["made"], worker["state"]) == (1, "ended")
    path = bench.folder / "store" / "grids" / grid["grid"] / "grid.json"
    going_on = {"ended": False, "running": 1, "networks_left": 3, "hours_left": 0.25, "seen": time.time()}
    write_status(path, grid | going_on)
    assert bench("status", f"store={bench.folder / 'store'}") == 0
    assert "running on" in bench.out
    assert "0.25" in bench.out
    write_status(path, grid | {"ended": False, "seen": 0})
    assert bench("status", f"store={bench.folder / 'store'}", "--all") == 0
    assert "gone on" in bench.out
    path.write_text(path.read_text().replace('"running"', '"-unning"'))
    assert bench("status", f"store={bench.folder / 'store'}", "--all") == 0
    assert bench.out.startswith("no grid runs")  # a file that was changed says nothing


def test_a_grid_is_heard_of_while_a_training_is_silent(tmp_path, monkeypatch):
    for name in ("HEARTBEAT", "INTERVAL"):
        monkeypatch.setattr(f"bench.runner.status.{name}", 0.01)
    status = GridStatus.begin(tmp_path, [], "bench run")
    status.beat()
    time.sleep(0.2)
    first = read_grids(tmp_path)[0]["seen"]
    time.sleep(0.2)
    (grid,) = read_grids(tmp_path)
    assert grid["seen"] > first
    assert grid["state"] == "running"
    status.end()
    assert read_grids(tmp_path)[0]["state"] == "ended"


def test_records_do_not_name_the_executor(bench):
    assert bench.run("method=dense", "executor=serial") == 0
    assert "executor=" not in bench.records()[0].command


def test_what_cannot_be_spread(bench):
    assert "one of: " in bench.refuses("executor=rai")
    assert "executor=serial runs one job after the other: leave out jobs=2" in bench.refuses("executor=serial", "jobs=2")
    assert "unknown key 'executor.gpus'" in bench.refuses("executor.gpus=1")
    assert "an executor is chosen by executor=NAME" in bench.refuses("executor.name=serial")
    assert "executor.cpus must be a number" in bench.refuses("executor=ray", "executor.cpus=two")


def test_a_worker_elsewhere_refuses_other_code_and_other_stores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check = WorkerCheck.of(tmp_path / "store" / "grids" / "grid")
    assert check.refusal() is None
    other = replace(check, host="head", versions={**check.versions, "torch": "1.0"})
    assert "has torch" in other.refusal()
    assert "head has 1.0: install the same on both" in other.refusal()
    assert f"the folder {tmp_path / 'gone'} of" in replace(check, working=str(tmp_path / "gone")).refusal()
    assert f"store={tmp_path / 'store'} is not the same folder" in replace(check, token="another").refusal()
    (tmp_path / "store" / "grids" / "grid" / "token").unlink()
    assert "is not the same folder" in check.refusal()


# on Ray


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of one node without CPUs, to which tests add others."""
    pytest.importorskip("ray")
    os.environ.update({"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"})
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield found
    found.shutdown()


def test_ray_loses_a_worker_and_a_node(tmp_path, whole, cluster):
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    process = start(tmp_path, *GRID, "jobs=2", "executor=ray", f"executor.address={cluster.address}")

    def at_work():
        return [said for said in workers(tmp_path).values() if said["training"]]

    while process.is_alive() and not at_work():
        time.sleep(0.05)
    os.kill(at_work()[0]["pid"], signal.SIGKILL)
    while process.is_alive() and not list(tmp_path.glob("store/stages/*/*/done")):
        time.sleep(0.05)
    cluster.remove_node(nodes[0], allow_graceful=False)
    assert finish(process) == 0
    cluster.remove_node(nodes[1])
    assert contents(tmp_path) == contents(whole)
    assert stages(tmp_path) == stages(whole)


def test_what_ray_cannot_do(bench, cluster, monkeypatch):
    def said(*words):
        assert bench.run("executor=ray", "jobs=auto", *words) == 1
        assert bench.err.count("\n") == 1
        return bench.err

    assert "no Ray cluster answers at executor.address=127.0.0.1:9" in said("executor.address=127.0.0.1:9")
    assert " CPUs and 0 GPUs" in said(f"executor.address={cluster.address}", "executor.gpus=0.5")
    node, check = cluster.add_node(num_cpus=1), WorkerCheck.of
    monkeypatch.setattr(WorkerCheck, "of", lambda folder: replace(check(folder), token="of another store"))
    assert f"store={bench.folder / 'store'} is not the same folder" in said(f"executor.address={cluster.address}")
    cluster.remove_node(node)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert said() == "bench: executor=ray needs Ray: pip install ticket-bench[ray]\n"
