"""Measures a ticket's speed and seals what was measured."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any, cast

import torch
from torch import Tensor

from bench.export.formats import Runner
from bench.export.ticket import TrainedTicket
from bench.leaderboard import format
from bench.runner.environment import environment
from bench.speed.forms import DENSE, EAGER, MASKED, Form, forms
from bench.speed.timing import timed
from bench.storage.analysis_records import AnalysisIdentity, AnalysisRecord, Row
from bench.storage.records import ExperimentIdentity, TicketOrigin
from bench.task.capabilities import Call

NAME = "speed"
"""Of the analysis that the records are of."""
ABOUT = (
    "Measured time of one inference: the forms of a ticket and the dense network in turn, on one machine. The speed-up is over "
    "the dense network in the same runtime: the median of all rounds, and its quartiles; with one CPU thread it is of seconds "
    "on the core, which other processes do not lengthen. Fewer MACs is what masks save in theory."
)
BATCH = "batch"
"""The free size of a ``Call`` that counts examples."""


def measure(ticket: TrainedTicket, seconds: float = 20, report: Callable[[str], None] = lambda line: None) -> AnalysisRecord:
    """Time every form of the ticket at batch 1 and at the task's batch, about ``seconds`` for each. ``report`` is told which
    forms cannot be had here."""
    record = ticket.record
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        batch = _typical(list(ticket.task.batches("val", 0, 0)))
        call = ticket.exporting.call(ticket.whole, batch)
        runners = forms(ticket, batch, Path(folder), report)
        for size in sizes(call, ticket.task.batch_size):
            rows += _rows(ticket, runners, list(_inputs(call, size)), size, seconds, report)
    who = record.identity
    asked = {name: getattr(who, name) for name in ExperimentIdentity.model_fields}
    circumstances = environment()
    options = {
        "method": who.method,
        "method_config": who.method_config,
        "control": who.control,
        "threads": circumstances["threads"],
        "device": circumstances["device"],
    }
    identity = AnalysisIdentity(**asked, analysis=NAME, options=options, densities=[who.densities])
    return AnalysisRecord.make(
        identity,
        label=_label(ticket, circumstances["threads"]),
        note=record.note,
        command=f"bench speed {record.path(Path('runs'))}",
        environment=circumstances,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        about=ABOUT,
        keys=["network", "runtime", "batch"],
        plots=[],
        rows=rows,
        stages=[cast(TicketOrigin, record.ticket).stages[-1]],
        steps=0,
    )


def sizes(call: Call, batch: int) -> list[int]:
    """The batches to time: 1 and the task's; 1 alone where the number of examples is not free, as in a graph."""
    free = any(BATCH in axes.values() for axes in call.free.values())
    return sorted({1, batch}) if free else [1]


def _typical(batches: Sequence[Any]) -> Any:
    """One from the middle: texts are sorted by length."""
    return batches[len(batches) // 2]


def _inputs(call: Call, size: int) -> Iterator[Tensor]:
    """The inputs with so many examples, repeated where there are fewer."""
    for name, tensor in call.inputs.items():
        for axis, what in call.free.get(name, {}).items():
            if what == BATCH:
                index = torch.arange(size, device=tensor.device) % tensor.shape[axis]
                tensor = tensor.index_select(axis, index)
                if tensor.ndim == 4 and call.inputs[name].is_contiguous(memory_format=torch.channels_last):
                    tensor = tensor.contiguous(memory_format=torch.channels_last)
        yield tensor


def _rows(
    ticket: TrainedTicket,
    runners: dict[Form, Runner],
    inputs: list[Tensor],
    size: int,
    seconds: float,
    report: Callable[[str], None],
) -> Iterator[Row]:
    working = {}
    for form, runner in runners.items():
        try:
            runner(inputs)
            working[form] = partial(runner, inputs)
        except Exception as error:  # compilers compile at the first call
            why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            report(f"{form.network}, {form.runtime}, batch {size}: left out ({why[:160]})")
    times = timed(working, seconds, ticket.task.device)
    fewer = ticket.lab.macs(ticket.lab.ones()) / ticket.lab.macs(ticket.masks)
    on_core = ticket.task.device.type == "cpu" and torch.get_num_threads() == 1
    spent = {form: [one.cpu if on_core else one.wall for one in taken] for form, taken in times.items()}
    for form, taken in times.items():
        dense = spent.get(Form(DENSE, form.runtime), spent[form])
        ratios = [one / two for one, two in zip(dense, spent[form], strict=True)]
        over_eager = [one / two for one, two in zip(spent[Form(DENSE, EAGER)], spent[form], strict=True)]
        first, _, third = quantiles(ratios, n=4)
        yield {
            "network": form.network,
            "runtime": form.runtime,
            "batch": size,
            "median ms": _rounded(1000 * median(one.wall for one in taken)),
            "p95 ms": _rounded(1000 * quantiles([one.wall for one in taken], n=20)[-1]),
            "core ms": _rounded(1000 * median(one.cpu for one in taken)),
            "fewer MACs": _rounded(1.0 if form.network in (DENSE, MASKED) else fewer),
            "speed-up": _rounded(median(ratios)),
            "first quartile": _rounded(first),
            "third quartile": _rounded(third),
            "over eager dense": _rounded(median(over_eager)),
        }


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _label(ticket: TrainedTicket, threads: int) -> str:
    who = ticket.record.identity
    kept = ", ".join(f"{budget} {format.number(density)}" for budget, density in who.densities.items())
    said = [ticket.record.label, *([kept] if kept else []), *([who.control] if who.control else []), f"threads={threads}"]
    return f"{NAME}({', '.join(said)})"
