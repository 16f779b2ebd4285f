"""A store that several machines share: names, publishing, locks, leases, mirrors. A second host is one of another name."""

import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import fsspec
import psutil
import pytest
import torch

from bench.errors import BenchError, Held, UsageError
from bench.storage import locks
from bench.storage.records import read_records
from bench.storage.stages import Store
from bench.storage.unfinished_files import abandoned, owner

STATE = {"model/w": torch.arange(6.0)}
OTHER = {"model/w": torch.arange(6.0) + 1}
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["bench.storage.stages"])


def info(checkpoint=False):
    return {"checkpoint": checkpoint, "progress": {}}


def leased(root, seconds=1.0):
    """A store whose locks are leases."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "store.json").write_text(json.dumps({"store": "s", "locks": "lease", "lease_seconds": seconds}))
    return Store(root)


def put(root, host, tensors, checkpoint, step=5):
    """Store a stage as another host."""
    os.environ["BENCH_HOST"] = host
    return Store(root).put("k", step, tensors, info(checkpoint)).tensors()["model/w"].tolist()


# names


def test_no_two_owners_are_equal(monkeypatch):
    monkeypatch.setenv("BENCH_HOST", "node-7.cluster.example")
    one, other = owner(), owner()
    assert one != other
    assert one.rpartition(".")[0] == f"node-7-cluster-example.{os.getpid()}"


def test_what_is_abandoned(tmp_path, monkeypatch):
    living, dead = os.getpid(), 2**22 - 3
    assert not psutil.pid_exists(dead)
    monkeypatch.setenv("BENCH_HOST", "here")

    def partial(host, pid):
        path = tmp_path / f"5.{host}.{pid}.0123abcd.partial"
        path.mkdir()
        return path

    assert not abandoned(partial("here", living))
    assert abandoned(partial("here", dead))
    there = partial("there", dead)
    assert not abandoned(there)
    os.utime(there, (time.time() - 90000,) * 2)
    assert abandoned(there)
    assert abandoned(tmp_path / "5.123.partial")  # of a version that named no host


def test_a_put_leaves_the_half_written_stages_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_HOST", "there")
    theirs = tmp_path / "stages" / "k" / f"5.{owner()}.partial"
    theirs.mkdir(parents=True)
    monkeypatch.setenv("BENCH_HOST", "here")
    Store(tmp_path).put("k", 5, STATE, info())
    assert theirs.is_dir()


# publishing


def test_an_equal_stage_that_is_there_is_kept(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.put("k", 5, STATE, info())
    monkeypatch.setenv("BENCH_HOST", "there")
    again = Store(tmp_path).put("k", 5, OTHER, info())
    assert again.tensors()["model/w"].tolist() == STATE["model/w"].tolist()
    late = Store(tmp_path).put("k", 5, OTHER, info(checkpoint=True))
    assert not late.checkpoint
    assert [p.name for p in (tmp_path / "stages" / "k").iterdir()] == ["5"]


@pytest.mark.parametrize("damage", [lambda f: (f / "stage.json").write_text("{"), lambda f: (f / "done").unlink()])
def test_a_checkpoint_or_a_damaged_stage_makes_room(tmp_path, damage):
    store = Store(tmp_path)
    store.put("k", 5, STATE, info(checkpoint=True))
    assert store.put("k", 5, OTHER, info()).tensors()["model/w"].tolist() == OTHER["model/w"].tolist()
    damage(store.get("k", 5).folder)
    assert store.put("k", 5, STATE, info()).tensors()["model/w"].tolist() == STATE["model/w"].tolist()
    assert [p.name for p in (tmp_path / "stages" / "k").iterdir()] == ["5"]


def _publish_again_and_again(root, stop):
    while not stop.is_set():
        for checkpoint in (True, False):
            Store(root).put("k", 5, STATE, info(checkpoint))
        Store(root).drop("k", 5)


def test_a_reader_never_sees_half_a_stage(tmp_path):
    """It sees all of it or nothing, while another process publishes, replaces and removes it."""
    stop = processes.Event()
    writer = processes.Process(target=_publish_again_and_again, args=(tmp_path, stop))
    writer.start()
    store, seen, until = Store(tmp_path), 0, time.monotonic() + 60
    try:
        while seen < 60 and time.monotonic() < until:
            stage = store.get("k", 5)
            seen += stage is not None and stage.info["progress"] == {}
    finally:
        stop.set()
        writer.join(30)
    assert seen == 60
    assert writer.exitcode == 0


def test_evaluations_of_two_writers_are_both_kept(tmp_path):
    stage = Store(tmp_path).put("k", 5, STATE, info())
    other = Store(tmp_path).get("k", 5)
    threads = [
        threading.Thread(target=where.add_evaluation, args=(split, {"accuracy": 1.0}))
        for where, split in ((stage, "val"), (other, "test"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stage.evaluations().keys() == {"val", "test"}


# kinds of locks


def test_the_kind_is_chosen_by_the_file_system(tmp_path, monkeypatch):
    def on(system, options="rw"):
        parts = [SimpleNamespace(mountpoint=str(tmp_path), fstype=system, opts=options)]
        monkeypatch.setattr(locks.psutil, "disk_partitions", lambda all: parts)
        return locks.lock_kind(tmp_path)

    tried = []
    monkeypatch.setattr(locks, "_excludes", lambda place: tried.append(place) or True)
    assert on("ext4") == ("flock", "ext4")
    assert on("fuse.sshfs") == ("lease", "fuse.sshfs")
    assert on("nfs", "rw,vers=3") == ("lease", "nfs")
    assert on("nfs4", "rw,local_lock=flock") == ("lease", "nfs4")
    assert on("lustre", "rw,localflock") == ("lease", "lustre")
    assert tried == []
    assert on("nfs4", "rw,local_lock=none") == ("flock", "nfs4")
    assert on("lustre", "rw,flock") == ("flock", "lustre")
    assert tried == [tmp_path, tmp_path]
    monkeypatch.setattr(locks, "_excludes", lambda place: False)
    assert on("nfs4", "rw,local_lock=none") == ("lease", "nfs4")


def test_two_processes_try_the_lock(tmp_path, monkeypatch):
    assert locks._excludes(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(locks, "_PROBE", "")  # a process that gets the lock all the same
    assert not locks._excludes(tmp_path)


def test_a_machine_that_cannot_use_the_kind_of_a_store_is_refused(tmp_path, monkeypatch):
    with Store(tmp_path).lock("k"):
        pass
    facts = json.loads((tmp_path / "store.json").read_text())
    assert facts["locks"] == "flock"
    monkeypatch.setattr(locks, "lock_kind", lambda folder: ("lease", "cifs"))
    with pytest.raises(BenchError, match=r"was begun with flock on .*does not hold on cifs.*\"locks\": \"lease\""):
        Store(tmp_path).held("k")
    (tmp_path / "store.json").write_text(json.dumps(facts | {"locks": "lease"}))
    assert not Store(tmp_path).held("k")
    monkeypatch.setattr(locks, "lock_kind", lambda folder: ("flock", "ext4"))
    assert not Store(tmp_path).held("k")  # whoever could use flock uses what the store says
    assert json.loads((tmp_path / "store.json").read_text())["locks"] == "lease"


def test_a_damaged_store_json_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "store.json").write_text("{")
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: None)
    with pytest.raises(BenchError, match=r"store.json is damaged: delete it while nothing runs"):
        Store(tmp_path).held("k")


def test_flock_never_turns_into_another_kind(tmp_path, monkeypatch):
    import errno
    import fcntl

    store = Store(tmp_path)
    assert not store.held("k")

    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(BenchError, match=r"store .* cannot be locked"):
        store.held("k")


# leases


def test_a_lease_is_held_and_given_back(tmp_path):
    store, other = leased(tmp_path, 30), Store(tmp_path)
    with store.lock("k"):
        with pytest.raises(Held, match="another process trains stage k"), other.lock("k", wait=False):
            pass
        assert not store.locks.lost("k")
    assert not other.held("k")


def _hold_and_store(root, begun, go, said):
    """A process that takes the lease, is stopped, and goes on when it is another's."""
    os.environ["BENCH_HOST"] = "stopped"
    store = Store(root)
    with store.lock("k"):
        store.put("k", 3, STATE, info(checkpoint=True))
        begun.set()
        go.wait(60)
        until = time.monotonic() + 20
        while not store.locks.lost("k") and time.monotonic() < until:
            time.sleep(0.02)
        try:
            store.put("k", 4, STATE, info(checkpoint=True))
            said.put("stored a checkpoint")
        except Held:
            said.put("held")
        said.put(store.put("k", 5, OTHER, info()).tensors()["model/w"].tolist())


def test_a_holder_that_is_stopped_past_its_lease(tmp_path):
    """Another process takes the training up from its checkpoint. What the stopped one stores afterwards changes nothing."""
    store = leased(tmp_path, 1.0)
    begun, go, said = processes.Event(), processes.Event(), processes.Queue()
    holder = processes.Process(target=_hold_and_store, args=(tmp_path, begun, go, said))
    holder.start()
    assert begun.wait(60)
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        while True:  # never waiting at the lock itself, as workers do
            try:
                with store.lock("k", wait=False):
                    assert store.latest("k", 5).step == 3
                    store.put("k", 5, STATE, info())
                break
            except Held:
                assert time.monotonic() - began < 30
                time.sleep(0.1)
        assert time.monotonic() - began > 0.9
    finally:
        os.kill(holder.pid, signal.SIGCONT)
    go.set()
    assert said.get(timeout=30) == "held"
    assert said.get(timeout=30) == STATE["model/w"].tolist()
    holder.join(30)
    assert holder.exitcode == 0
    assert [p.name for p in (tmp_path / "stages" / "k").iterdir()] == ["5"]


# mirrors


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    """A mirror's address."""
    if request.param == "file":
        return f"file://{tmp_path}/bucket"
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket/prefix"


def machine(url, tmp_path, monkeypatch, name):
    """The store of a machine of its own, which shares nothing but the mirror."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / name))
    monkeypatch.setenv("BENCH_HOST", name)
    return Store(url)


def test_a_mirror_brings_finished_stages_to_other_machines(url, tmp_path, monkeypatch):
    here, there = (machine(url, tmp_path, monkeypatch, name) for name in ("here", "there"))
    assert here.get("k", 5) is None
    assert here.latest("k", 9) is None
    here.put("k", 3, STATE, info(checkpoint=True))
    assert there.latest("k", 9) is None
    here.put("k", 5, STATE, info()).add_evaluation("val", {"accuracy": 70.1})
    found = there.latest("k", 9)
    assert (found.step, found.info) == (5, info())
    assert torch.equal(found.tensors()["model/w"], STATE["model/w"])
    assert found.evaluations() == {"val": {"accuracy": 70.1}}
    assert found.folder.is_relative_to(tmp_path / "there")
    found.add_evaluation("test", {"accuracy": 70.2})
    third = machine(url, tmp_path, monkeypatch, "third")
    assert third.get("k", 5).evaluations().keys() == {"val", "test"}
    assert not list(tmp_path.rglob("*.partial"))


def test_the_first_to_publish_counts(url, tmp_path, monkeypatch):
    """Two machines trained one key at a time: whoever comes later finds one of the two, whole."""
    here, there = (machine(url, tmp_path, monkeypatch, name) for name in ("here", "there"))
    here.put("k", 5, STATE, info())
    there.put("k", 5, OTHER, info())
    third = machine(url, tmp_path, monkeypatch, "third")
    assert torch.equal(third.get("k", 5).tensors()["model/w"], STATE["model/w"])


def test_what_is_not_whole_in_a_mirror_is_not_there(url, tmp_path, monkeypatch):
    here, there = (machine(url, tmp_path, monkeypatch, name) for name in ("here", "there"))
    stage = here.put("k", 5, STATE, info())
    files, at = here.mirror._files, f"{here.mirror._root}/stages/k/5"
    files.pipe_file(f"{at}/done", (stage.folder / "done").read_bytes()[:20])
    assert there.get("k", 5) is None
    files.pipe_file(f"{at}/done", (stage.folder / "done").read_bytes())
    weights = json.loads((stage.folder / "done").read_text())["state.safetensors"]
    files.pipe_file(f"{at}/{weights}", b"something else")
    with pytest.raises(BenchError, match=r"bucket.*/stages/k/5 is damaged: delete it and run again"):
        there.get("k", 5)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_grid_on_a_mirror(url, bench, monkeypatch, trainings):
    """The second machine trains nothing, and its records are the same."""
    contents, counts = [], []
    for name in ("here", "there"):
        monkeypatch.setenv("BENCH_CACHE", str(bench.folder / name))
        runs = bench.folder / "runs" / name
        assert bench.run("method=[dense,one_shot]", f"store={url}", f"runs={runs}") == 0
        contents.append([(r.id, r.content()) for r in read_records(runs)])
        counts.append(len(trainings))
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3
    assert counts[0] == counts[1] > 0
    assert bench("status", f"store={url}", "--all") == 0
    assert "ended on" in bench.out
    assert bench("store", "show", "--store", url, "--runs", f"{bench.folder}/runs", "--json") == 0
    assert sum(row["stages"] for row in json.loads(bench.out)) == 3


def test_a_mirror_that_is_not_to_be_had(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="store=nonsense://bucket: "):
        Store("nonsense://bucket")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(
        importlib.import_module("fsspec.registry")._registry, "s3", raising=False
    )  # another test may have loaded it
    with pytest.raises(UsageError, match=r"store=s3://bucket needs a package: pip install 'ticket-bench\[s3\]'"):
        Store("s3://bucket")
    store = Store(f"file://{tmp_path}/bucket")

    def broken(*_, **__):
        raise ConnectionResetError("peer went away")

    with monkeypatch.context() as away:
        away.setattr(store.mirror._files, "exists", broken)
        with pytest.raises(BenchError, match=r"mirror file.* cannot be used .ConnectionResetError: peer went away.*run the same"):
            store.put("k", 5, STATE, info())
    assert store.get("k", 5) is not None


@pytest.mark.parametrize("what", ["put_file", "pipe_file"])
def test_what_was_not_sent_is_sent_when_it_is_next_met(url, tmp_path, monkeypatch, what):
    """The upload of a stage fails at its weights or at the file ``done``, and that of its metrics fails."""
    here, there = (machine(url, tmp_path, monkeypatch, name) for name in ("here", "there"))

    def broken(*_, **__):
        raise ConnectionResetError("peer went away")

    with monkeypatch.context() as away:
        away.setattr(here.mirror._files, what, broken)
        with pytest.raises(BenchError, match="peer went away"):
            here.put("k", 5, STATE, info())
        assert there.get("k", 5) is None
        with pytest.raises(BenchError, match="peer went away"):
            here.get("k", 5)
    stage = here.get("k", 5)
    assert there.get("k", 5).tensors().keys() == STATE.keys()
    with monkeypatch.context() as away:
        away.setattr(here.mirror._files, "pipe_file", broken)
        with pytest.raises(BenchError, match="peer went away"):
            stage.add_evaluation("val", {"accuracy": 70.1})
    assert stage.evaluations() == {"val": {"accuracy": 70.1}}
    here.get("k", 5)
    third = machine(url, tmp_path, monkeypatch, "third")
    assert third.get("k", 5).evaluations() == {"val": {"accuracy": 70.1}}
    sent = []
    monkeypatch.setattr(here.mirror, "publish", lambda *stage: sent.append(stage))
    here.get("k", 5)
    assert sent == []
