"""Errors a user can act on. The message is one line that says what to do."""

from collections.abc import Collection


class PruningError(ValueError):
    """Input that no allocation, score or control can serve."""


class NotApplicable(PruningError):
    """The task lacks something the method declares to need."""


def one_of(what: str, value: str, choices: Collection[str]) -> str:
    """``value``, if it is one of ``choices``."""
    if value not in choices:
        raise PruningError(f"unknown {what} {value!r}: one of {', '.join(choices)}")
    return value
