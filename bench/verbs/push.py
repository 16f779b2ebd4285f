"""Put a ticket on the Hugging Face hub: the folder that `bench export` writes, with a model card.

bench push RECORD user/name
"""

import argparse

from bench.export.formats import FORMATS
from bench.verbs.arguments import add_overrides, add_ticket, ticket


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_ticket(parser)
    parser.add_argument("repository", help="user/name on the hub, made where there is none")
    add_overrides(parser)
    parser.add_argument("--format", choices=FORMATS, default="hf", help="what it holds besides safetensors")
    parser.add_argument("--private", action="store_true", help="make a private repository")


def run(given: argparse.Namespace) -> None:
    """Export a ticket and upload it."""
    from bench.export.push import push

    address, parities = push(ticket(given, "device=cpu"), given.repository, given.format, given.private)
    print("\n".join([address, *map(str, parities)]))
