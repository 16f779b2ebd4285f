"""Versions, devices, data roots: what is missing and how to get it."""

import argparse

from bench.verbs.printing import table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("--json", action="store_true")


def run(given: argparse.Namespace) -> None:
    """Print what is there, what is missing and how to get it."""
    from bench.checks.doctor import examine

    table(examine(), given.json)
