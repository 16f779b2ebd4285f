"""Pruning as pure functions over named tensors. Knows neither the runner nor any task."""

from .allocate import Densities, allocate
from .controls import CONTROLS
from .errors import NotApplicable, PruningError
from .maskable import Maskable, budgets
from .masks import Attachment, Masks, attach
from .methods import Ticket

__all__ = ["CONTROLS", "Attachment", "Densities", "Maskable", "Masks", "NotApplicable", "PruningError", "Ticket",
           "allocate", "attach", "budgets"]
