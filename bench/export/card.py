"""The model card of a ticket: what it is, what was measured, how to load it and how to make it again."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bench.export.layout import MASKS, MODEL
from bench.export.parity import Parity
from bench.export.ticket import TrainedTicket, tensors_of
from bench.leaderboard import tables
from bench.leaderboard.boards import boards
from bench.leaderboard.markdown import escape, table
from bench.leaderboard.statistics import MIN_SEEDS
from bench.storage.files import canonical
from bench.storage.records import Record, read_records


def card(ticket: TrainedTicket, parities: Iterable[Parity], folder: Path) -> str:
    """Return README.md of the folder, with the metadata that the hub reads."""
    record = ticket.record
    result, cost, identity = record.result, record.cost, record.identity
    assert result
    assert cost
    kept = "".join(
        f"| {escape(budget)} | {'all' if k.asked is None else f'{k.asked:g}'} | {k.kept:,} of {k.total:,} "
        f"({k.kept / max(1, k.total):.4g}) |\n"
        for budget, k in record.budgets.items()
    )
    numbers = "".join(
        f"| {escape(name)} | {result.val.get(name, float('nan')):.4f} | {value:.4f} | {result.dense_test[name]:.4f} |\n"
        for name, value in result.test.items()
    )
    whole, left = (sum(t.numel() for t in tensors_of(network).values()) for network in (ticket.whole, ticket.small))
    title = f"{identity.model}, {identity.data}: {record.label}" + (f", control {identity.control}" if identity.control else "")
    shape = (
        "is smaller than the one it was pruned from" if ticket.slim else "has the shape of the one it was pruned from, with zeros"
    )
    faster = f", and it was measured to be {cost.measured_speedup:.2f} x faster" if cost.measured_speedup else ""
    return f"""---
{_metadata(record)}---

# {escape(title)}

A lottery ticket of task `{escape(identity.task)}`, protocol `{escape(identity.protocol)}`, seed {identity.seed}.
{escape(record.note)}

```python
import bench

model = bench.from_pretrained("this folder, or its name on the hub")
```

The network {shape}: {left:,} of {whole:,} numbers.
`{MODEL}` has {(folder / MODEL).stat().st_size:,} bytes, and `{MASKS}` has {(folder / MASKS).stat().st_size:,}.

## Density

| budget | asked | kept |
| --- | --- | --- |
{kept}
## Result

| metric | validation | test | test of the dense network |
| --- | --- | --- | --- |
{numbers}
{_verdicts(ticket)}
## Cost

Search took {cost.search_dense_trainings:.3g} dense trainings, and the ticket's training took {cost.train_dense_trainings:.3g}.
Inference takes {cost.inference_macs / cost.inference_macs_dense:.4g} of the dense network's multiply-adds in theory{faster}.

## Parity with the network as it was trained

{"".join(f"- {parity}" + chr(10) for parity in parities)}
## Make it again

    {record.command}

Record `{record.id}` is in `record.json`. The licences of the data and of pre-trained weights apply to what was made of them.
"""


def _metadata(record: Record) -> str:
    """Return YAML for the hub. Its values are JSON, which is YAML, so that no name needs quoting rules of its own."""
    result, identity = record.result, record.identity
    assert result
    measured = [{"type": name, "name": f"test {name}", "value": value} for name, value in result.test.items()]
    results = [{"task": {"type": identity.task}, "dataset": {"type": identity.data, "name": identity.data}, "metrics": measured}]
    entries = {
        "library_name": "ticket-bench",
        "tags": ["pruning", "lottery-ticket", "sparsity", identity.method.rpartition(":")[2], identity.task],
        "metrics": [result.metric],
        "model-index": [{"name": record.id, "results": results}],
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in entries.items())


def _verdicts(ticket: TrainedTicket) -> str:
    """Return the cells of the ticket and of its controls as a table, over all seeds whose records lie beside its own."""
    record, folder = ticket.record, ticket.path.absolute().parents[1]
    records = list(read_records(folder)) if record.path(folder.parents[1]).exists() else [record]
    free = {"seed", "control", "method", "method_config", "densities", "rounds"}
    setting = canonical(record.identity.model_dump(exclude=free))
    cells = (
        (section, row, column)
        for board in boards([r for r in records if canonical(r.identity.model_dump(exclude=free)) == setting])
        for section in board.sections
        for row, cells in section.rows.items()
        for column, cell in cells.items()
        if any(r.id == record.id for r in cell.records)
    )
    for section, row, column in cells:
        of_ticket = {other: of for other, of in section.rows.items() if other.ticket == row.ticket}
        here = {other: {c: cell for c, cell in of.items() if c == column} for other, of in of_ticket.items()}
        here = {other: of for other, of in here.items() if of or not other.control}  # a control may lie here without its ticket
        section = replace(section, rows=here, columns=[column])
        shown = tables.metric_table(section)
        shown = replace(shown, rows=[[replace(label, link=""), *cells] for label, *cells in shown.rows])
        return (
            f"{table(shown)}\n\nMean ± half-width of the 95 % interval (seeds), Δ to dense. ✓ matches dense; ≈ a "
            f"control that is not separably worse than its ticket; provisional: fewer than {MIN_SEEDS} seeds.\n"
        )
    return ""
