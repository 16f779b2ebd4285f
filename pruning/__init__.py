"""Pruning as pure functions over named tensors. It knows neither the runner nor any task."""

from pruning.allocation.allocate import allocate
from pruning.controls import CONTROLS
from pruning.errors import NotApplicable, PruningError
from pruning.lab import Lab
from pruning.maskable import Maskable, budgets
from pruning.masks import Attachment, Masks, attach
from pruning.ticket import Densities, State, Ticket

__all__ = ["CONTROLS", "Attachment", "Densities", "Lab", "Maskable", "Masks", "NotApplicable", "PruningError", "State", "Ticket",
           "allocate", "attach", "budgets"]
