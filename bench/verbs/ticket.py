"""Look into a ticket."""

import argparse
from pathlib import Path

from bench.errors import BenchError
from bench.verbs.printing import table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parts = parser.add_subparsers(dest="part", required=True, metavar="show")
    shown = parts.add_parser("show", help="densities, layer by layer")
    shown.add_argument("run", type=Path, help="a record of a run")
    shown.add_argument("--json", action="store_true")


def run(given: argparse.Namespace) -> None:
    """Show a ticket's densities layer by layer: entries kept, entries there are, density."""
    from bench.storage.records import read_record

    record = read_record(given.run)
    if record.status != "ok":
        raise BenchError(f"record {record.id} holds no ticket: {record.status}, {record.reason}")
    rows = [
        {"tensor": name, "kept": t.kept, "total": t.total, "density": t.kept / max(1, t.total)}
        for name, t in record.tensors.items()
    ]
    table(rows, given.json)
