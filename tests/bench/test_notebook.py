"""Records, runs and suites as pandas frames, and as CSV."""

import csv
import subprocess
import sys

import pytest

import bench
from bench.errors import BenchError
from bench.storage.records import read_records, write_record
from tests.bench.leaderboard.records import golden_records
from tests.bench.suites.test_verb import here, root, suite
from tests.conftest import TOY

pandas = pytest.importorskip("pandas")
root = root


def test_a_run_and_its_records_are_frames(tmp_path):
    where = {"store": tmp_path / "store", "runs": tmp_path / "runs", "jobs": 1, "threads": 1}
    made = bench.run(TOY, method="one_shot", densities=[0.5, 0.2], controls=["random"], seeds=[0], **where)
    assert list(made["control"].fillna("")) == ["", "", "random", "", "random"]
    assert list(made["density_weights"].dropna()) == [0.5, 0.5, 0.2, 0.2]
    read = bench.records(tmp_path / "runs")
    assert sorted(read["id"]) == sorted(made["id"])
    ticket = read[(read["method"] == "one_shot") & read["control"].isna() & (read["density_weights"] == 0.2)].iloc[0]
    record = next(r for r in read_records(tmp_path / "runs") if r.id == ticket["id"])
    assert ticket["test"] == record.result.test["accuracy"]
    assert ticket["dense_test"] == record.result.dense_test["accuracy"]
    with pytest.raises(BenchError, match="unknown method 'one_shoe'"):
        bench.run(TOY, method="one_shoe", **where)
    with pytest.raises(BenchError, match="no folder"):
        bench.records(tmp_path / "nowhere")


def test_a_suite_is_a_frame(bench, root):
    import bench as package

    assert suite(bench, root, "run", "toys", "method=one_shot", *here(bench)) == 0
    made = package.suite("toys", bench.folder / "runs", root)
    assert list(made["method"]) == ["one_shot"]
    assert made.iloc[0]["rank"] == 1
    assert {"toy", "toy-low"} <= set(made)


def test_records_as_csv(bench, tmp_path):
    for record in golden_records():
        write_record(record, tmp_path / "records")
    assert bench("records", str(tmp_path), "--csv", str(tmp_path / "new" / "all.csv")) == 0
    with (tmp_path / "new" / "all.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(golden_records())
    assert {"density_weights", "density_edges"} <= set(rows[0])
    diverged = next(row for row in rows if row["status"] == "diverged")
    assert (diverged["test"], diverged["reason"]) == ("", "the loss became nan at step 7")
    assert bench("records", str(tmp_path / "new"), "--csv", str(tmp_path / "none.csv")) == 1
    assert bench.err == "bench: no records there: nothing was written\n"
    assert not (tmp_path / "none.csv").exists()


def test_without_pandas_one_line_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    write_record(golden_records()[0], tmp_path)
    with pytest.raises(BenchError, match=r"pip install ticket-bench\[notebook\]"):
        bench.records(tmp_path)


def test_import_bench_loads_nothing_heavy():
    code = "import sys, bench; bench.records; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
