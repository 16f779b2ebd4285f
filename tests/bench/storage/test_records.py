"""Records: strict, self-checking, the same for the same command."""

import json

import pytest

from bench import registry
from bench.errors import BenchError
from bench.storage.files import safe_name
from bench.storage.records import BudgetUse, Identity, Record, read_record, write_record
from pruning import Masks, PruningError
from tests.conftest import Bench, toy_lab

IDENTITY = {
    "task": "toy",
    "task_version": 1,
    "data": "points",
    "model": "mlp",
    "protocol": "desk",
    "config": {"data": {"name": "points"}, "model": {"name": "mlp"}, "train": {"lr": 0.1}},
    "fingerprint": "abc",
    "method": "imp",
    "method_config": {"rewind": "init"},
    "densities": {"weights": 0.5},
    "rounds": [],
    "seed": 0,
    "control": None,
}


def diverged(**changes) -> Record:
    """A small record."""
    return Record.make(
        Identity(**IDENTITY | changes),
        status="diverged",
        reason="NaN",
        label="imp",
        command="bench run toy",
        environment={"threads": 1},
        created="2026-01-01T00:00:00+00:00",
    )


def test_ids_are_pinned_and_follow_the_identity():
    """Written down: another id for the same identity would orphan every published record."""
    assert diverged().id == "be1fe097e6c90dcc"
    assert (
        len(
            {
                diverged(**change).id
                for change in (
                    {},
                    {"seed": 1},
                    {"densities": {"weights": 0.4}},
                    {"task_version": 2},
                    {"control": "random"},
                    {"fingerprint": "abd"},
                    {"rounds": [{"weights": 0.7}]},
                )
            }
        )
        == 7
    )


def test_written_and_read(tmp_path):
    path = write_record(diverged(), tmp_path)
    assert path == tmp_path / "toy" / "points-mlp-desk" / "imp" / "be1fe097e6c90dcc.json"
    assert read_record(path) == diverged()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["result"]["test"].update(accuracy=99.0), "the digest is not that of the record"),
        (lambda r: r["cost"].update(train_seconds=0.0), "the digest is not that of the record"),
        (lambda r: r.update(command="bench run other"), "the digest is not that of the record"),
        (lambda r: r["identity"].update(seed=7), "is not that of the identity block"),
        (lambda r: r["identity"]["config"]["train"].update(lr=0.2), "is not that of the identity block"),
        (lambda r: r.update(id="0" * 16), "is not that of the identity block"),
        (lambda r: r.update(better=True), "better: Extra inputs are not permitted"),
        (lambda r: r["result"].update(better=True), "result.better: Extra inputs are not permitted"),
        (lambda r: r.pop("digest"), "digest: Field required"),
        (lambda r: r.pop("identity"), "identity: Field required"),
        (lambda r: r.update(schema_version=0), "has schema version 0, which was never in use"),
        (lambda r: r.pop("schema_version"), "has schema version None"),
    ],
)
def test_tampering_is_noticed(bench, change, message):
    assert bench.run("method=dense") == 0
    path = bench.path(bench.record("dense"))
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(BenchError) as error:
        read_record(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "delete it and run its command again" in str(error.value)
    for verb in (["publish", str(bench.folder / "runs")], ["verify", str(path)], ["ticket", "show", str(path)]):
        assert bench(*verb) == 1
        assert message in bench.err
    assert message in bench.fails("method=dense")
    path.unlink()
    assert bench.run("method=dense") == 0  # from the store


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 2}'])
def test_no_record_at_all(tmp_path, text):
    path = tmp_path / "x.json"
    with pytest.raises(BenchError, match="no record at"):
        read_record(path)
    path.write_text(text)
    with pytest.raises(BenchError, match=r"x.json"):
        read_record(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"status": "ok"}, "status is ok but result, ticket or cost is missing"),
        ({"status": "diverged"}, "no reason is given"),
        (
            {"status": "diverged", "reason": "x", "budgets": {"weights": BudgetUse(asked=0.5, kept=70, total=100)}},
            "keeps 70 of 100",
        ),
        ({"status": "excellent"}, "status"),
    ],
)
def test_a_record_must_make_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        Record.make(Identity(**IDENTITY), label="imp", command="", environment={}, created="", **fields)


def test_numbers_are_numbers():
    with pytest.raises(ValueError, match="finite number"):
        diverged(densities={"weights": float("nan")})


def test_names_of_files_stay_in_their_folder(tmp_path):
    assert safe_name("imp(score=/tmp/x.py:f)") == "imp_score=_tmp_x.py_f_"
    assert safe_name("..") == "_."
    assert diverged(task="../../etc").path(tmp_path).parts[:-4] == tmp_path.parts


def test_two_fresh_stores_give_the_same(tmp_path, capsys):
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name, capsys)
        assert bench.run("method=[one_shot,imp]", "controls=[random,shuffle]", "method.rewind=1ep", "seeds=[0,1]") == 0
        made.append((bench, {r.id: r.content() for r in bench.records()}))
    (one, first), (two, second) = made
    assert len(first) == 2 * (1 + 2 * 2 * 3)  # seeds x (dense + methods x densities x (ticket, two controls))
    assert first == second
    assert [p.relative_to(one.folder) for p in one.stages()] == [p.relative_to(two.folder) for p in two.stages()]
    for mask in (one.folder / "runs").rglob("*.safetensors"):
        assert Masks.load(mask) == Masks.load(two.folder / mask.relative_to(one.folder))


def test_the_densities_asked_before_are_part_of_what_a_sequential_method_was_asked(bench):
    for asked in ("[0.5,0.2]", "[0.2]", "[0.2,0.5]"):  # the last asks what the first did
        assert bench.run("method=[one_shot,imp]", "controls=[random]", f"densities={asked}") == 0
    found = {
        (
            r.identity.method,
            r.identity.control,
            r.identity.densities.get("weights"),
            tuple(d["weights"] for d in r.identity.rounds),
        ): r
        for r in bench.records()
    }
    assert found.keys() == {
        ("dense", None, None, ()),
        *((m, c, d, ()) for m in ("one_shot", "imp") for c in (None, "random") for d in (0.5, 0.2)),
        ("imp", None, 0.2, (0.5,)),
        ("imp", "random", 0.2, (0.5,)),
    }
    assert len(bench.records()) == len(found)
    alone, after = found["imp", None, 0.2, ()], found["imp", None, 0.2, (0.5,)]
    assert alone.ticket.masks != after.ticket.masks
    assert alone.content() | {"ticket": None} != after.content() | {"ticket": None}
    assert bench("verify", "--trust", str(bench.path(after))) == 0


@pytest.mark.parametrize("method", registry.METHODS)
def test_a_method_is_sequential_if_its_ticket_depends_on_the_densities_asked_before(tmp_path, method):
    def last(*densities):
        lab = toy_lab(tmp_path)
        *_, ticket = registry.method(method)(lab, [{"weights": d} for d in densities])
        return ticket.masks.digest(), {n: t.tolist() for n, t in lab.load(ticket.start).state_dict().items()}

    try:
        alone, after = last(0.2), last(0.5, 0.2)
    except PruningError as error:  # of graphs, or in need of a source
        pytest.skip(str(error))
    function = registry.method(method)
    assert (alone != after) == registry.sequential(function, registry.options(function))


def test_a_method_from_outside_says_itself_that_it_is_sequential(bench):
    path = bench.folder / "mine.py"
    path.write_text(
        "from pruning.metadata import method\nfrom pruning.methods.magnitude import imp\n\n"
        "@method(sequential=True)\ndef twice(lab, densities):\n    return imp(lab, densities)\n"
    )
    assert bench.run(f"method={path}:twice") == 0
    assert bench.record(f"{path}:twice", 0.2).identity.rounds == [{"weights": 0.5}]


def test_the_numbers_of_a_record(bench):
    assert bench.run("method=imp", "controls=[reinit,random,dense_as_long]", "method.rewind=1ep") == 0
    dense, ticket, low = bench.record("dense"), bench.record("imp", 0.5), bench.record("imp", 0.2)
    assert (dense.cost.search_steps, dense.cost.train_steps, dense.result.step) == (0, 24, 24)
    assert dense.result.test == dense.result.dense_test == ticket.result.dense_test
    assert (ticket.cost.search_steps, ticket.cost.train_steps) == (24, 16)
    assert (low.cost.search_steps, low.cost.train_steps) == (24 + 16, 16)
    assert low.cost.search_dense_trainings == 40 / 24
    assert low.budgets["weights"].model_dump() == {"asked": 0.2, "kept": 83, "total": 416}  # 8 * 16 + 16 * 16 + 2 * 16
    assert low.budgets["edges"].model_dump() == {"asked": None, "kept": 8, "total": 8}
    assert sum(t.kept for n, t in low.tensors.items() if n != "gate") == 83
    assert ticket.cost.inference_macs_dense == 672
    assert ticket.cost.inference_macs == pytest.approx(
        sum(
            size * ticket.tensors[f"{n}.weight"].kept / ticket.tensors[f"{n}.weight"].total
            for n, size in (("first", 128), ("middle", 512), ("last", 32))
        )
    )
    assert bench.record("imp", 0.5, "random").cost.search_steps == 0
    assert bench.record("imp", 0.5, "reinit").cost.train_steps == 24
    assert bench.record("imp", 0.5, "dense_as_long").cost.train_steps == 24 + 16
    assert ticket.ticket.stages[-1].endswith("/24")
    assert ticket.ticket.start.endswith("/8")
    assert ticket.note == "Generated points."


def test_a_slim_control_is_measured_and_verified_without_its_times(bench):
    assert bench.run("method=one_shot", "densities={edges: 0.5}", "controls=[slim]") == 0
    found = {r.identity.control: r for r in bench.records() if r.identity.method == "one_shot"}
    slim, ticket = found["slim"], found[None]
    assert slim.budgets["edges"].kept == ticket.budgets["edges"].kept == 4
    assert slim.cost.measured_speedup > 0
    assert slim.cost.measured_training_speedup > 0
    assert slim.cost.train_dense_trainings == slim.cost.train_at_sparse_rate
    assert ticket.cost.measured_speedup is None
    assert "measured_training_speedup" not in ticket.model_dump()["cost"]  # as before there were any
    assert "measured_training_speedup" not in slim.content()["cost"]
    assert slim.result.test["loss"] == pytest.approx(ticket.result.test["loss"], abs=1e-3)
