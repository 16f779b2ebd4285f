"""Put a ticket on the Hugging Face hub: the folder that `bench export` writes, with a model card.

bench push RECORD user/name
"""

import argparse
from pathlib import Path

from bench.export.formats import FORMATS
from bench.verbs.consent import add_trust, consent


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("record", type=Path, help="a record of a run")
    parser.add_argument("repository", help="user/name on the hub, made where there is none")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="where things are on this machine: store=DIR, data.root=DIR"
    )
    parser.add_argument("--format", choices=FORMATS, default="hf", help="what it holds besides safetensors")
    parser.add_argument("--private", action="store_true", help="make a private repository")
    add_trust(parser)


def run(given: argparse.Namespace) -> None:
    """Export a ticket and upload it."""
    from bench.export.push import push
    from bench.export.ticket import limit_threads, trained_ticket

    ticket = trained_ticket(given.record, [*given.overrides, "device=cpu"], consent(given))
    limit_threads(ticket)
    address, parities = push(ticket, given.repository, given.format, given.private)
    print("\n".join([address, *map(str, parities)]))
