"""The one training loop. It knows tasks and masks, but neither methods nor storage."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from bench.errors import BenchError, Diverged
from bench.seeds import seed_for
from bench.task import Batch, Task, counted, evaluated, trainable
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

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        """Add a point to the curve, the mean loss of the epoch and ``metrics``, and begin the next epoch's mean."""
        self.curve.append({"step": self.step, "loss": self.loss_sum / self.loss_count, **metrics})
        self.loss_sum, self.loss_count = 0.0, 0


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
    """Train ``context.model`` in place from step ``progress.step`` to step ``last``, or until ``callback`` is finished. Step k's
    batch and its random numbers depend on (seed, k) alone: any way of cutting a training into pieces gives the same bits.
    ``save`` is called when ``checkpoint_seconds`` have passed since it last was. Raises Diverged when the loss is not finite."""
    model, optimizer, callback = context.model, context.optimizer, callback or Callback()
    validate_every = int(task.config["train"].get("validate_every", 0)) * task.steps_per_epoch
    parameters = [p for p in model.parameters() if p.requires_grad]
    losses = torch.full((), progress.loss_sum, dtype=torch.float64, device=task.device)
    began = saved = time.monotonic()
    behind = progress.seconds
    model.train()

    def settle() -> None:
        """Bring ``progress`` up to date. This is the only place that waits for the device."""
        progress.loss_sum = float(losses)
        progress.seconds = behind + time.monotonic() - began
        if not math.isfinite(progress.loss_sum):
            # names the epoch, not the step or the value: those depend on when the run was last interrupted
            raise Diverged(f"the training loss is not finite in epoch {-(-progress.step // task.steps_per_epoch)}")
        report(progress)

    with _Enforcement(task, context) as enforced:
        while progress.step < last and not callback.finished(context):
            epoch, offset = divmod(progress.step, task.steps_per_epoch)
            for batch in _rest_of_epoch(task, epoch, seed, offset):
                reseed(seed_for(seed, "step", progress.step), task.device, distributed.rank())
                callback.before_forward(context)
                loss = trainable(task.loss(enforced.network, batch), task)
                loss.backward()
                kernels.relax()
                callback.after_backward(context)
                enforced.attachment.mask_gradients()
                if task.clip_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, task.clip_norm)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                losses += distributed.all_reduce_mean(loss.detach())
                progress.loss_count += 1
                share = enforced.share
                progress.sparse_steps += (2 * share + 1) / 3 if callback.uses_dense_gradients(context) else share
                progress.step += 1
                context.step = progress.step
                callback.after_step(context)
                if progress.step % task.steps_per_epoch == 0:
                    settle()
                    validate = validate_every and progress.step % validate_every == 0
                    progress.end_epoch(evaluated(task, model, "val") if validate else {})
                    losses.zero_()
                    callback.after_epoch(context)
                if progress.step >= last or callback.finished(context):
                    break
                if time.monotonic() - saved > checkpoint_seconds or interruption.due():
                    settle()
                    save()
                    saved = time.monotonic()
                    if interruption.due():
                        raise interruption.Interrupted
        settle()


class _Enforcement:
    """The masks in force during a training: attached to the model, with the share of the dense MACs that they leave. Inside the
    context, ``network`` is the model as the loop calls it, a callback may set other masks, and kernels that compute wrong
    gradients are avoided."""

    def __init__(self, task: Task, context: TrainingContext):
        self._task, self._context = task, context
        self._attach(context.masks)
        context.set_masks = self._set
        kernels.guard()
        self.network = distributed.parallel(context.model)

    def _attach(self, masks: Masks) -> None:
        model = self._context.model
        self.attachment, self.share = attach(masks, model, self._context.optimizer), share_of_macs(self._task, model, masks)
        self._context.masks = masks

    def _set(self, masks: Masks) -> None:
        self.attachment.detach()
        self._attach(masks)

    def __enter__(self) -> Self:
        interruption.defer(True)
        return self

    def __exit__(self, *error: object) -> None:
        interruption.defer(False)
        self.attachment.detach()
        self._context.set_masks = lambda masks: None  # ends a circle of references, which would keep the network in memory
        distributed.undo_parallel(self._context.model)
        kernels.guard()


def _rest_of_epoch(task: Task, epoch: int, seed: int, offset: int) -> Iterator[Batch]:
    """Yield the batches of an epoch from ``offset`` on. BenchError where there is none."""
    batch = None
    for batch in task.batches("train", epoch, seed, offset, **distributed.share()):
        yield batch
    if batch is None:
        raise BenchError(
            f"epoch {epoch} has only {offset} training batches, but steps_per_epoch is "
            f"{task.steps_per_epoch}: `bench test` finds such mistakes in a task"
        )


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
