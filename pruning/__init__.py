"""Pruning as pure functions over named tensors. Knows neither the runner nor any task."""

from pruning.allocation.allocate import Densities, allocate
from pruning.controls import CONTROLS
from pruning.errors import NotApplicable, PruningError
from pruning.maskable import Maskable, budgets
from pruning.masks import Attachment, Masks, attach
from pruning.methods.magnitude import Ticket

__all__ = ["CONTROLS", "Attachment", "Densities", "Maskable", "Masks", "NotApplicable", "PruningError", "Ticket",
           "allocate", "attach", "budgets"]
