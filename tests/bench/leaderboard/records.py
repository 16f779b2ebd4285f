"""Records made by hand for the tests of the leaderboards."""

import math

from bench.storage.cost import Cost
from bench.storage.records import BudgetUse, Identity, Record, Result, TicketOrigin

DENSE = {0: 90.0, 1: 91.0, 2: 92.0}
WEIGHTS = {"weights": 0.5}


def record(
    seed=0,
    test=None,
    method="imp",
    densities=None,
    control=None,
    status="ok",
    reason=None,
    task="toy",
    version=1,
    epochs=2,
    collapsed=(),
    speedup=None,
    search=1.0,
    dense=None,
    metric="accuracy",
    higher=True,
    label=None,
    rounds=(),
    untrained=None,
    notes=None,
    **options,
):
    """A record of a toy task. ``test``: its test metric; ``dense``: that of the dense network of its seed."""
    identity = Identity(
        task=task,
        task_version=version,
        data="digits",
        model="mlp",
        protocol="desk",
        config={"data": {"name": "digits", "train_size": 100}, "model": {"name": "mlp"}, "train": {"epochs": epochs}},
        fingerprint="f" * 8,
        method=method,
        method_config=options,
        densities=densities or {},
        rounds=list(rounds),
        seed=seed,
        control=control,
    )
    dense = DENSE.get(seed, 90.0) if dense is None else dense
    share = math.prod((densities or {}).values())
    numbers = (
        {}
        if status != "ok"
        else {
            "result": Result(
                metric=metric,
                higher_is_better=higher,
                val={metric: test},
                test={metric: test},
                dense_val={metric: dense},
                dense_test={metric: dense},
                step=20,
                **({} if untrained is None else {"untrained_val": {metric: untrained}, "untrained_test": {metric: untrained}}),
            ),
            "budgets": {b: BudgetUse(asked=d, kept=round(d * 100), total=100) for b, d in (densities or {}).items()},
            "ticket": TicketOrigin(masks="m", start="s", schedule="replay", stages=["a/0-20"], notes=notes or {}),
            "cost": Cost(
                search_steps=20,
                train_steps=20,
                search_dense_trainings=search,
                train_dense_trainings=1.0,
                search_seconds=30.4,
                train_seconds=31.6,
                inference_macs=1000 * share,
                inference_macs_dense=1000,
                measured_speedup=speedup,
            ),
        }
    )
    return Record.make(
        identity,
        status=status,
        reason=reason,
        label=label or method,
        note="digits, downsampled | to 8x8",
        collapsed=list(collapsed),
        command="bench run tasks/toy",
        environment={},
        created="2026-01-01T00:00:00Z",
        **numbers,
    )


def several(values, **fields):
    """One record a seed."""
    return [record(seed, value, **fields) for seed, value in enumerate(values)]


def golden_records():
    """Every case a board must show."""
    low, joint, even = {"weights": 0.1}, {"weights": 0.5, "edges": 0.8}, {"weights": 0.5, "edges": 0.5}
    joints = {"weights": 0.25, "edges": 0.64}
    return [
        *several(DENSE.values(), method="dense", search=0.0),
        *several([89.8, 90.9, 92.1], densities=WEIGHTS, speedup=1.25),  # matches dense
        *several([84.0, 86.0, 85.0], densities=low, rounds=[WEIGHTS], search=3.0, collapsed=["a", "b"]),  # two tensors emptied
        *several([89.9, 90.8, 92.0], densities=WEIGHTS, control="shuffle"),  # explains the ticket
        *several([70.0, 71.0, 74.0], densities=WEIGHTS, control="random"),
        *several([88.0, 89.5, 90.0], method="one_shot", densities=WEIGHTS),
        *several([83.0, 85.0], method="one_shot", densities=low),
        record(2, method="one_shot", densities=low, status="diverged", reason="the loss became nan at step 7"),
        *several([80.0, 82.0], method="snip", densities=WEIGHTS),  # provisional
        record(3, method="snip", densities=WEIGHTS, status="failed", reason="out of memory"),
        *several([79.0], method="snip", densities=low),  # one seed: no interval
        *[
            record(
                seed, method="synflow", densities=WEIGHTS, status="not_applicable", reason="needs a probe, this task offers none"
            )
            for seed in range(3)
        ],
        *several([88.0, 89.0, 90.0], densities=joint),  # the start of two series:
        *several([86.0, 87.0, 88.0], densities=even, rounds=[joint]),
        *several([82.0, 83.0, 84.0], densities=joints, rounds=[joint]),
        *several([70.0, 72.0, 73.0], densities=joints, rounds=[joint], control="random"),
        *several([85.0, 86.0, 87.0], densities={"edges": 0.5}),
        *several([60.0, 61.0, 62.0], densities=WEIGHTS, version=0),  # an old version of the task
        *several([89.0, 90.0, 91.0], densities=WEIGHTS, task="toy_loss", higher=False, metric="loss"),
        *several([91.0, 91.5, 92.5], densities=WEIGHTS, task="toy_loss", higher=False, metric="loss", epochs=4),
    ]
