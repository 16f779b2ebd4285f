"""The command line, verb by verb, on the toy task."""

import json
import re
import shlex
from importlib.metadata import EntryPoint

import pytest
import torch

from bench import cli
from bench.config import settings
from bench.registry import adapter
from bench.storage.records import Record, read_records, write_record
from bench.training.speed import bf16
from bench.verbs.printing import table
from tests.conftest import TOY


@pytest.fixture(autouse=True)
def _clean_code(monkeypatch):
    """Records as of committed code, so that they may be published whatever the working tree looks like."""
    monkeypatch.setattr("bench.runner.jobs.environment", lambda: {"git_dirty": False, "threads": 1})


def test_run_says_what_it_did(bench):
    assert bench.run("method=[dense,one_shot]", "controls=[random]") == 0
    assert "test accuracy; dense " in bench.out
    assert "one_shot" in bench.out
    assert "records: 5 under" in bench.out
    assert bench.err.splitlines() == ["done toy points dense seed 0: 1 records", "done toy points one_shot seed 0: 5 records"]


def test_what_is_there_is_not_written_again(bench):
    def written() -> dict:
        files = (p for p in bench.folder.rglob("*") if p.is_file() and "grids" not in p.parts)  # those say how far a grid is
        return {p: p.stat().st_mtime_ns for p in files}

    assert bench.run("method=[dense,one_shot]", "controls=[random]") == 0
    before = written()
    assert bench.run("method=[dense,one_shot]", "controls=[random]") == 0
    assert written() == before


@pytest.mark.parametrize(
    "words",
    [
        ["method=[dense,one_shot,imp]", "seeds=[0,1]"],
        ["method=imp", "method.rewind=1ep", "controls=[random,shuffle,invert,reinit,dense_as_long]"],
        ["method=one_shot,imp", "method.rewind=init,1ep", "method.schedule=whole"],
        ["method=imp", "method.rewind=end", "method.schedule=constant", "method.rate=0.3"],
        ["method=imp", "method.rewind=pretrained"],
    ],
)
def test_a_dry_run_tells_what_a_run_trains(bench, trainings, words):
    def plan():
        assert bench.run(*words, "--dry-run", "--json") == 0
        rows = json.loads(bench.out)
        return sum(row["to_train"] for row in rows), sum(row["steps"] for row in rows)

    promised = plan()
    assert trainings == []
    assert not (bench.folder / "store").exists()
    assert bench.run(*words) == 0
    assert promised == (len(trainings), sum(last - first for first, last in trainings))
    assert plan() == (0, 0)


def test_a_dry_run_as_a_table(bench):
    assert bench.run("seeds=[0,1]", "--dry-run") == 0
    lines = bench.out.splitlines()
    assert lines[0].split() == ["job", "stored", "to_train", "steps", "training_macs", "seconds", "disk_mb"]
    assert lines[2].split()[:8] == ["toy", "points", "imp", "seed", "0", "0", "3", "72"]
    assert lines[4].split()[:4] == ["total", "0", "6", "144"]


def test_divergence_is_a_record_and_the_grid_goes_on(bench):
    assert bench.run("data=[broken,points]", "controls=[random]") == 0
    status = {(r.identity.data, r.status): r.reason for r in bench.records()}
    assert status == {("broken", "diverged"): "the training loss is not finite in epoch 1", ("points", "ok"): None}
    assert len(bench.records()) == 2 * 5
    assert bench.run("data=broken", "controls=[random]") == 0


def test_a_metric_that_is_no_number_is_divergence(bench, monkeypatch):
    task = adapter(settings(TOY, [])[0].folder, "task:Toy")
    monkeypatch.setattr(task, "evaluate", lambda self, model, split: {"accuracy": float("nan")})
    assert bench.run() == 0
    assert {(r.status, r.reason) for r in bench.records()} == {("diverged", "metric accuracy of val is nan")}


def test_what_does_not_apply_is_a_record(bench):
    assert bench.run("method=imp", "method.rewind=pretrained") == 0
    assert [(r.identity.method, r.status) for r in bench.records()].count(("imp", "not_applicable")) == 2
    assert "use rewind=init" in bench.record("imp", 0.5).reason


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["densities=null"], "no densities asked"),
        (["densities={edgs: 0.5}"], "unknown budget 'edgs'; did you mean edges"),
        (["densities=[0.001]"], "but the floors of its 3 tensors need"),
        (["method.rewind=9ep"], "rewind=9ep is step 72, but one training has only 24"),
        (["method.rewind=soon"], "rewind=soon is not init, reinit"),
        (["method.rewind=end"], "leaves no steps: choose schedule=whole or constant"),
        (["method.rate=1.5"], "rate is 1.5"),
        (["device=gpu"], "device=gpu is not to be had here: use auto, cpu or cuda"),
    ],
)
def test_a_job_that_cannot_be_done_is_told_before_anything_is_trained(bench, trainings, words, message):
    assert message in bench.fails(*words)
    assert trainings == []
    assert bench.records() == []


def test_a_slip_in_a_method_costs_only_its_job(bench):
    path = bench.folder / "slip.py"
    path.write_text("def slip(model, maskables, data):\n    return model.nothing\n")
    assert bench.run(f"method.score={path}:slip,magnitude") == 1
    assert 'slip.py", line 2, in slip' in bench.err  # where to mend it
    assert bench.err.splitlines()[-1].startswith("bench: 1 of 2 jobs failed; the others are kept. First: AttributeError: ")
    assert bench.record("imp", 0.5).identity.method_config["score"] == "magnitude"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("yield Ticket({'weights': 0.4}, lab.ones(), lab.start('init'))", "gave a ticket of {'weights': 0.4}, not asked for"),
        ("yield from list(lab.tickets('magnitude_at_init', densities))[:1]", "gave no ticket for [{'weights': 0.2}]"),
        ("yield Ticket(densities[0], lab.ones(), lab.start('init'))", "budget weights keeps 416 of 416, asked 0.5"),
    ],
)
def test_a_method_gives_a_ticket_for_each_density(bench, body, message):
    path = bench.folder / "own.py"
    path.write_text(f"from pruning import Ticket\n\n\ndef own(lab, densities):\n    {body}\n")
    assert message in bench.fails(f"method={path}:own", "densities=[0.5,0.2]")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["threads=abc"], "threads must be a whole number or auto"),
        (["train.epochs=2.7"], "train.epochs must be a whole"),
        (["train.batch_size=8.5"], "must be a whole number"),
        (["method.rewind=1ep", "method.floors=null"], "unknown key"),
        (["method=gmp", "method.begin=null"], "method.begin must be a number, such as 0.0"),
        (["+data=[0]"], "does not compose"),
    ],
)
def test_values_that_cannot_run_are_refused(bench, words, message):
    assert message in bench.refuses(*words)


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("data.size=0.5", r"TypeError: randn\(\) received .*\(task.py, line \d+\)$"),  # when the task opens
        ("train.batch_size=null", r"TypeError: .*line \d+\)$"),  # when it is timed
    ],
)
def test_a_value_that_a_task_cannot_take_ends_a_dry_run_in_one_line(bench, word, what):
    assert bench.run(word, "--dry-run") == 1
    (line,) = bench.err.splitlines()
    assert re.match(rf"bench: toy points imp seed 0 cannot be planned: {what}", line)


def test_list(bench):
    assert bench("list", "--json") == 0
    rows = json.loads(bench.out)
    names = {(row["kind"], row["name"]) for row in rows}
    assert {
        ("task", "tasks/cnn_cifar"),
        ("method", "imp"),
        ("score", "magnitude"),
        ("control", "dense_as_long"),
        ("protocols", "tasks/cnn_cifar"),
    } <= names
    assert all(row["about"] for row in rows)
    assert bench("list", "methods") == 0
    assert "Iterative magnitude pruning" in bench.out
    with pytest.raises(SystemExit) as stop:
        bench("list", "nonsense")
    assert stop.value.code == 2


def test_doctor(bench, monkeypatch):
    monkeypatch.setattr("bench.checks.doctor.PACKAGES", ("ticket-bench", "torch", "a-package-that-is-not-there"))
    monkeypatch.setattr(
        "bench.checks.doctor.environment",
        lambda: {"python": "3", "device": "CPU", "threads": 1, "packages": {"ticket-bench": "0.1.0", "torch": "2"}},
    )
    monkeypatch.setattr("bench.checks.doctor.wrong_kernels", lambda guarded: [] if guarded else ["a layer"])
    monkeypatch.setattr("bench.checks.doctor.bf16", lambda device: {"linear layers": 0.5, "convolutions": 2.0})
    monkeypatch.setattr("bench.checks.doctor.native", lambda device: False)
    monkeypatch.setenv("BENCH_DATA", str(bench.folder / "nowhere"))
    (bench.folder / "models" / "small").mkdir(parents=True)
    (bench.folder / "models" / "small" / "config.json").write_text("{}")
    monkeypatch.setenv("BENCH_MODELS", str(bench.folder / "models"))
    assert bench("doctor", "--json") == 0
    rows = {row["what"]: row for row in json.loads(bench.out)}
    assert rows["torch"]["result"] == "ok"
    assert rows["a-package-that-is-not-there"]["result"] == "missing"
    assert "pip install" in rows["a-package-that-is-not-there"]["about"]
    assert rows["data"]["result"] == "missing"
    assert "is no folder: unset it" in rows["data"]["about"]
    assert " has small; what is not there counts as missing" in rows["models"]["about"]
    assert rows["tasks/cnn_cifar"]["result"] == "ok"
    assert "the suite goes around them: a layer" in rows["kernels"]["about"]
    assert rows["bf16"]["result"] == "warning"
    assert rows["bf16"]["about"] == (
        "only emulated here, so train.precision=auto takes fp32 and train.precision=bf16 is to be "
        "avoided; measured beside fp32: linear layers 0.5 x as fast, convolutions 2 x as fast"
    )
    monkeypatch.setattr("bench.checks.doctor.native", lambda device: True)
    assert bench("doctor", "--json") == 0
    row = next(row for row in json.loads(bench.out) if row["what"] == "bf16")
    assert (row["result"], row["about"].partition(";")[0]) == ("ok", "native, so train.precision=auto takes it")


def test_what_bf16_gains_is_measured_for_both_kinds_of_layers():
    gains = bf16(torch.device("cpu"), repeats=1)
    assert list(gains) == ["linear layers", "convolutions"]
    assert all(gain > 0 for gain in gains.values())


def test_ticket_show(bench):
    assert bench.run("densities=[0.2]") == 0
    record = bench.record("imp", 0.2)
    path = bench.path(record)
    assert bench("ticket", "show", str(path), "--json") == 0
    rows = {row["tensor"]: row for row in json.loads(bench.out)}
    assert rows["gate"] == {"tensor": "gate", "kept": 8, "total": 8, "density": 1.0}
    assert sum(row["kept"] for row in rows.values()) == 8 + 83
    assert bench("ticket", "show", str(bench.folder / "nothing.json")) == 1
    assert "no record at" in bench.err


def test_verify(bench):
    assert bench.run("method=imp", "controls=[shuffle]", "seeds=[3]", "densities=[0.5, 0.2]") == 0
    path = bench.path(bench.record("imp", 0.2, "shuffle", seed=3))
    assert bench("verify", "--trust", str(path)) == 0
    assert bench.out == f"{path}: reproduced\n"


def test_verify_trains_no_more_than_the_record_needs(bench, trainings):
    assert bench.run("method=imp", "controls=[shuffle,reinit]", "densities=[0.5, 0.2]") == 0
    for method, density, control, needed in (
        ("dense", None, None, 1),
        ("imp", 0.5, None, 2),
        ("imp", 0.5, "reinit", 2),
        ("imp", 0.2, "shuffle", 3),
    ):
        trainings.clear()
        assert bench("verify", "--trust", str(bench.path(bench.record(method, density, control)))) == 0
        assert len(trainings) == needed


@pytest.mark.parametrize("kind", ["task", "method", "score", "option", "source", "analysis", "package", "parts"])
def test_verify_runs_nothing_from_outside_without_consent(bench, monkeypatch, tmp_path, kind):
    assert bench.run("method=dense") == 0
    record, ran = bench.record("dense"), tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
    (tmp_path / "evil.py").write_text(code)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__init__.py").write_text(code)
    (tmp_path / "folder" / "task.py").write_text(code)
    (tmp_path / "folder" / "config.yaml").write_text("task: {name: folder, version: 1, adapter: task:T}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        "bench.registry.entry_points",
        lambda group: [
            p
            for p in [EntryPoint("theirs", "evil:f", "bench.methods"), EntryPoint("their_task", "folder", "bench.tasks")]
            if p.group == group
        ],
    )
    evil, own = f"{tmp_path}/evil.py:f", "bench run tasks/cnn_cifar protocol=smoke"
    commands = {
        "task": [f"bench run {tmp_path}/folder", "bench run their_task", "bench run tasks/their_task"],
        "method": [f"{own} method={evil}", f"{own} 'method=[dense,{evil}]'"],
        "score": [f"{own} method.score={evil}"],
        "option": [f"{own} method=transfer 'method.options={{score: {evil}}}'", f"{own} '+x={{a:[{evil}]}}'"],
        "source": [f"{own} method=transfer method.source={tmp_path}/folder:data"],
        "analysis": [
            f"bench analyse {evil} tasks/cnn_cifar",
            f"bench analyse collapse tasks/cnn_cifar 'analysis.scores=[{evil}]'",
        ],
        "package": [f"{own} method=theirs", f"{own} method=dense,theirs"],
        "parts": [f"{own} +a=y 'method={tmp_path}/evil.p${{a}}:f'"],
    }[kind]
    fields = {name: getattr(record, name) for name in Record.model_fields if name not in ("id", "digest")}
    for command in commands:
        path = write_record(Record.make(**fields | {"command": command}), bench.folder / "sent")
        assert bench("verify", str(path)) == 1
        assert "runs code from outside this repository" in bench.err
        assert bench.err.count("\n") == 1
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda question: "n")
        assert bench("verify", str(path)) == 1
        assert not ran.exists()


@pytest.mark.parametrize(
    "word", ["tracker=wandb", "store=/", "++runs=/", "hydra.searchpath=[x]", "--trust", "task.adapter=task:x", "'"]
)
def test_verify_takes_no_word_that_no_record_says(bench, word):
    assert bench.run("method=dense") == 0
    record = bench.record("dense")
    fields = {name: getattr(record, name) for name in Record.model_fields if name not in ("id", "digest")}
    path = write_record(Record.make(**fields | {"command": f"{record.command} {word}"}), bench.folder / "sent")
    assert bench("verify", "--trust", str(path)) == 1
    assert "it was edited" in bench.err or "is no `bench run TASK`" in bench.err
    assert bench.err.count("\n") == 1


def test_verify_tells_what_differs(bench):
    assert bench.run("method=dense") == 0
    record = bench.record("dense")
    better = record.result.model_copy(update={"test": {**record.result.test, "accuracy": 99.0}})
    fields = {name: getattr(record, name) for name in Record.model_fields if name not in ("id", "digest")}
    forged = write_record(Record.make(**fields | {"result": better}), bench.folder / "forged")
    assert bench("verify", "--trust", str(forged)) == 1
    assert bench.out.startswith("result.test.accuracy: recorded 99.0, now ")
    assert "was not reproduced: 1 values differ" in bench.err
    assert bench("verify", "--trust", str(forged), "--tolerance", "100") == 0
    other = write_record(Record.make(**fields | {"command": "rm -rf x"}), bench.folder / "other")
    assert bench("verify", str(other)) == 1
    assert "is no `bench run TASK`: rm -rf x" in bench.err
    fields["command"] = record.command.replace("seeds=[0]", "seeds=[1]")
    gone = write_record(Record.make(**fields), bench.folder / "gone")
    assert bench("verify", "--trust", str(gone)) == 1
    assert f"no longer makes record {record.id}" in bench.err


def test_the_command_of_a_record_makes_it_again(bench):
    assert bench.run("method=one_shot,imp", "method.rewind=1ep", "densities=[0.4]", "seeds=[0,1]") == 0
    made = {r.id: r for r in bench.records()}
    record = bench.record("imp", 0.4, seed=1)
    words = shlex.split(record.command)
    assert words[:2] == ["bench", "run"]
    assert bench(*words[1:], f"store={bench.folder / 'again'}", f"runs={bench.folder / 'rerun'}", "threads=1") == 0
    again = {r.id: r.content() for r in read_records(bench.folder / "rerun")}
    assert record.id in again
    assert all(made[i].content() == content for i, content in again.items())


def test_publish(bench, monkeypatch):
    root = bench.folder / "leaderboards"
    assert bench.run("method=imp") == 0
    ticket, dense = bench.path(bench.record("imp", 0.5)), bench.path(bench.record("dense"))
    assert bench("publish", str(ticket), "--root", str(root)) == 1
    assert "has no dense baseline of seed 0 beside it: publish the whole run" in bench.err
    assert not root.exists()
    assert bench("publish", str(bench.folder / "runs"), "--root", str(root)) == 0
    assert bench.out.startswith("3 records published")
    assert len(list(root.rglob("*.json"))) == 3
    assert bench("publish", str(ticket), "--root", str(root)) == 0  # its baseline is published
    assert bench("leaderboard", "--root", str(root)) == 0
    assert bench("leaderboard", "--root", str(root), "--check") == 0

    dense.write_text(dense.read_text()[:-20])
    assert bench("publish", str(bench.folder / "runs"), "--root", str(root / "new")) == 1
    assert "is not readable JSON" in bench.err
    assert not (root / "new").exists()
    assert bench("publish", str(bench.folder / "nothing"), "--root", str(root)) == 1
    assert "no records below" in bench.err


def test_changed_code_is_not_published(bench, monkeypatch):
    monkeypatch.setattr("bench.runner.jobs.environment", lambda: {"git_dirty": True})
    assert bench.run("method=dense") == 0
    assert bench("publish", str(bench.folder / "runs"), "--root", str(bench.folder / "root")) == 1
    assert "code with uncommitted changes: commit them, delete" in bench.err


def test_conformance_of_the_toy_task(bench):
    assert bench("test", "tests/toy", "--json") == 0, bench.out
    assert all(row["result"] == "ok" for row in json.loads(bench.out))


def test_help_and_nonsense(bench):
    for words, status in ((["--help"], 0), (["run", "--help"], 0), (["runn"], 2), ([], 2)):
        with pytest.raises(SystemExit) as stop:
            bench(*words)
        assert stop.value.code == status


def test_tables_show_thousands_and_wrap_long_texts(capsys):
    table([{"job": "a " * 40, "steps": 5616, "seconds": 1190.4}], as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[-2:] == ["5616", "1,190"]
    assert len(lines) == 4
    assert max(map(len, lines)) < 90


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runn"], "invalid choice: 'runn' (choose from 'run', 'suite', 'analyse'"),
        (["run", "tasks/cnn_cifar", "--seeds", "0"], "unrecognized arguments: --seeds 0"),
    ],
)
def test_words_that_cannot_be_understood_are_one_line(capsys, words, message):
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert line.endswith("--help` explains it")


def test_what_is_no_record_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("")
    for words in (["ticket", "show", str(tmp_path)], ["ticket", "show", str(tmp_path / "mine.py")], ["verify", str(tmp_path)]):
        assert cli.main(words) == 1
        message = capsys.readouterr().err
        assert "name one of the .json files" in message
        assert "delete" not in message
    assert cli.main(["leaderboard", "--root", str(tmp_path)]) == 1
    assert "`bench publish RUN` makes it" in capsys.readouterr().err


def test_a_dry_run_counts_what_is_found_before_training(bench, trainings):
    """A cut of each score, a random mask that they share, and one of other draws for the random ticket."""
    words = ("method=[synflow,magnitude_at_init,random_ticket]", "controls=[random]", "densities=[0.5]", "seeds=[0]")
    assert bench.run(*words, "--dry-run", "--json") == 0
    promised = sum(row["to_train"] for row in json.loads(bench.out))
    assert bench.run(*words) == 0
    assert len(trainings) == promised == 1 + 3 + 1 + 1
