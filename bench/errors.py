"""Errors that a user can fix. They are printed as one line, with exit status 1, or 2 for a command that cannot be understood."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pydantic import ValidationError

Choice = TypeVar("Choice")


class BenchError(Exception):
    """The input or the environment is wrong; the message is one line that says what to do."""

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())  # a value that the message quotes may have several lines


class UsageError(BenchError):
    """The command cannot be understood."""


OF_DENSE = "the dense network: "
"""How the reason of a record begins whose dense network diverged, so that nothing can be compared with it."""


class Diverged(BenchError):
    """The loss became NaN or infinite."""


class Held(BenchError):
    """Another process is training the stage ``key``. Work that needs this stage must wait; everything else can go on."""

    def __init__(self, key: str):
        super().__init__(f"another process trains stage {key}: run the command again when it is done")
        self.key = key


def first_line(error: Exception) -> str:
    """Return the first line of an error of another library, or its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def first_problem(error: ValidationError, whole: str = "") -> str:
    """Return the first problem that pydantic found in one line, after the field that has it, or ``whole`` where none has."""
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"])) or whole
    why = " ".join(problem["msg"].removeprefix("Value error, ").split())
    return f"{where}: {why}" if where else why


def described(error: Exception) -> str:
    """Return an unexpected error in one line: its kind, its message, and the file and line that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"


def one_of(what: str, name: Choice, choices: Collection[Choice]) -> Choice:
    """Return ``name`` if it is one of ``choices``, else raise ``unknown``."""
    if name not in choices:
        raise unknown(what, str(name), map(str, choices))
    return name


def unknown(what: str, name: str, choices: Iterable[str]) -> UsageError:
    """Return the error ``unknown task 'x'; did you mean y? (all: ...)``."""
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    return UsageError(f"unknown {what} {name!r}{hint} one of: {', '.join(choices) or 'none'}")
