"""The one training loop. It knows tasks and masks, but neither methods nor storage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.errors import BenchError, Diverged
from bench.seeds import seed_for
from bench.task import Task, counted, evaluated, trainable
from bench.training import distributed, interruption, kernels
from pruning import Masks, attach
from pruning.callbacks.base import Callback, TrainingContext


@dataclass
class Progress:
    """The progress of a training, stored with every checkpoint, so that a resumed curve equals an uninterrupted one."""

    step: int
    seconds: float = 0.0
    sparse_steps: float = 0.0
    """The steps so far, each counted as the share of the dense MACs that its masks leave."""
    loss_sum: float = 0.0
    loss_count: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)


def train(
    task: Task,
    context: TrainingContext,
    seed: int,
    progress: Progress,
    last: int,
    schedule: LambdaLR,
    save: Callable[[], object],
    checkpoint_seconds: float = math.inf,
    report: Callable[[Progress], None] = lambda progress: None,
    callback: Callback | None = None,
) -> None:
    """Train ``context.model`` in place from step ``progress.step`` to step ``last``, or until ``callback`` is satisfied.

    Step k's batch and its random numbers depend on (seed, k) alone: any way of cutting a training into pieces gives the
    same bits. ``save`` is called when ``checkpoint_seconds`` have passed since it last was. Raises Diverged when the loss is
    not finite.
    """
    model, optimizer = context.model, context.optimizer
    attached, share = attach(context.masks, model, optimizer), share_of_macs(task, model, context.masks)
    validate_every = int(task.config["train"].get("validate_every", 0)) * task.steps_per_epoch
    parameters = [p for p in model.parameters() if p.requires_grad]
    losses = torch.full((), progress.loss_sum, dtype=torch.float64, device=task.device)
    began = saved = time.monotonic()
    behind = progress.seconds
    model.train()

    def set_masks(masks: Masks) -> None:
        nonlocal attached, share
        attached.detach()
        context.masks, attached, share = masks, attach(masks, model, optimizer), share_of_macs(task, model, masks)

    context.set_masks = set_masks
    kernels.guard()

    def settle() -> None:
        """Bring ``progress`` up to date. This is the only place that waits for the device."""
        progress.loss_sum = float(losses)
        progress.seconds = behind + time.monotonic() - began
        if not math.isfinite(progress.loss_sum):
            # names the epoch, not the step or the value: those depend on when the run was last interrupted
            raise Diverged(f"the training loss is not finite in epoch {-(-progress.step // task.steps_per_epoch)}")
        report(progress)

    called = distributed.parallel(model)
    try:
        interruption.defer(True)
        while progress.step < last and not (callback and callback.finished(context)):
            epoch, offset = divmod(progress.step, task.steps_per_epoch)
            before = progress.step
            for batch in task.batches("train", epoch, seed, offset, **distributed.share()):
                reseed(seed_for(seed, "step", progress.step), task.device, distributed.rank())
                if callback:
                    callback.before_forward(context)
                loss = trainable(task.loss(called, batch), task)
                loss.backward()
                kernels.relax()
                if callback:
                    callback.after_backward(context)
                attached.mask_gradients()
                if task.clip_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, task.clip_norm)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                losses += distributed.mean(loss.detach())
                progress.loss_count += 1
                progress.sparse_steps += (2 * share + 1) / 3 if callback and callback.uses_dense_gradients(context) else share
                progress.step += 1
                context.step = progress.step
                if callback:
                    callback.after_step(context)
                if progress.step % task.steps_per_epoch == 0:
                    settle()
                    point = {"step": progress.step, "loss": progress.loss_sum / progress.loss_count}
                    if validate_every and progress.step % validate_every == 0:
                        point |= evaluated(task, model, "val")
                    progress.curve.append(point)
                    progress.loss_sum, progress.loss_count = 0.0, 0
                    losses.zero_()
                    if callback:
                        callback.after_epoch(context)
                if progress.step >= last or (callback and callback.finished(context)):
                    break
                if time.monotonic() - saved > checkpoint_seconds or interruption.due():
                    settle()
                    save()
                    saved = time.monotonic()
                    if interruption.due():
                        raise interruption.Interrupted
            if progress.step == before:
                raise BenchError(
                    f"epoch {epoch} has only {offset} training batches, but steps_per_epoch is "
                    f"{task.steps_per_epoch}: `bench test` finds such slips in a task"
                )
        settle()
    finally:
        interruption.defer(False)
        attached.detach()
        distributed.apart(model)
        kernels.guard()


def share_of_macs(task: Task, model: nn.Module, masks: Masks) -> float:
    """Return the theoretical MACs under ``masks`` as a share of the dense ones."""
    dense = counted(task, model, {})
    return counted(task, model, masks.densities()) / dense if dense else 1.0


def reseed(seed: int, device: torch.device, process: int = 0) -> None:
    """Set the random state that dropout draws from. Not ``torch.manual_seed``, which queues a call for every CUDA device."""
    torch.default_generator.manual_seed(seed + process)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed + process)


def seek(schedule: LambdaLR, step: int) -> None:
    """Put a fresh schedule at ``step``: its rates depend on the step alone."""
    schedule.last_epoch = step
    for group, base, factor in zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = base * factor(step)


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the optimizer state by ``optimizer/<parameter name>/<key>``, where every optimizer of PyTorch keeps tensors."""
    return {
        f"optimizer/{name}/{key}": torch.as_tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def load_optimizer(model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore what ``optimizer_tensors`` returned. State of the same shape takes its parameter's memory format."""
    parameters = dict(model.named_parameters())
    for path, value in tensors.items():
        kind, _, rest = path.partition("/")
        if kind == "optimizer":
            name, _, key = rest.rpartition("/")
            parameter = parameters[name]
            like = (
                torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                if value.shape == parameter.shape
                else torch.empty_like(value)
            )
            optimizer.state[parameter][key] = like.copy_(value)
