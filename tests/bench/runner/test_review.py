"""Submissions: what a review refuses and what it finds odd, which records are run again, and what is kept of that."""

import subprocess

import pytest

from bench.cli import main
from bench.errors import BenchError
from bench.leaderboard import pages
from bench.runner import review
from bench.runner.publish import publish
from bench.storage import reruns
from bench.storage.records import Record, write_record
from tests.bench.leaderboard.records import WEIGHTS, record, several

TASK = "gcn_planetoid"


class Repository:
    """A repository with empty leaderboards, to which records are submitted."""

    def __init__(self, folder):
        self.folder, self.root = folder, folder / "leaderboards"
        self.git("init", "-q", "-b", "main")
        (self.root / "records").mkdir(parents=True)
        (self.root / "RULES.md").write_text("rules")
        self.commit()
        self.base = self.git("rev-parse", "HEAD")

    def git(self, *words):
        names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", str(self.folder), *names, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self):
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "change")

    def add(self, records, commit=None, dirty=False, **identity):
        """Write records as if made by a commit of this repository; ``identity``: fields to be changed."""
        paths = []
        for r in records:
            fields = {
                name: getattr(r, name) for name in Record.model_fields if name not in ("id", "digest", "identity", "environment")
            }
            environment = {"git_commit": commit or self.base, "git_dirty": dirty}
            made = Record.make(r.identity.model_copy(update=identity), **fields, environment=environment)
            paths.append(write_record(made, self.root / "records"))
        return paths

    def review(self, base=None):
        self.commit()
        return review.review(base or self.base, self.root)


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def submission(**fields):
    """A dense network, a method and its random control, three seeds each."""
    given = {"task": TASK, "version": review._task_version(TASK), **fields}
    return (
        several([90.0, 91.0, 92.0], **{**given, "method": "dense"}),
        several([88.0, 90.5, 91.0], densities=WEIGHTS, **given),
        several([70.0, 73.0, 75.0], densities=WEIGHTS, control="random", **given),
    )


def test_a_whole_row_keeps_the_rules(repository, capsys, monkeypatch):
    for records in submission():
        repository.add(records)
    found = repository.review()
    assert (found.refused, found.smells, len(found.added)) == ([], [], 9)
    monkeypatch.chdir(repository.folder)
    assert main(["review", repository.base]) == 0
    assert "9 new records keep the rules; 0 things to look at" in capsys.readouterr().out
    assert main(["review", "no-such-branch"]) == 1
    assert "name a commit of this repository as BASE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, d, t, c: r.add(d + t), "no control random of the same seeds beside it"),
        (lambda r, d, t, c: r.add(d + t[:1] + t[2:] + c), "seeds [0, 2] are not 0, 1, 2, ... without gaps"),
        (lambda r, d, t, c: r.add(d[1:] + t + c), "no dense network of seed 0 beside it"),
        (lambda r, d, t, c: r.add(d + t + c, protocol="smoke"), "smoke only shows that the code runs"),
        (lambda r, d, t, c: r.add(d + t + c, commit="f" * 40), "made by commit ffffffffffff, which the history"),
        (lambda r, d, t, c: r.add(d + t + c, commit="--help"), ".json and 8 more: made by commit --help"),
        (lambda r, d, t, c: r.add(d + t + c, dirty=True), "uncommitted changes"),
        (lambda r, d, t, c: r.add(d + t + c, task_version=99), "task version 99, and the task has"),
        (lambda r, d, t, c: r.add(d + t + c, task="elsewhere"), "task elsewhere is not of this repository"),
        (lambda r, d, t, c: r.add(d + t + c, method="my.py:f"), "method my.py:f is not of this repository"),
        (lambda r, d, t, c: r.add(d + t + c)[0].rename(r.root / "records" / "a.json"), "is not at its own place"),
        (lambda r, d, t, c: r.add(d + t + c)[0].write_text("{"), "is not readable JSON"),
        (lambda r, d, t, c: (r.add(d + t + c), (r.folder / "code.py").write_text("1")), "records come without other changes"),
    ],
)
def test_what_breaks_a_rule_is_refused(repository, change, message):
    change(repository, *submission())
    found = repository.review()
    assert any(message in line for line in found.refused), found.refused
    assert all("\n" not in line for line in found.refused)


def test_tables_on_pages_change_with_records_and_their_prose_does_not(repository):
    page = repository.folder / "docs" / "speed.md"
    page.parent.mkdir()
    page.write_text("Speed\n<!-- results: measured\n- analysis: speed\n-->\nold\n<!-- /results -->\n")
    repository.commit()
    base = repository.git("rev-parse", "HEAD")
    for records in submission():
        repository.add(records)
    page.write_text(page.read_text().replace("old", "new"))
    assert repository.review(base).refused == []
    page.write_text(page.read_text().replace("Speed", "Great speed"))
    assert repository.review(base).refused == [
        "records come without other changes, and docs/speed.md changes too: make two pull requests of it"
    ]


def test_a_published_record_is_neither_edited_nor_removed(repository):
    dense, ticket, control = submission()
    first, second, *_ = repository.add(dense)
    repository.commit()
    base = repository.git("rev-parse", "HEAD")
    first.write_text(first.read_text() + " ")
    second.unlink()
    repository.add(ticket + control)
    refused = repository.review(base).refused
    assert {word for line in refused for word in ("edited", "removed") if f": {word}:" in line} == {"edited", "removed"}
    assert any("no dense network of seed 1" in line for line in refused)


def test_what_is_odd_is_said_and_not_refused(repository):
    dense, ticket, control = submission()
    same = several([90.0] * 3, densities={"weights": 0.3}, task=TASK, version=review._task_version(TASK))
    free = several([88.0, 90.5, 91.0], densities={"weights": 0.2}, task=TASK, version=review._task_version(TASK), search=0.0)
    repository.add(dense + ticket + control + same + free)
    smells = repository.review().smells
    assert any("all 3 seeds have 90" in line for line in smells)
    assert any("searched 20 steps at no cost" in line for line in smells)


def test_costs_spreads_and_dense_networks_that_cannot_be_are_odd(repository):
    dense, ticket, control = submission()
    given = {"task": TASK, "version": review._task_version(TASK)}

    def costing(density, **cost):
        made = several([88.0, 90.5, 91.0], densities={"weights": density}, **given)
        return [r.model_copy(update={"cost": r.cost.model_copy(update=cost)}) for r in made]

    narrow = several([88.0, 88.001, 88.002], densities={"weights": 0.4}, **given)
    alone = [record(3, 40.0, densities={"weights": 0.1}, dense=60.0, **given)]
    repository.add([*dense, *ticket, *control, *narrow, *alone])
    repository.add([*costing(0.3, train_seconds=0.001), *costing(0.2, inference_macs=2000.0)])
    smells = repository.review().smells
    for text in ("weights 0.4: a spread over seeds of 0.001, where", "weights 0.3: seed 0 trained 20 steps in 0.001 s, too fast"):
        assert any(text in line for line in smells), smells
    assert any("weights 0.2: seed 1 takes more MACs than the dense network" in line for line in smells)
    assert any("weights 0.1: seed 3 has a dense network of 60, where others have 91" in line for line in smells)
    assert not [line for line in smells if "weights 0.5:" in line]


def test_networks_that_are_cut_through_may_all_answer_alike(repository):
    dense, _, _ = submission()
    cut = {"densities": {"weights": 0.01}, "task": TASK, "version": review._task_version(TASK), "notes": {"collapsed": True}}
    repository.add([*dense, *several([10.0] * 3, **cut), *several([10.0] * 3, control="random", **cut)])
    assert repository.review().smells == []


def test_a_row_that_lacks_its_controls_is_one_line_for_each_setting(repository):
    for data in ("cora", "citeseer"):
        dense, ticket, _ = submission()
        given = {"task": TASK, "version": review._task_version(TASK)}
        repository.add([*dense, *ticket, *several([80.0, 81.0, 82.0], densities={"weights": 0.1}, **given)], data=data)
    assert repository.review().refused == [
        f"{TASK} · {data} · mlp · desk: imp, weights 0.5; weights 0.1: no control random of the same seeds beside it: "
        "run it with controls=[random]"
        for data in ("citeseer", "cora")
    ]


def test_random_tickets_need_no_random_control(repository):
    dense, _, _ = submission()
    baseline = several(
        [70.0, 73.0, 75.0], densities=WEIGHTS, task=TASK, version=review._task_version(TASK), method="random_ticket"
    )
    repository.add([*dense, *baseline])
    assert repository.review().refused == []


def test_the_hash_of_the_commit_picks_among_the_cheap(repository):
    dense, ticket, control = submission()
    repository.add(dense + ticket + control)
    added = repository.review().added
    first = review.drawn(added, repository.root, 2)
    assert first == review.drawn(reversed(added), repository.root, 2)
    picks = set()
    for _ in range(6):
        repository.git("commit", "-q", "--allow-empty", "-m", "again")
        picks.add(tuple(review.drawn(added, repository.root, 2)))
    assert len(picks) > 1


def test_what_needs_a_long_dense_training_is_not_cheap(repository):
    dense, ticket, control = submission()
    long = [r.model_copy(update={"cost": r.cost.model_copy(update={"train_seconds": 290.0})}) for r in ticket]
    untrained = [
        r.model_copy(update={"cost": r.cost.model_copy(update={"train_seconds": 0.0, "train_dense_trainings": 0.0})})
        for r in control
    ]
    repository.add([*dense, *long, *untrained])
    added = repository.review().added
    assert sorted(review.drawn(added, repository.root, 9)) == sorted(p for p in added if p.parent.name == "dense")


def rerun(of, outcome="equal", by="CI", digest=None, environment=None):
    fields = {"differences": [], "environment": environment or {}, "created": "2026-01-01T00:00:00Z"}
    return reruns.Rerun.make(record=of.id, record_digest=digest or of.digest, by=by, outcome=outcome, **fields)


def test_a_rerun_by_changed_code_is_refused(repository):
    ticket = submission()[1][0]
    reruns.write(rerun(ticket, environment={"git_dirty": False}), repository.root)
    assert repository.review().refused == []
    reruns.write(rerun(ticket, environment={"git_dirty": True}), repository.root)
    assert any("a re-run by code with uncommitted changes" in line for line in repository.review().refused)


def test_outcomes_are_shown_on_boards_and_an_edited_one_is_refused(tmp_path):
    records = [*several([90.0, 91.0, 92.0], method="dense"), *several([88.0, 90.5, 91.0], densities=WEIGHTS)]
    for r in records:
        write_record(r, tmp_path / "records")
    pages.write(tmp_path)
    assert "↻" not in (tmp_path / "toy.md").read_text().partition("### Density")[2]
    paths = [reruns.write(rerun(records[3]), tmp_path), reruns.write(rerun(records[4], "outside"), tmp_path)]
    reruns.write(rerun(records[5], digest="of another state"), tmp_path)
    pages.write(tmp_path)
    assert "↻1 ↯1" in (tmp_path / "toy.md").read_text().partition("### Density")[2]
    paths[1].write_text(paths[1].read_text().replace("outside", "equal"))
    with pytest.raises(BenchError, match="is no re-run of a record") as error:
        pages.write(tmp_path)
    assert "\n" not in str(error.value)


def test_a_doubt_counts_for_more_than_an_agreement_and_ci_for_more_than_others():
    r = record(0, 1.0, densities=WEIGHTS)
    digests = {r.id: r.digest}
    assert str(reruns.outcomes([rerun(r, by="elsewhere"), rerun(r)], digests)[r.id]) == "re-run by CI: equal"
    assert str(reruns.outcomes([rerun(r, "outside", "elsewhere"), rerun(r)], digests)[r.id]) == "re-run elsewhere: outside"


def test_a_record_that_is_run_again_is_kept_with_what_came_of_it(bench, monkeypatch):
    monkeypatch.setattr("bench.runner.jobs.environment", lambda: {"git_dirty": False, "threads": 1})
    root = bench.folder / "leaderboards"
    assert bench.run("method=[dense,one_shot]", "seeds=[0,1,2]") == 0
    publish(bench.folder / "runs", root / "records")
    path = bench.path(bench.record("one_shot", 0.5))
    assert bench("verify", "--trust", "--keep", "--root", str(root), str(path)) == 0
    assert "equal, every number was the same" in bench.out
    (kept,) = reruns.read_all(root)
    assert (kept.record, kept.by, kept.outcome) == (path.stem, "elsewhere", "equal")
    honest = bench.record("one_shot", 0.5)
    numbers = {name: value + 1000.0 for name, value in honest.result.test.items()}
    fields = {name: getattr(honest, name) for name in Record.model_fields.keys() - {"id", "digest", "identity", "result"}}
    forged = Record.make(honest.identity, **fields, result=honest.result.model_copy(update={"test": numbers}))
    elsewhere = write_record(forged, bench.folder / "forged")
    assert bench("verify", "--trust", "--keep", "--root", str(root), str(elsewhere)) == 0
    assert {r.outcome for r in reruns.read_all(root)} == {"equal", "inside"}  # what is run now is what the cell has
