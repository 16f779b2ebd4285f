"""What a user can mend: printed as one line, exit status 1 (2 for a command that cannot be understood)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """One line that says what is wrong and what to do."""

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())  # a value that it quotes may have several


class UsageError(BenchError):
    """The command cannot be understood."""


class Diverged(BenchError):
    """The loss became NaN or infinite."""


def unknown(what: str, name: str, choices: Iterable[str]) -> UsageError:
    """``unknown task 'x'; did you mean y? (all: ...)``"""
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    return UsageError(f"unknown {what} {name!r}{hint} one of: {', '.join(choices) or 'none'}")
