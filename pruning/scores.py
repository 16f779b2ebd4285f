"""Scores: (model, maskables, data) -> a number per entry. Higher means keep.

``data`` is the method's view of the task: ``data.generator()`` for random draws. A score that needs more names it in
``requires``; a task that lacks it makes the method "not applicable".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .maskable import Maskable


def magnitude(model: nn.Module, maskables: list[Maskable], data) -> dict[str, Tensor]:
    """|w| (Han et al. 2015; Frankle & Carbin 2019)."""
    parameters = dict(model.named_parameters())
    return {m.name: parameters[m.name].detach().abs() for m in maskables}


def random(model: nn.Module, maskables: list[Maskable], data) -> dict[str, Tensor]:
    """Uniform on [0, 1): no information, the floor under every method."""
    generator = data.generator()
    return {m.name: torch.rand(m.shape, generator=generator) for m in maskables}
