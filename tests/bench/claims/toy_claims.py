"""A claim on the toy task and records made by hand, for the tests of claims."""

from functools import cache
from pathlib import Path

from bench.claims.judge import judge
from bench.claims.schema import Paper
from bench.cli import main
from bench.config import settings
from bench.leaderboard.boards import boards
from bench.storage.analysis_records import read_analyses
from bench.storage.cost import Cost
from bench.storage.records import Identity, Record, Result, TicketOrigin

TOY = str(Path(__file__).parents[2] / "toy")
DENSE = [90.0, 91.0, 92.0]
CLAIM = {
    "id": "ticket-beats-random",
    "source": "Table 1",
    "statement": "A ticket beats a random mask.",
    "needs": {
        "ticket": {"method": "imp", "options": {"rewind": "init"}},
        "random": {"method": "imp", "options": {"rewind": "init"}, "control": "random"},
    },
    "expect": "better",
    "of": ["ticket", "random"],
    "places": [{"task": TOY, "data": "points", "protocol": "smoke", "densities": [0.5]}],
}
SPREADS = '''
from pruning.metadata import analysis


@analysis(keys=("start", "density"))
def spreads(lab, densities, factor=1.0):
    """Numbers of the seed."""
    for step in ("0it", "1ep"):
        yield {"start": step, "density": densities[0]["weights"], "spread": factor * (3.0 + lab.seed if step == "0it" else 1.0)}
'''


@cache
def composed(overrides):
    """The toy task's setting."""
    return settings(TOY, ["data=points", "protocol=smoke", "method=imp", *overrides])[0]


def seeds(*values):
    """Seed -> value."""
    return dict(enumerate(values))


def record(
    seed, test, density=0.5, control=None, status="ok", rewind="init", overrides=(), note="points", rounds=None, untrained=None
):
    """A record of the toy task as ``bench run`` would make it, unless ``rounds`` says otherwise."""
    setting = composed(tuple(overrides))
    config = {
        section: {k: v for k, v in setting.config[section].items() if k not in ("root", "validate_every")}
        for section in ("data", "model", "train")
    }
    options = {**{k: v for k, v in setting.config["method"].items() if k != "name"}, "rewind": rewind}
    identity = Identity(
        task="toy",
        task_version=1,
        data="points",
        model="mlp",
        protocol="smoke",
        config=config,
        fingerprint="f",
        method="imp",
        method_config=options,
        densities={"weights": density},
        rounds=[{"weights": d} for d in (0.5, 0.2) if d > density] if rounds is None else rounds,
        seed=seed,
        control=control,
    )
    dense = DENSE[seed % 3]
    numbers = (
        {}
        if status != "ok"
        else {
            "result": Result(
                metric="accuracy",
                higher_is_better=True,
                val={"accuracy": test},
                test={"accuracy": test},
                dense_val={"accuracy": dense},
                dense_test={"accuracy": dense},
                step=20,
                untrained_test=untrained and {"accuracy": untrained},
            ),
            "ticket": TicketOrigin(masks="m", start="s", schedule="replay", stages=["a/0-20"]),
            "cost": Cost(
                search_steps=20,
                train_steps=20,
                search_dense_trainings=1.0,
                train_dense_trainings=1.0,
                search_seconds=1.0,
                train_seconds=1.0,
                inference_macs=500,
                inference_macs_dense=1000,
            ),
        }
    )
    return Record.make(
        identity,
        status=status,
        reason=None if status == "ok" else "the loss became nan",
        label="imp",
        note=note,
        command="bench run",
        environment={},
        created="2026-01-01T00:00:00Z",
        **numbers,
    )


def both(ticket, random, **fields):
    """Records of a ticket and its random control."""
    return [
        *(record(s, v, **fields) for s, v in enumerate(ticket)),
        *(record(s, v, control="random", **fields) for s, v in enumerate(random)),
    ]


def paper(**changes):
    """A paper that makes the claim above, changed."""
    return Paper(paper="A & B 2020", claims=[{**CLAIM, **changes}])


def judged(records, **changes):
    """The verdicts on the claim above, changed."""
    return judge([paper(**changes)], boards(records))


def only(records, **changes):
    """The one verdict."""
    (verdict,) = judged(records, **changes)
    return verdict


def reading(path, start, **options):
    """The spread at a start."""
    return {"analysis": f"{path}:spreads", "options": options, "row": {"start": start, "density": 0.5}, "value": "spread"}


def measured(tmp_path, capsys, command, needs, **changes):
    """The verdict on readings of what ``command`` made."""
    place = {"task": TOY, "data": "points", "protocol": "smoke", "overrides": []}
    claim = {**CLAIM, "needs": needs, "of": list(needs), "places": [place], **changes}
    local = [f"store={tmp_path / 'store'}", f"runs={tmp_path / 'runs'}"]
    if command:
        assert main([*command, *local]) == 0
        capsys.readouterr()
    (verdict,) = judge([Paper(paper="A", claims=[claim])], [], read_analyses(tmp_path / "runs"))
    return verdict
