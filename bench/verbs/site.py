"""Write the leaderboards as pages for a browser: static files that need no server."""

import argparse
from pathlib import Path

from bench.errors import BenchError
from bench.verbs.arguments import add_root


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("--to", type=Path, default=Path("site"), help="the folder to write; default: site")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a page depends on the order of records or a link is broken"
    )
    add_root(parser)


def run(given: argparse.Namespace) -> None:
    """Write the pages, or check that they can be written."""
    from bench.site import build

    if not given.check:
        written = build.write(given.root, given.to)
        print(f"{len(written)} files written; open {given.to / 'index.html'}")
        return
    problems = build.check(given.root)
    if problems:
        print("\n".join(problems))
        raise BenchError(f"the site has {len(problems)} problems: each is a fault of bench/site")
    print("the site is the same however it is made, and its links lead somewhere")
