"""Transfer: masks found elsewhere, by search or from a file, and the matrix of hand-made records."""

import pytest
import torch

from bench.leaderboard import pages as board
from bench.leaderboard.transfer_matrix import PRETRAINED, matrices
from bench.storage.cost import Cost
from bench.storage.records import BudgetUse, Identity, Record, Result, TicketOrigin
from pruning import Masks, PruningError
from pruning.methods.transfer import transfer
from tests.conftest import TOY, Bench, toy_lab

HALF, FIFTH = {"weights": 0.5}, {"weights": 0.2}


def transferring(bench: Bench, *words: str, source: str = "more") -> int:
    return bench.run("method=transfer", f"method.source='{source}'", *words)


def test_masks_of_the_source_on_weights_and_data_of_the_target(bench):
    assert transferring(bench, "densities=[0.5,0.2]", "controls=[random]") == 0
    assert bench.run("method=imp", "data=more", "densities=[0.5,0.2]") == 0
    assert bench.run("method=imp", "densities=[0.5,0.2]") == 0
    ours = [r for r in bench.records() if r.identity.data == "points"]
    theirs = {r.identity.densities.get("weights"): r for r in bench.records() if r.identity.data == "more"}
    for r in ours:
        density = r.identity.densities.get("weights")
        if r.identity.method == "transfer" and r.identity.control is None:
            assert r.ticket.masks == theirs[density].ticket.masks
            assert (r.ticket.start, r.ticket.schedule) == ("init/0", "replay")
            assert r.cost.search_steps == theirs[density].cost.search_steps > 0
            assert r.cost.train_steps == 24
            assert r.identity.method_config == {"source": "more", "method": "imp", "options": None, "through": None}
        elif r.identity.method == "imp":
            assert r.ticket.masks != theirs[density].ticket.masks
        elif r.identity.control == "random":
            assert r.cost.search_steps == 0


def test_searches_are_shared_with_the_source_s_own_runs(bench, trainings):
    assert bench.run("method=imp", "data=more", "densities=[0.5,0.2]") == 0
    before = len(trainings)
    assert transferring(bench, "densities=[0.5,0.2]") == 0
    assert len(trainings) == before + 3  # dense and two tickets of the target


def test_a_search_may_go_through_densities_without_tickets(bench):
    assert bench.run("method=imp", "data=more", "densities=[0.8,0.5,0.2]") == 0
    assert transferring(bench, "densities=[0.2]", "method.through=[0.8,0.5]") == 0
    (gone,) = [r for r in bench.records() if r.identity.method == "transfer"]
    (own,) = [r for r in bench.records() if r.identity.data == "more" and r.identity.densities == FIFTH]
    assert gone.ticket.masks == own.ticket.masks


def test_another_method_may_search_and_another_task_may_be_the_source(bench):
    assert transferring(bench, "method.method=snip", "method.options={per_class: 4}", "densities=[0.5]") == 0
    assert transferring(bench, "densities=[0.5]", source=f"{TOY}:more") == 0
    one, other = (r for r in bench.records() if r.identity.method == "transfer")
    assert one.ticket.masks != other.ticket.masks


def test_a_search_of_its_own_for_every_density_is_charged_to_that_alone(bench):
    assert bench.run("method=gmp", "data=more", "densities=[0.5,0.2]", "controls=[]") == 0
    assert transferring(bench, "method.method=gmp", "densities=[0.5,0.2]") == 0
    alone = [r.cost.train_steps for r in bench.records() if r.identity.method == "gmp"]
    assert [r.cost.search_steps for r in bench.records() if r.identity.method == "transfer"] == alone


def test_a_search_elsewhere_costs_the_multiply_adds_it_took(tmp_path):
    here, there = toy_lab(tmp_path), toy_lab(tmp_path, "model.width=32", "train.batch_size=16")
    there.start("end")
    here.charge(there.spent(), there.step_macs() / here.step_macs())
    (spent,) = here.spent().trainings.values()
    assert spent.steps == there.steps
    worth = there.macs(there.ones()) * 16 / (here.macs(here.ones()) * 8)
    assert worth >= 2
    assert here.spent().dense_steps == there.steps * worth


def test_a_plan_counts_the_search(bench):
    assert transferring(bench, "densities=[0.5,0.2]", "--dry-run", "--json") == 0
    assert '"to_train": 5' in bench.out  # dense on both, a round on the source, two tickets here


def test_masks_from_a_file_go_by_their_content(bench):
    assert bench.run("method=imp", "data=more", "densities=[0.5,0.2]") == 0
    (of,) = [r for r in bench.records() if r.identity.densities == HALF]
    for source in (bench.path(of), bench.path(of).with_suffix(".masks.safetensors")):
        assert transferring(bench, "densities=[0.5]", source=str(source)) == 0
    (made,) = [r for r in bench.records() if r.identity.method == "transfer"]  # both are one record
    assert made.identity.method_config["source"] == f"masks:{of.ticket.masks[:16]}"
    assert str(bench.folder) not in str(bench.path(made).relative_to(bench.folder)) + made.identity.model_dump_json()
    assert (made.ticket.masks, made.cost.search_steps) == (of.ticket.masks, 0)
    assert made.ticket.notes == {"search": "not counted: masks from a file"}
    assert "keeps 0.5 of weights, so it has no ticket of density 0.2" in bench_fails(bench, bench.path(of), "densities=[0.2]")
    assert "mask first.weight has shape (8, 8) on one side and (16, 8) on the other" in bench_fails(
        bench, bench.path(of), "densities=[0.5]", "model.width=8"
    )
    assert "to take masks from" in bench_fails(bench, bench.folder / "gone.json", "densities=[0.5]")
    assert "no mask file at" in bench_fails(bench, bench.folder / "gone.safetensors", "densities=[0.5]")


def bench_fails(bench: Bench, source, *words: str) -> str:
    return bench.fails("method=transfer", f"method.source='{source}'", *words)


def test_masks_of_other_tensors_are_refused_by_name(tmp_path):
    lab = toy_lab(tmp_path)
    masks = lab.allocate(lab.score("random", lab.start("init"), lab.ones()), lab.ones(), HALF)
    with_head = Masks({**masks, "head.weight": torch.ones(2, 2, dtype=torch.bool)}, {**masks.budgets, "head.weight": "edges"})
    with_head.save(tmp_path / "head.safetensors")
    with pytest.raises(PruningError, match=r"do not fit: mask head\.weight is on one side only"):
        next(transfer(lab, [HALF], source=str(tmp_path / "head.safetensors")))
    with pytest.raises(PruningError, match="transfer needs a source"):
        next(transfer(lab, [HALF]))


def test_an_unknown_source_is_named(bench):
    assert "unknown data 'mor'; did you mean more" in bench.fails("method=transfer", "method.source=mor")
    assert "unknown task" in bench.fails("method=transfer", "method.source=nowhere:more")


# The matrix


def made(data, test, seed=0, method="transfer", density=0.3, rounds=(), start="init/0", control=None, **options):
    """A record of a task whose dense networks reach 90 + seed on every data set."""
    if method == "transfer":
        options = {"method": "imp", "options": None, "through": None} | options
    identity = Identity(
        task="glue",
        task_version=1,
        data=data,
        model="bert",
        protocol="desk",
        config={"data": {"name": data}, "model": {"name": "bert"}, "train": {"epochs": 2}},
        fingerprint=data,
        method=method,
        method_config=options,
        densities={"weights": density},
        rounds=list(rounds),
        seed=seed,
        control=control,
    )
    reached, dense = {"accuracy": test}, {"accuracy": 90.0 + seed}
    return Record.make(
        identity,
        status="ok",
        label=method,
        command="bench run",
        environment={},
        created="2026-01-01T00:00:00Z",
        result=Result(
            metric="accuracy", higher_is_better=True, val=reached, test=reached, dense_val=dense, dense_test=dense, step=20
        ),
        budgets={"weights": BudgetUse(asked=density, kept=round(100 * density), total=100)},
        ticket=TicketOrigin(masks="m", start=start, schedule="replay", stages=["a/20"]),
        cost=Cost(
            search_steps=20,
            train_steps=20,
            search_dense_trainings=1.0,
            train_dense_trainings=1.0,
            search_seconds=1.0,
            train_seconds=1.0,
            inference_macs=30.0,
            inference_macs_dense=100.0,
        ),
    )


IMP = {"score": "magnitude", "rewind": "pretrained", "schedule": "replay", "scheme": "global", "rate": None}


def seeds(data, values, **fields):
    return [made(data, value, seed, **fields) for seed, value in enumerate(values)]


def some():
    return [
        *seeds("rte", [90.0, 91.0, 91.0], source="mrpc"),
        *seeds("mrpc", [80.0, 81.0, 84.0], source="rte"),
        *seeds("mrpc", [90.0], source="bert_mlm:text"),
        *seeds("rte", [91.0, 92.0, 93.0], method="imp", **IMP),
        *seeds("mrpc", [88.0, 90.0, 89.0], method="imp", **IMP),
        *seeds("rte", [10.0], method="imp", control="random", **IMP),
        *seeds("rte", [20.0], method="imp", start="key/100", **{**IMP, "rewind": "1ep"}),
        *seeds("rte", [30.0], method="imp", rounds=[HALF], **IMP),  # other masks: it went through other rounds
        *seeds("rte", [70.0], method="magnitude_at_init", scheme="global"),
    ]


def test_a_matrix_of_sources_and_targets():
    (matrix,) = matrices(some())
    assert matrix.targets == ["mrpc", "rte"]
    assert matrix.sources == ["mrpc", "rte", "bert_mlm:text", PRETRAINED]
    assert {at: list(cell.values.values()) for at, cell in matrix.cells.items()} == {
        ("mrpc", "rte"): [90.0, 91.0, 91.0],
        ("rte", "mrpc"): [80.0, 81.0, 84.0],
        ("bert_mlm:text", "mrpc"): [90.0],
        ("rte", "rte"): [91.0, 92.0, 93.0],
        ("mrpc", "mrpc"): [88.0, 90.0, 89.0],
        (PRETRAINED, "rte"): [70.0],
    }
    assert [matrix.matching(source) for source in matrix.sources] == [1, 0, 0, 0]
    assert matrix.title == "Transfer · bert · desk · masks by imp · density 0.3"


def test_the_matrix_on_the_page():
    page = board.render(some())["glue.md"]
    lines = page.split("## Transfer")[1].splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert table[0] == ["Masks of", "mrpc", "rte", "✓ on others"]
    # differences 0, 0, -1: -0.33 ± 4.303 * 0.577 / root 3; -10, -10, -8: -9.33 ± 4.303 * 1.155 / root 3
    assert table[2] == ["mrpc", "-2.00 ± 2.48 (3)", "-0.33 ± 1.43 (3) ✓", "1"]
    assert table[3] == ["rte", "-9.33 ± 2.87 (3)", "+1.00 ± 0.00 (3) ✓", "0"]
    assert table[4] == ["bert_mlm:text", "+0.00 (1)", "", "0"]
    assert table[5] == ["pre-trained weights", "", "-20.00 (1)", "0"]


def test_searches_with_other_options_or_densities_have_matrices_of_their_own():
    records = [
        *some(),
        *seeds("rte", [60.0], source="mrpc", density=0.2, through=[0.5, 0.3]),
        *seeds("rte", [65.0], method="imp", density=0.2, rounds=[HALF, {"weights": 0.3}], **IMP),
        *seeds("rte", [50.0], source="mrpc", options={"rate": 0.1}),
        *seeds("rte", [55.0], method="imp", **{**IMP, "rate": 0.1}),
    ]
    plain, rated, low = matrices(records)
    assert {at: len(cell.records) for at, cell in low.cells.items()} == {("mrpc", "rte"): 1, ("rte", "rte"): 1}
    assert rated.title == "Transfer · bert · desk · masks by imp(rate=0.1) · density 0.3"
    assert rated.cells["rte", "rte"].values == {0: 55.0}
    assert plain.cells["rte", "rte"].values == {0: 91.0, 1: 92.0, 2: 93.0}


def test_without_transfer_there_is_no_matrix():
    assert matrices([r for r in some() if r.identity.method != "transfer"]) == []
    assert "Transfer" not in board.render([r for r in some() if r.identity.method != "transfer"])["glue.md"]
