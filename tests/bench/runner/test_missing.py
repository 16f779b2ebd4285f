"""Missing records: which commands make them, in which order they are run, and that running them fills the gaps."""

import json

import pytest
import yaml

from bench.cli import main
from bench.errors import UsageError
from bench.runner.missing import Estimate, MissingRun, local_only, order, parse_hours
from bench.storage.records import read_records, write_record
from tests.bench.claims.toy_claims import CLAIM, both
from tests.conftest import TOY


def missing(name, *gaps):
    return MissingRun(name, None, None, frozenset(gaps))


def planned(wanted, estimates, limit=float("inf")):
    """(command, hours, gaps filled) of every step."""
    return [(step.run.command, round(step.hours, 6), step.fills) for step in order(wanted, estimates, limit)]


def test_what_fills_most_gaps_an_hour_comes_first():
    """a: 1 h for one gap. b and c: 2 and 2 h, of which 1 h is shared, fill two gaps together, none alone. d: 1 h, three gaps."""
    a, b, c, d = missing("a", "A"), missing("b", "BC1", "BC2"), missing("c", "BC1", "BC2"), missing("d", "D1", "D2", "D3")
    hour = {name: {(name, 1): 3600.0} for name in "abcd"}
    shared = {("shared", 1): 3600.0}
    estimates = {
        a: Estimate(hour["a"]),
        b: Estimate({**hour["b"], **shared}),
        c: Estimate({**hour["c"], **shared}),
        d: Estimate(hour["d"]),
    }
    everything = [("d", 1.0, ("D1", "D2", "D3")), ("a", 1.0, ("A",)), ("b", 2.0, ()), ("c", 1.0, ("BC1", "BC2"))]
    assert planned([a, b, c, d], estimates) == everything
    assert planned([a, b, c, d], estimates, limit=2.5) == everything[:2]
    assert planned([a, b, c, d], estimates, limit=0.5) == []


def test_a_cheaper_gap_comes_first_and_what_is_stored_is_free():
    a, b, c = missing("a", "A"), missing("b", "B"), missing("c", "C")
    estimates = {a: Estimate({("a", 1): 7200.0}), b: Estimate({("b", 1): 1800.0}), c: Estimate({})}
    assert [name for name, _, _ in planned([a, b, c], estimates)] == ["c", "b", "a"]


def test_what_cannot_be_run_here_is_last_and_takes_its_gaps_with_it():
    a, b = missing("a", "AB"), missing("b", "AB", "B")
    steps = order([a, b], {a: Estimate(impossible="no data"), b: Estimate({("b", 1): 3600.0})})
    assert [(s.run.command, s.fills, s.impossible) for s in steps] == [("b", ("B",), ""), ("a", (), "no data")]


def test_times():
    assert (parse_hours("8h"), parse_hours("90m"), parse_hours("2d"), parse_hours("0.5h")) == (8, 1.5, 48, 0.5)
    for text in ("8", "h", "8 hours", "-1h"):
        with pytest.raises(UsageError, match=r"--within .*: give a number of hours, minutes or days, such as 8h, 90m or 2d"):
            parse_hours(text)


def test_the_command_line_says_only_where_to_run():
    assert local_only(["jobs=2", "executor=slurm", "executor.time=5"]) == ["jobs=2", "executor=slurm", "executor.time=5"]
    with pytest.raises(UsageError, match=r"train.lr=1: only where to run is said here"):
        local_only(["train.lr=1"])


@pytest.fixture
def ledger(tmp_path):
    """A ledger of one claim, and the words that run what it lacks."""
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "p.yaml").write_text(yaml.safe_dump({"paper": "Paper 2020", "claims": [CLAIM]}))
    (tmp_path / "records").mkdir()
    where = (f"store={tmp_path}/store", f"runs={tmp_path}/runs", "jobs=1", "threads=1")
    return ("--root", str(tmp_path), "--run"), where


def test_claims_that_were_not_run_are_run(ledger, tmp_path, capsys, monkeypatch):
    flags, where = ledger
    monkeypatch.setattr("bench.lab.dry_run.PlanLab.seconds_per_step", lambda lab: 3600.0)
    assert main(["claims", *flags, "--dry-run", "--json", *where]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    # dense, imp and random at 0.5 and, as the chain is the protocol's, at 0.2: 5 trainings of 24 steps and 3 seeds
    assert row["hours"] == pytest.approx(5 * 24 * 3)
    assert row["fills"].startswith("ticket-beats-random at toy")
    assert row["command"].startswith(
        f"bench run {TOY} data=points protocol=smoke method=imp method.rewind=init 'controls=[random]'"
    )
    assert not (tmp_path / "store").exists()
    assert main(["claims", *flags, *where]) == 0
    printed = capsys.readouterr()
    assert "3 jobs, about 3.6e+02 hours" in printed.err
    assert printed.out.endswith(f"then: bench publish {tmp_path}/runs && bench leaderboard && bench claims\n")
    assert {r.identity.seed for r in read_records(tmp_path / "runs")} == {0, 1, 2}
    assert main(["claims", *flags, "--dry-run", "--json", *where]) == 0  # run, but not published
    (row,) = json.loads(capsys.readouterr().out)
    assert row["hours"] == 0
    (tmp_path / "records").rmdir()
    (tmp_path / "runs").rename(tmp_path / "records")
    assert main(["claims", *flags, *where]) == 0
    assert capsys.readouterr().out == "nothing is missing\n"


def test_seeds_that_are_published_are_not_run_again(ledger, tmp_path, capsys):
    flags, where = ledger
    for record in both([80.0, 81.0], [70.0, 71.0]):
        write_record(record, tmp_path / "records")
    assert main(["claims", *flags, "--dry-run", "--json", *where]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert "'seeds=[2]'" in row["command"]


def test_filters_and_bad_input_of_claims(ledger, capsys):
    flags, where = ledger
    for words, status, said in (
        (("--paper", "nobody"), 2, "no claim is of a paper 'nobody'"),
        (("--within", "soon"), 2, "--within soon: give a number of hours"),
        (("--protocol", "paper"), 0, "nothing is missing"),
        (("--within", "0m"), 1, "nothing that is missing can be run here in that time: see --dry-run"),
        (("train.lr=1",), 2, "train.lr=1: only where to run"),
    ):
        assert main(["claims", *flags, *where, *words]) == status
        printed = capsys.readouterr()
        assert said in printed.out + printed.err


def test_rows_of_code_from_outside_are_left_to_their_authors(bench):
    """The toy task is none of the repository's."""
    assert bench.run("method=imp", "seeds=[0]") == 0
    assert bench.run("method=imp", "densities=[0.5]", "seeds=[1]") == 0
    (bench.folder / "runs").rename(bench.folder / "records")
    assert bench("leaderboard", "--root", str(bench.folder), "--run", "--dry-run") == 0
    assert bench.out == "nothing is missing\n"


def test_empty_cells_of_a_leaderboard_are_filled(bench, monkeypatch):
    """imp has two densities and a control for seed 0, one density for seed 1; one_shot, of one density and seed, lacks none."""
    assert bench.run("method=imp", "densities=[0.5,0.2]", "controls=[random]", "seeds=[0]") == 0
    assert bench.run("method=imp", "densities=[0.5]", "seeds=[1]") == 0
    assert bench.run("method=one_shot", "densities=[0.5]", "seeds=[0]") == 0
    (bench.folder / "runs").rename(bench.folder / "records")
    monkeypatch.setattr("bench.registry.foreign", lambda words: [])
    flags = ("leaderboard", "--root", str(bench.folder), "--run", "jobs=1", "threads=1")
    where = (f"store={bench.folder}/store", f"runs={bench.folder}/runs")
    assert bench(*flags, "--dry-run", "--json", *where) == 0
    (row,) = json.loads(bench.out)
    assert "'seeds=[1]'" in row["command"]
    assert "controls=[random]" in row["command"]
    assert row["fills"].count("seed 1") == 3  # imp at 0.2, random at 0.5 and 0.2
    assert bench(*flags, *where) == 0
    made = {(r.identity.densities.get("weights"), r.identity.control) for r in bench.records()}
    assert made == {(None, None), (0.5, None), (0.2, None), (0.5, "random"), (0.2, "random")}
    for path in (bench.folder / "runs").rglob("*.json"):
        (bench.folder / "records" / path.relative_to(bench.folder / "runs")).write_bytes(path.read_bytes())
    assert bench(*flags, *where) == 0
    assert bench.out == "nothing is missing\n"
