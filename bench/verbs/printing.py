"""Output of verbs: tables for people, JSON for programs."""

import json
import re
import textwrap
from typing import Any


def table(rows: list[dict[str, Any]], as_json: bool, total: bool = False) -> None:
    """Print rows as a table, or as JSON; ``total`` adds a last row of sums."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from tabulate import tabulate

    if total and len(rows) > 1:
        rows = [*rows, {key: sum(r[key] for r in rows) if isinstance(rows[0][key], (int, float)) else "total" for key in rows[0]}]
    print(tabulate([{k: _shown(v) for k, v in row.items()} for row in rows], headers="keys", disable_numparse=True))


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
