"""``bench suite`` on the toy task, end to end."""

import json
import re

import pytest
import yaml

from bench.suites import entry
from bench.suites.schema import Suite
from tests.conftest import TOY

EVENT = {
    "name": "toy",
    "domain": "points",
    "task": TOY,
    "data": "points",
    "model": "mlp",
    "protocol": "smoke",
    "densities": [0.5, 0.25],
    "seeds": 3,
    "chance": 1.0,
}


@pytest.fixture
def root(tmp_path):
    """A leaderboards folder with a suite of two events."""
    draft = Suite.model_validate({"name": "toys", "version": 1, "about": "Toys.", "events": [{**EVENT, "config": "0" * 8}]})
    config = entry.configuration(entry.settings(draft, draft.events[0], [])[0])
    events = [{**EVENT, "config": config}, {**EVENT, "config": config, "name": "toy-low", "densities": [0.2]}]
    (tmp_path / "leaderboards" / "suites").mkdir(parents=True)
    (tmp_path / "leaderboards" / "records").mkdir()
    path = tmp_path / "leaderboards" / "suites" / "toys.yaml"
    path.write_text(yaml.safe_dump({"name": "toys", "version": 1, "about": "Toys.", "events": events}))
    return path.parents[1]


def suite(bench, root, *words):
    """``bench suite`` with the fixtures' folders."""
    return bench("suite", *words, "--root", str(root))


def here(bench):
    """Where a run of the tests keeps what it makes."""
    return "threads=1", "jobs=1", f"store={bench.folder / 'store'}", f"runs={bench.folder / 'runs'}"


def test_a_row_is_planned_run_judged_before_it_is_published_and_then_ranked(bench, root, monkeypatch):
    monkeypatch.setattr("bench.runner.jobs.environment", lambda: {"git_dirty": False, "threads": 1})
    assert suite(bench, root, "run", "toys", "method=one_shot", *here(bench), "--dry-run", "--json") == 0
    first, second = json.loads(bench.out)
    assert (first["event"], first["to_train"], second["to_train"]) == ("toy", 3 * 5, 3 * 3)  # dense, tickets and random masks
    assert suite(bench, root, "run", "toys", "method=one_shot", *here(bench)) == 0
    assert suite(bench, root, "run", "toys", "method=one_shot", *here(bench), "--dry-run", "--json") == 0
    assert [row["to_train"] for row in json.loads(bench.out)] == [0, 0]
    assert suite(bench, root, "show") == 0
    assert "no method is whole yet" in bench.out
    assert suite(bench, root, "show", "toys", "--runs", str(bench.folder / "runs"), "--json") == 0
    (row,) = json.loads(bench.out)
    assert (row["rank"], row["method"], row["has_random"], row["missing"]) == (1, "one_shot", 2, {})
    assert row["score"] == pytest.approx(sum(row["events"].values()) / 2)
    assert bench("publish", str(bench.folder / "runs"), "--root", str(root)) == 0
    front = root.parent / "README.md"
    front.write_text("# Toys\n\n<!-- results\n- {suite: toys, title: Best, rows: 1}\n-->\n<!-- /results -->\n")
    assert bench("leaderboard", "--root", str(root)) == 0
    assert bench("leaderboard", "--check", "--root", str(root)) == 0
    assert re.search(r"Best\n\n\| Rank +\| Method .*\n.*\n\| 1 +\| \*\*one_shot\*\*", front.read_text())
    page = (root / "suite_toys.md").read_text()
    assert re.search(r"\| 1 +\| \*\*one_shot\*\* +\| -?\d", page)
    index = (root / "README.md").read_text()
    assert index.index("## Suite toys") < index.index("## How to read") < index.index("## Tables")
    (root / "suite_toys.md").write_text(page.replace("Toys.", "Mine."))
    assert bench("leaderboard", "--check", "--root", str(root)) == 1
    assert "suite_toys.md" in bench.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "needs the name of a suite"),
        (["run", "method=imp"], "needs the name of a suite"),
        (["run", "toys"], "say which method"),
        (["run", "toy", "method=imp"], "unknown suite 'toy'; did you mean toys"),
        (["run", "toys", "method=impp"], "unknown method 'impp'"),
        (["run", "toys", "method=imp", "seeds=[7]"], "suite toys fixes seeds"),
        (["run", "toys", "method=imp", "train.lr=3"], "suite toys fixes train.lr"),
        (["run", "toys", "method=imp", "densities=[0.1]"], "suite toys fixes densities"),
        (["show", "toys", "method=imp"], "takes no method=imp"),
    ],
)
def test_what_cannot_be_understood_is_one_line(bench, root, words, message):
    assert suite(bench, root, *words) == 2
    assert message in bench.err
    assert bench.err.count("\n") == 1
    assert not (bench.folder / "store").exists()


def test_a_configuration_that_changed_since_the_suite_was_made_is_one_line(bench, root):
    path = root / "suites" / "toys.yaml"
    path.write_text(path.read_text().replace("config: ", "config: '0000000'\n  # "))
    path.write_text(path.read_text().replace("'0000000'", "'00000000'"))
    assert suite(bench, root, "run", "toys", "method=imp", *here(bench), "--dry-run") == 2
    assert "now has configuration" in bench.err
    assert bench.err.count("\n") == 1


def test_a_damaged_suite_stops_the_leaderboards_in_one_line(bench, root):
    (root / "suites" / "toys.yaml").write_text("events: [")
    assert bench("leaderboard", "--root", str(root)) == 2
    assert "toys.yaml is not readable YAML" in bench.err
    assert bench.err.count("\n") == 1
