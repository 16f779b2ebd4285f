"""Output of verbs: tables for people, JSON for programs."""

import json
import re
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from bench import launcher

WORTH_A_LINE = 1e6
"""Bytes below which nobody asks how much disk a grid takes."""


def table(rows: list[dict[str, Any]], as_json: bool, total: bool = False) -> None:
    """Print rows as a table, or as JSON; ``total`` adds a last row of sums."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from tabulate import tabulate

    if total and len(rows) > 1:
        rows = [*rows, {key: sum(r[key] for r in rows) if isinstance(rows[0][key], (int, float)) else "total" for key in rows[0]}]
    print(tabulate([{k: _shown(v) for k, v in row.items()} for row in rows], headers="keys", disable_numparse=True))


def tell_disk(bytes_and_free: tuple[float, int], store: str) -> None:
    """Say how much disk a grid will take, where that is worth a line."""
    takes, free = bytes_and_free
    if takes >= WORTH_A_LINE:
        warning = ": give another store=DIR, or see `bench store clean`" if takes > free else ""
        print(f"this will store about {size(takes)} in {store}, where {size(free)} are free{warning}", file=sys.stderr)


def report(outcomes: list[Any], summary: Callable[..., str], runs: str) -> int:
    """Print what a grid produced and what failed."""
    records = list({record.id: record for outcome in outcomes for record in outcome.records}.values())
    if records:
        print(summary(records))
        print(f"records: {len(records)} under {runs}; to put them on a leaderboard: bench publish {runs} && bench leaderboard")
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed and len(outcomes) == 1:  # failures were printed when they happened
        print(f"bench: nothing was lost. To try again: {launcher.command_line()}", file=sys.stderr)
    elif failed:
        print(
            f"bench: {len(failed)} of {len(outcomes)} jobs failed; the others are kept. First: {failed[0].error}. "
            f"To try the failed ones again: {launcher.command_line()}",
            file=sys.stderr,
        )
    return 1 if failed else 0


def size(count: float) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def sentence(documentation: str) -> str:
    """Return the first sentence of a docstring."""
    first = " ".join(documentation.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.:]) (?=[A-Z])", first)[0]


def _shown(value: Any) -> str:
    """Return a value for a table: few digits, lines of at most 60 characters (``maxcolwidths`` of tabulate stumbles over
    ``1,190``)."""
    return f"{value:,.4g}" if isinstance(value, float) else textwrap.fill(str(value), 60)
