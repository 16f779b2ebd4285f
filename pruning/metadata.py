"""What the suite must know of a method, score, control or analysis beyond its signature, declared where it is defined.

A plain function without a decorator is a valid method, score, control or analysis: it has the defaults below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

Function = TypeVar("Function", bound=Callable[..., Any])
Info = TypeVar("Info")

Row = dict[str, Any]
"""A row of an analysis: column -> JSON value."""
_ATTRIBUTE = "_pruning_info"


@dataclass(frozen=True)
class MethodInfo:
    """What the suite must know of a method."""

    sequential: bool | Callable[[Mapping[str, Any]], bool] = False
    """Whether a ticket depends on the densities that were asked for before its own, or a function of the options that tells."""
    recorded: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """Turns the options into what a record holds of them; a file, for example, is recorded by its content."""
    transfers: bool = False
    """Whether its masks were found on other data, by the method that its option ``method`` names."""
    searches_no_data: bool = False
    """Whether its masks depend on the initial weights alone, so that transfer matrices show them as masks of no data set."""


@dataclass(frozen=True)
class ScoreInfo:
    """What the suite must know of a score."""

    prepare: Callable[[nn.Module], AbstractContextManager[Any]] = nullcontext
    """The context in which the model is scored. It is entered once for all rounds."""
    blind_to: tuple[str, ...] = ()
    """Kinds of tensors whose score is always zero, so that one ranking over all tensors would remove them first."""


@dataclass(frozen=True)
class ControlInfo:
    """What the suite must know of a control."""

    searched: bool = True
    """Whether its ticket needs the search of the ticket that it controls."""
    sanity: bool = False
    """Whether a ticket must beat it if its choice of entries and weights is to matter (Frankle et al. 2021)."""
    changes_cost: bool = False
    """Whether its ticket computes the same as the one that it controls at another cost."""


@dataclass(frozen=True)
class AnalysisInfo:
    """What the suite must know of an analysis."""

    keys: tuple[str, ...] = ()
    """Columns that identify a row; all others hold measured numbers."""
    plots: tuple[str, ...] = ()
    """Measured columns that are plotted; if empty, the first one is."""
    on_boards: bool = False
    """Whether its rows say something of the data alone, so that every board of that data shows them."""


def method(
    *,
    sequential: bool | Callable[[Mapping[str, Any]], bool] = False,
    recorded: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    transfers: bool = False,
    searches_no_data: bool = False,
) -> Callable[[Function], Function]:
    """Declare what ``MethodInfo`` describes."""
    return _declared(MethodInfo(sequential, recorded, transfers, searches_no_data))


def score(
    *, prepare: Callable[[nn.Module], AbstractContextManager[Any]] = nullcontext, blind_to: tuple[str, ...] = ()
) -> Callable[[Function], Function]:
    """Declare what ``ScoreInfo`` describes."""
    return _declared(ScoreInfo(prepare, blind_to))


def control(*, searched: bool = True, sanity: bool = False, changes_cost: bool = False) -> Callable[[Function], Function]:
    """Declare what ``ControlInfo`` describes."""
    return _declared(ControlInfo(searched, sanity, changes_cost))


def analysis(*, keys: tuple[str, ...], plots: tuple[str, ...] = (), on_boards: bool = False) -> Callable[[Function], Function]:
    """Declare what ``AnalysisInfo`` describes."""
    return _declared(AnalysisInfo(keys, plots, on_boards))


def info_of(function: Callable[..., Any], kind: type[Info]) -> Info:
    """Return what a function declared of itself, or the defaults."""
    declared = getattr(function, _ATTRIBUTE, None)
    return declared if isinstance(declared, kind) else kind()


def _declared(info: object) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        setattr(function, _ATTRIBUTE, info)
        return function

    return decorate
