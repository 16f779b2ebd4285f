"""What a store holds, and cleaning it: nothing goes that a record or a running grid needs."""

import json
import os
import time
from pathlib import Path

import pytest

from bench.runner.status import write_status
from bench.storage import inventory
from bench.storage.stages import Store
from bench.storage.unfinished_files import DAY, owner
from tests.conftest import Bench


def store(bench: Bench, *words: str) -> int:
    """``bench store`` on the test's own folders."""
    return bench(
        "store", *words, "--store", f"{bench.folder}/store", "--runs", f"{bench.folder}/runs", "--root", f"{bench.folder}"
    )


def shown(bench: Bench, what: str = "show") -> dict[tuple[str, str], int]:
    """Task and method -> stages."""
    assert store(bench, what, "--json") == 0
    return {(row["task"], row["method"]): row["stages"] for row in json.loads(bench.out)}


def said(path: Path) -> dict:
    """What a grid said of itself."""
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "sum"}


def end_grids(bench: Bench) -> None:
    """As if every grid had ended long ago."""
    for path in (bench.folder / "store" / "grids").glob("*/grid.json"):
        write_status(path, said(path) | {"ended": True})


def test_sizes_by_task_method_and_age(bench):
    """The dense network, two tickets of imp; the first ticket is also a round of the search for the second."""
    assert bench.run("method=imp") == 0
    assert shown(bench) == {("toy", "dense"): 1, ("toy", "imp"): 2}
    sizes = sum(f.stat().st_size for f in (bench.folder / "store" / "stages").rglob("*") if f.is_file())
    old = bench.stages()[0]
    for file in old.iterdir():
        os.utime(file, (time.time() - 8 * DAY,) * 2)
    assert store(bench, "show", "--json") == 0
    rows = json.loads(bench.out)
    assert sum(row["bytes"] for row in rows) == sizes
    assert {row["age"]: row["stages"] for row in rows if row["age"] != "under a day"} == {"under a month": 1}
    assert store(bench, "show") == 0
    assert "in 3 stages" in bench.out


def test_a_record_keeps_its_stages(bench):
    assert bench.run("method=[imp,one_shot]") == 0
    for record in bench.records():
        if record.identity.method == "one_shot":
            bench.path(record).unlink()
    kept = {("toy", "dense"): 1, ("toy", "imp"): 2}  # the first tickets of both methods are one training
    assert shown(bench) == {**kept, ("toy", "(no record)"): 1}
    assert shown(bench, "clean") == {("toy", "(no record)"): 1}
    assert store(bench, "clean") == 0
    assert "--yes" in bench.out
    assert len(bench.stages()) == 4
    assert store(bench, "clean", "--yes") == 0
    assert bench.out.splitlines()[-1].startswith("freed ")
    assert "1 stages removed" in bench.out.splitlines()[-1]
    assert shown(bench) == kept
    before = {r.id: r.content() for r in bench.records()}
    assert bench.run("method=[imp,one_shot]") == 0  # what was removed is trained again
    assert before.items() <= {r.id: r.content() for r in bench.records()}.items()


def test_published_records_and_analyses_keep_stages(bench):
    assert bench.run("method=one_shot") == 0
    (bench.folder / "runs").rename(bench.folder / "records")
    (bench.folder / "runs").mkdir()
    assert shown(bench, "clean") == {}
    overrides = (f"store={bench.folder}/store", f"runs={bench.folder}/runs", "jobs=1", "threads=1")
    assert bench("analyse", "travel", str(Path(__file__).parents[2] / "toy"), *overrides) == 0
    (bench.folder / "records").rename(bench.folder / "elsewhere")
    assert ("toy", "dense") not in shown(bench, "clean")
    assert any("travel" in method for _, method in shown(bench))


def test_a_running_grid_keeps_what_it_may_need(bench):
    assert bench.run("method=dense") == 0
    bench.path(bench.record("dense")).unlink()
    (grid,) = (bench.folder / "store" / "grids").glob("*/grid.json")
    before = said(grid)

    def running(**more):
        write_status(grid, before | {"ended": False, "seen": time.time()} | more)
        return shown(bench, "clean")

    assert running() == {}
    assert running(tasks=["other"], started=time.time() - 3600) == {}  # the stage was stored since
    assert running(tasks=["other"], started=time.time() + 3600) == {("toy", "(no record)"): 1}
    assert running(seen=time.time() - 3600) == {("toy", "(no record)"): 1}  # it was killed
    grid.write_text("{")
    assert store(bench, "clean") == 1
    assert "grid.json cannot be read, so the grid that writes it may need any stage" in bench.err


def test_what_is_being_trained_stays(bench):
    assert bench.run("method=dense") == 0
    bench.path(bench.record("dense")).unlink()
    (stage,) = bench.stages()
    with Store(bench.folder / "store").lock(stage.parent.name):
        assert store(bench, "clean", "--yes") == 0
    assert "0 stages removed" in bench.out
    assert bench.stages() == [stage]


def test_half_written_stages_go_when_nobody_writes_them(bench, monkeypatch):
    (bench.folder / "runs").mkdir()
    home = bench.folder / "store" / "stages" / "k"
    (home / f"3.{owner()}.partial").mkdir(parents=True)
    (home / "4.123.partial").mkdir()
    assert shown(bench, "clean") == {("(unknown)", "(no record)"): 1}
    assert store(bench, "clean", "--yes") == 0
    assert len(list(home.iterdir())) == 1


def test_bad_input_is_one_line(bench):
    assert store(bench, "show") == 1
    assert bench.err == f"bench: no store at {bench.folder}/store: give the store=DIR of a bench run\n"
    (bench.folder / "store").mkdir()
    assert store(bench, "show") == 0
    assert store(bench, "clean", "--yes") == 1
    assert bench.err.startswith(f"bench: no folder of records {bench.folder}/runs: give the runs=DIR of every bench run")
    assert bench.err.count("\n") == 1
    (bench.folder / "runs").mkdir()
    (bench.folder / "runs" / "x.json").write_text("{")
    assert store(bench, "clean", "--yes") == 1
    assert "x.json is not a readable record" in bench.err


def test_derived_states_and_damaged_stages(tmp_path):
    """A state that is made of another is named after it; a stage that cannot be read has no task."""
    record = {"identity": {"method": "lottery"}, "ticket": {"stages": ["b/9"], "start": "a resample 3/5"}}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r.json").write_text(json.dumps(record))
    for name in ("a/5", "b/9", "c/9"):
        folder = tmp_path / "store" / "stages" / name
        folder.mkdir(parents=True)
        (folder / "stage.json").write_text("{")
    found = inventory.entries(tmp_path / "store", [tmp_path / "runs"])
    assert {(e.key, e.method, e.task) for e in found} == {("a", "lottery", ""), ("b", "lottery", ""), ("c", "", "")}


# how much disk a grid takes


def test_a_dry_run_says_how_much_is_stored(bench):
    assert bench.run("method=[imp,one_shot]", "seeds=[0,1]", "--dry-run", "--json") == 0
    told = sum(row["disk_mb"] for row in json.loads(bench.out))
    assert bench.run("method=[imp,one_shot]", "seeds=[0,1]") == 0
    tensors = sum(path.stat().st_size for path in (bench.folder / "store").rglob("state.safetensors"))
    assert 0.5 * tensors < told * 1e6 <= tensors  # the rest are headers, large beside so small a network
    assert bench.run("method=[imp,one_shot]", "seeds=[0,1]", "--dry-run", "--json") == 0
    assert sum(row["disk_mb"] for row in json.loads(bench.out)) == 0


@pytest.mark.parametrize("words", [("method=one_shot", "seeds=[0,1]"), ("method=dense",)])
def test_a_run_says_how_much_it_will_store(bench, monkeypatch, words):
    monkeypatch.setattr("bench.verbs.run_jobs.WORTH_A_LINE", 1)
    assert bench.run(*words) == 0
    first = bench.err.splitlines()[0]
    assert first.startswith("this will store about ")
    tensors = sum(path.stat().st_size for path in (bench.folder / "store").rglob("state.safetensors"))
    told = float(first.split("about ")[1].split(" kB")[0]) * 1e3
    assert 0.5 * tensors < told <= tensors
    assert f"in {bench.folder}/store, where " in first


def test_too_little_disk_is_said(bench, monkeypatch):
    monkeypatch.setattr("bench.verbs.run_jobs.WORTH_A_LINE", 1)
    monkeypatch.setattr("bench.runner.plan.shutil.disk_usage", lambda place: __import__("types").SimpleNamespace(free=100))
    assert bench.run("method=dense") == 0
    assert "where 100 B are free: give another store=DIR, or see `bench store clean`" in bench.err
