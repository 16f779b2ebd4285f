"""Errors a user can act on. The message is one line that says what to do."""

from collections.abc import Collection


class PruningError(ValueError):
    """The input is wrong: no allocation, score or control can work with it."""

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())  # a value that it quotes may have several


class NotApplicable(PruningError):
    """The task lacks something that a method, score or control needs."""


def not_finite(name: str) -> PruningError:
    """Return the error for a tensor whose scores are not all finite."""
    return PruningError(f"the score of {name} has non-finite entries; use float64, a smaller batch or another score")


def one_of(what: str, value: str, choices: Collection[str]) -> str:
    """Return ``value`` if it is one of ``choices``, else raise PruningError."""
    if value not in choices:
        raise PruningError(f"unknown {what} {value!r}: one of {', '.join(choices)}")
    return value
