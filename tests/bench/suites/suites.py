"""Suites of made-up records for the tests."""

from bench.leaderboard.boards import boards, digest
from bench.leaderboard.method_metadata import is_sequential
from bench.suites.schema import Suite
from tests.bench.leaderboard.records import record

DENSITIES = [0.1, 0.01]


def suite(**events):
    """A suite of two domains on the toy records; ``events``: name -> fields that differ."""
    made = []
    for name, domain in (("one", "images"), ("two", "text")):
        config = digest(record(1, 1.0, epochs=2 if name == "one" else 4).identity)
        made.append(
            {
                "name": name,
                "domain": domain,
                "task": "toy",
                "data": "digits",
                "model": "mlp",
                "protocol": "desk",
                "config": config,
                "densities": DENSITIES,
                "seeds": 3,
                "chance": 10.0,
                **events.get(name, {}),
            }
        )
    return Suite.model_validate({"name": "toys", "version": 1, "about": "Toys.", "events": made})


def row(method, one, two, random=30.0, **fields):
    """The records of a method at both events: test metrics at 0.1 and 0.01, the same for every seed but for tenths. A method that
    goes through densities went through both, unless ``rounds`` says otherwise."""
    made = []
    sequential = fields.pop("rounds", is_sequential(method, {}))
    for epochs, values in ((2, one), (4, two)):
        for i, (density, value) in enumerate(zip(DENSITIES, values, strict=True)):
            for seed in range(3):
                for control, number in ((None, value), ("random", random)):
                    test = number + seed / 10 * (1 if control else -1)
                    of = {"densities": {"weights": density}, "control": control, "epochs": epochs, "dense": 90.0 + seed}
                    of["rounds"] = [{"weights": before} for before in DENSITIES[:i]] if sequential else []
                    made.append(record(seed, test, method=method, **of, **fields))
    return made


def grouped(*rows):
    """The boards of some rows."""
    return boards(r for records in rows for r in records)
