"""Look into a ticket, or take it out."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.verbs.printing import table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parts = parser.add_subparsers(dest="part", required=True, metavar="show|export")
    shown = parts.add_parser("show", help="densities, layer by layer")
    shown.add_argument("run", type=Path, help="a record of a run")
    shown.add_argument("--json", action="store_true")
    exported = parts.add_parser("export", help="masks and kept weights, in one safetensors file")
    exported.add_argument("run", type=Path, help="a record of a run")
    exported.add_argument("--to", type=Path, default=Path("ticket.safetensors"))
    exported.add_argument("--store", type=Path, default=Path(".bench"))


def run(given: argparse.Namespace) -> None:
    """Show a ticket's densities layer by layer, or write it to one safetensors file."""
    from bench.runner.export import export, show

    if given.part == "show":
        return table(show(given.run), given.json)
    path, trained, size = export(given.run, given.to, given.store)
    print(f"{path}: {size:,} bytes, {size / trained:.1%} of the trained parameters' {trained:,}")
