"""Pruning as pure functions over named tensors. Nothing in it depends on the runner or on a task. Names are imported on first
use, so that ``pruning.catalogue`` can be read without torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruning.allocation import allocate as allocate
    from pruning.controls import CONTROLS as CONTROLS
    from pruning.errors import NotApplicable as NotApplicable
    from pruning.errors import PruningError as PruningError
    from pruning.lab import Lab as Lab
    from pruning.maskable import Maskable as Maskable
    from pruning.maskable import budgets as budgets
    from pruning.masks import Attachment as Attachment
    from pruning.masks import Masks as Masks
    from pruning.masks import attach as attach
    from pruning.ticket import Densities as Densities
    from pruning.ticket import State as State
    from pruning.ticket import Ticket as Ticket

_HOME = dict.fromkeys(("Densities", "State", "Ticket"), "ticket") | dict.fromkeys(("Attachment", "Masks", "attach"), "masks")
_HOME |= {"allocate": "allocation", "CONTROLS": "controls", "Lab": "lab", "Maskable": "maskable", "budgets": "maskable"}
_HOME |= dict.fromkeys(("NotApplicable", "PruningError"), "errors")
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pruning' has no attribute {name!r}")
    return getattr(import_module(f"pruning.{_HOME[name]}"), name)
