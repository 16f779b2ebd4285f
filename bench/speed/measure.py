"""Measures a ticket's speed and seals what was measured."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any, cast

import torch
from torch import Tensor

from bench.errors import UsageError, first_line
from bench.export.runtimes import Runner
from bench.export.ticket import TrainedTicket
from bench.leaderboard import format
from bench.leaderboard.speed import FEWER, NAME, SPEEDUP, instructions
from bench.runner.environment import environment, now
from bench.speed.forms import DENSE, EAGER, MASKED, Form, forms
from bench.speed.timing import timed
from bench.storage.analysis_records import AnalysisIdentity, AnalysisRecord, Row
from bench.storage.records import ExperimentIdentity, Record, TicketOrigin, read_sealed, record_path
from bench.task.capabilities import Call
from pruning.hashed_options import without_defaults

ABOUT = (
    "Measured time of one inference: the forms of a ticket and the dense network in turn, on one machine. The speed-up is over "
    "the dense network in the same runtime: the median of all rounds, and its quartiles; with one CPU thread it is of seconds "
    "on the core, which other processes do not lengthen. Fewer MACs is what masks save in theory."
)
INSTRUCTIONS = "instruction_set"
"""The widest instructions of the CPU that were used."""
BATCH = "batch"
"""The free size of a ``Call`` that counts examples, and the column that says it."""


def measure(
    ticket: TrainedTicket,
    runs: Path,
    seconds: float = 20,
    report: Callable[[str], None] = lambda line: None,
    batches: Sequence[int] = (),
) -> AnalysisRecord:
    """Time every form of the ticket at batch 1, at the task's batch, at ``batches`` and at those of an earlier record below
    ``runs``, which the new one replaces; about ``seconds`` for each. ``report`` is told which forms do not run here."""
    record, circumstances = ticket.record, environment()
    identity = _identity(record, circumstances)
    label = _label(record, identity.options)
    earlier = record_path(runs, identity, label)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        batch = _typical(list(ticket.task.batches("val", 0, 0)))
        call = ticket.exporting.call(ticket.whole, batch)
        usual = sizes(call, ticket.task.batch_size)
        measured = [int(row[BATCH] or 1) for row in read_sealed(earlier, AnalysisRecord).rows] if earlier.exists() else []
        wanted = sizes(call, ticket.task.batch_size, [*measured, *batches])
        runners = forms(ticket, batch, Path(folder), report)
        for size in wanted:
            rows += _rows(ticket, runners, list(_inputs(call, size)), size, seconds, report)
    return AnalysisRecord.make(
        identity,
        label=label,
        note=record.note,
        command=f"bench speed {record.path(Path('runs'))}{''.join(f' --batch {size}' for size in wanted if size not in usual)}",
        environment=circumstances,
        created=now(),
        about=ABOUT,
        keys=["network", "runtime", BATCH],
        plots=[],
        rows=rows,
        stages=[cast(TicketOrigin, record.ticket).stages[-1]],
        steps=0,
    )


def _identity(record: Record, circumstances: Mapping[str, Any]) -> AnalysisIdentity:
    identity = record.identity
    setting = {name: getattr(identity, name) for name in ExperimentIdentity.model_fields}
    options = {name: getattr(identity, name) for name in ("method", "method_config", "control")}
    options |= {name: circumstances[name] for name in ("threads", "device")}
    used = {INSTRUCTIONS: instructions(circumstances)}
    options |= without_defaults(used, {INSTRUCTIONS: "AVX512"})  # the records before it was noted are of such a CPU
    return AnalysisIdentity(**setting, analysis=NAME, options=options, densities=[identity.densities])


def sizes(call: Call, batch: int, more: Sequence[int] = ()) -> list[int]:
    """Return the batches to time: 1, the task's and ``more``; 1 alone where the number of examples is not free, as in a graph."""
    free = any(BATCH in axes.values() for axes in call.free.values())
    if wrong := [size for size in more if size < 1 or (size > 1 and not free)]:
        raise UsageError(f"batch {wrong[0]}: it must be 1 or more, and 1 where all examples are one graph")
    return sorted({1, batch, *more}) if free else [1]


def _typical(batches: Sequence[Any]) -> Any:
    """Return one from the middle: texts are sorted by length."""
    return batches[len(batches) // 2]


def _inputs(call: Call, size: int) -> Iterator[Tensor]:
    """Yield the inputs with ``size`` examples, repeated where there are fewer."""
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
            report(f"{form.network}, {form.runtime}, batch {size}: left out ({first_line(error)})")
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
            BATCH: size,
            "median ms": format.significant(1000 * median(one.wall for one in taken)),
            "p95 ms": format.significant(1000 * quantiles([one.wall for one in taken], n=20)[-1]),
            "core ms": format.significant(1000 * median(one.cpu for one in taken)),
            FEWER: format.significant(1.0 if form.network in (DENSE, MASKED) else fewer),
            SPEEDUP: format.significant(median(ratios)),
            "first quartile": format.significant(first),
            "third quartile": format.significant(third),
            "over eager dense": format.significant(median(over_eager)),
        }


def _label(record: Record, options: Mapping[str, Any]) -> str:
    identity = record.identity
    kept = [f"{budget} {format.number(density)}" for budget, density in identity.densities.items()]
    narrow = [options[INSTRUCTIONS]] if INSTRUCTIONS in options else []
    parts = [record.label, *kept, *([identity.control] if identity.control else []), f"threads={options['threads']}", *narrow]
    return f"{NAME}({', '.join(parts)})"
