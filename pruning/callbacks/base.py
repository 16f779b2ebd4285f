"""Callbacks: what a method adds to a training, such as a penalty, masks that move, learned scores or an observer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pruning.hashed_options import identity_of
from pruning.maskable import Maskable
from pruning.masks import Masks


@dataclass
class TrainingContext:
    """A training in progress, as its callback sees it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    maskables: list[Maskable]
    step: int
    """The number of steps taken, on the schedule's own count."""
    total: int
    """The length of the schedule in steps."""
    steps_per_epoch: int
    masks: Masks
    """The masks in force."""
    set_masks: Callable[[Masks], None]
    """Put other masks in force. Parameters and optimizer state of the entries that they prune become zero at once."""
    generator: Callable[[str], torch.Generator]
    """Random draws for a purpose; the draws of one step must name it: ``generator(f"regrow {context.step}")``."""
    validate: Callable[[], float]
    """The metric of the current model on the validation data; higher is better."""

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The maskable parameters by name."""
        parameters = dict(self.model.named_parameters())
        return {m.name: parameters[m.name] for m in self.maskables}


class Callback:
    """Takes part in one training. For every step the loop calls ``before_forward``, runs forward and backward, calls
    ``after_backward`` (gradients exist, and are masked and clipped only afterwards), steps the optimizer and calls
    ``after_step``; after every pass over the data it calls ``after_epoch``; it stops early once ``finished``.

    A callback is a dataclass and a pure function of its fields and the context: the fields enter the stage key, and its ``state``
    is stored with every checkpoint and with the stage, where the method finds it (``lab.callback_state``). An observer
    changes nothing of the training.
    """

    name: ClassVar[str]
    """What the callback is called in stage keys."""

    def options(self) -> dict[str, Any]:
        """Return the name and the fields as JSON values: everything that the effect depends on."""
        return {"name": self.name, **identity_of(self)}

    def on_start(self, context: TrainingContext) -> None:
        """Prepare for the first step. Called again on resuming, just before ``load``."""

    def before_forward(self, context: TrainingContext) -> None:
        """Act before the forward pass; parameters may be set here."""

    def after_backward(self, context: TrainingContext) -> None:
        """Act on the gradients: add to them, or replace them."""

    def uses_dense_gradients(self, context: TrainingContext) -> bool:
        """Return whether this step uses gradients of pruned entries: a third of it is then charged at the dense rate."""
        return False

    def after_step(self, context: TrainingContext) -> None:
        """Act after the optimizer has stepped and the masks were enforced; ``context.step`` counts this step."""

    def after_epoch(self, context: TrainingContext) -> None:
        """Act after a pass over the data: ``context.step`` is a multiple of ``context.steps_per_epoch``."""

    def finished(self, context: TrainingContext) -> bool:
        """Return whether to stop before the schedule ends. It is called after every step and on resuming."""
        return False

    def state(self) -> dict[str, Tensor]:
        """Return everything that resuming needs and that the method wants to know afterwards."""
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what ``state`` returned."""


class CallbackList(Callback):
    """Several callbacks in one training, called in this order and finished once one of them is. The state of each is stored
    below its name."""

    name = "together"

    def __init__(self, *callbacks: Callback):
        self.callbacks = {callback.name: callback for callback in callbacks}

    def options(self) -> dict[str, Any]:
        return {"name": self.name, "rules": [callback.options() for callback in self.callbacks.values()]}

    def on_start(self, context: TrainingContext) -> None:
        for callback in self.callbacks.values():
            callback.on_start(context)

    def before_forward(self, context: TrainingContext) -> None:
        for callback in self.callbacks.values():
            callback.before_forward(context)

    def after_backward(self, context: TrainingContext) -> None:
        for callback in self.callbacks.values():
            callback.after_backward(context)

    def uses_dense_gradients(self, context: TrainingContext) -> bool:
        return any(callback.uses_dense_gradients(context) for callback in self.callbacks.values())

    def after_step(self, context: TrainingContext) -> None:
        for callback in self.callbacks.values():
            callback.after_step(context)

    def after_epoch(self, context: TrainingContext) -> None:
        for callback in self.callbacks.values():
            callback.after_epoch(context)

    def finished(self, context: TrainingContext) -> bool:
        return any(callback.finished(context) for callback in self.callbacks.values())

    def state(self) -> dict[str, Tensor]:
        return {f"{name}/{key}": t for name, callback in self.callbacks.items() for key, t in callback.state().items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, callback in self.callbacks.items():
            callback.load(below(name, tensors))


def below(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with ``name/``, without that prefix."""
    return {key.removeprefix(f"{name}/"): t for key, t in tensors.items() if key.startswith(f"{name}/")}


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of an optimizer by ``<parameter name>/<key>``, where every optimizer of PyTorch keeps tensors."""
    return {
        f"{name}/{key}": torch.as_tensor(value)
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Restore what ``optimizer_state`` returned. State of the same shape takes its parameter's device and memory format."""
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        parameter = parameters[name]
        like = parameter.detach() if value.shape == parameter.shape else value
        optimizer.state[parameter][key] = torch.empty_like(like, dtype=value.dtype).copy_(value)
