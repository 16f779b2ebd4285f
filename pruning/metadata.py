"""What the suite must know of a method, score, control or analysis beyond its signature, declared where it is defined by the
decorators ``method``, ``score``, ``control`` and ``analysis``. A plain function without a decorator is a valid method, score,
control or analysis: it has the defaults below."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pruning.errors import PruningError

if TYPE_CHECKING:
    from torch import nn

Function = TypeVar("Function", bound=Callable[..., Any])
Info = TypeVar("Info")

Row = dict[str, Any]
"""A row of an analysis: column -> JSON value."""
_ATTRIBUTE = "_pruning_info"


class _Info:
    """A declaration, which is called with the function that it describes and returns it."""

    def __call__(self, function: Function) -> Function:
        setattr(function, _ATTRIBUTE, self)
        return function


@dataclass(frozen=True, kw_only=True)
class MethodInfo(_Info):
    """What the suite must know of a method."""

    sequential: bool | Mapping[str, Any] = False
    """Whether a ticket depends on the densities that were asked for before its own, or the options with which it does."""
    recorded: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """Turns the options into what a record holds of them; a file, for example, is recorded by its content."""
    transfers: bool = False
    """Whether its masks were found on other data, by the method that its option ``method`` names."""
    searches_no_data: bool = False
    """Whether its masks depend on the initial weights alone, so that transfer matrices show them as masks of no data set."""

    def is_sequential(self, options: Mapping[str, Any]) -> bool:
        """Return whether the method is sequential with these options."""
        if isinstance(self.sequential, Mapping):
            return all(options.get(name) == value for name, value in self.sequential.items())
        return self.sequential


@dataclass(frozen=True, kw_only=True)
class ScoreInfo(_Info):
    """What the suite must know of a score."""

    prepare: Callable[["nn.Module"], AbstractContextManager[Any]] = nullcontext
    """The context in which the model is scored. It is entered once for all rounds."""
    blind_to: tuple[str, ...] = ()
    """Kinds of tensors whose score is always zero, so that one ranking over all tensors would remove them first."""


@dataclass(frozen=True, kw_only=True)
class ControlInfo(_Info):
    """What the suite must know of a control."""

    searched: bool = True
    """Whether its ticket needs the search of the ticket that it controls."""
    sanity: bool = False
    """Whether a ticket must beat it if its choice of entries and weights is to matter (Frankle et al. 2021)."""
    changes_cost: bool = False
    """Whether its ticket computes the same as the one that it controls at another cost."""


@dataclass(frozen=True, kw_only=True)
class AnalysisInfo(_Info):
    """What the suite must know of an analysis."""

    keys: tuple[str, ...] = ()
    """Columns that identify a row; all others hold measured numbers."""
    plots: tuple[str, ...] = ()
    """Measured columns that are plotted; if empty, the first one is."""
    on_boards: bool = False
    """Whether its rows say something of the data alone, so that every board of that data shows them."""

    def __call__(self, function: Function) -> Function:
        if not self.keys:
            raise PruningError(
                f"analysis {function.__name__} names no keys: say which columns identify a row, @analysis(keys=(...))"
            )
        return super().__call__(function)


method, score, control, analysis = MethodInfo, ScoreInfo, ControlInfo, AnalysisInfo


def info_of(function: Callable[..., Any], kind: type[Info]) -> Info:
    """Return what a function declared of itself, or the defaults."""
    declared = getattr(function, _ATTRIBUTE, None)
    return declared if isinstance(declared, kind) else kind()
