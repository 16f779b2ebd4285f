"""Trainings by a part of the learning-rate schedule, each read from the store or run and stored."""

from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from bench.errors import Diverged, UsageError, one_of
from bench.lab.states import States, snapshot
from bench.seeds import seed_for
from bench.storage.stage_key import stage_key, training_ingredients
from bench.storage.stages import Stage
from bench.training import distributed
from bench.training.loop import Progress, seek, share_of_macs, train
from pruning import Masks, NotApplicable, Ticket
from pruning.callbacks.base import Callback, TrainingContext, below, load_optimizer_state, optimizer_state
from pruning.rewinding import parse
from pruning.ticket import State, TrainingCost

SCHEDULES = ("replay", "whole", "constant")
"""Which part of the task's schedule a training follows; see ``Training.train``."""


class Training(States):
    """Trains networks, and reads what a training stored."""

    def start(self, rewind: str) -> State:
        per_epoch = self.task.steps_per_epoch
        point = parse(rewind, per_epoch, self.steps, self.task.pretraining_epochs * per_epoch)
        if point.needs_pretrained and not self.task.pretrained:
            raise NotApplicable(f"rewind={rewind} needs a pre-trained model, which this task does not have; use rewind=init")
        state = State(point.weights, 0)
        return state if point.step is None else self.train(state, self.ones(), until=point.step)

    def train(
        self,
        start: State,
        masks: Masks,
        schedule: str = "replay",
        until: int | None = None,
        callback: Callback | None = None,
        order: int = 0,
        slim: bool = False,
    ) -> State:
        """Return the state at the end of a training, as ``pruning.lab.Lab.train`` says: it is read from the store, or trained
        now. Raises Held where another process is training it."""
        first, total = self.span(start, schedule)
        last = total if until is None else until
        own = (start, masks, first, total, schedule, callback, order, slim, self.pattern)
        ingredients = training_ingredients(self._ingredients, *own)
        key = stage_key(ingredients)
        stage = self.store.get(key, last)
        if distributed.broadcast(stage is None or stage.checkpoint) or stage is None:
            stage = self._train(start, masks, ingredients, key, last, callback)
        if "diverged" in stage.info:
            raise Diverged(stage.info["diverged"])
        progress = stage.info["progress"]
        steps = progress["step"] - first  # short of ``last`` where a callback stopped it earlier
        sparse = progress["sparse_steps"] if callback else steps * share_of_macs(self.task, self.model, masks)
        self._ledger.enter_training(key, TrainingCost(last, steps, sparse))
        return State(key, last)

    def span(self, start: State, schedule: str) -> tuple[int, int]:
        if schedule.startswith("stretch:"):
            return 0, int(schedule.removeprefix("stretch:"))
        one_of("schedule", schedule, SCHEDULES)
        first = start.step if schedule == "replay" else 0
        if first >= self.steps:
            raise UsageError("schedule=replay from the end of training leaves no steps: choose schedule=whole or constant")
        return first, self.steps

    def training_steps(self, ticket: Ticket) -> int:
        if ticket.trained:
            return 0
        first, total = self.span(ticket.start, ticket.schedule)
        return total - first

    def callback_state(self, state: State) -> dict[str, Tensor]:
        return below("rule", self.stage(state).tensors())

    def logged(self, state: State, name: str) -> list[float]:
        return self.callback_state(state)[name].tolist()

    def learned_scores(self, state: State) -> dict[str, Tensor]:
        return below("scores", self.callback_state(state))

    # the rest is private

    def _train(
        self, start: State, masks: Masks, ingredients: dict[str, Any], key: str, last: int, callback: Callback | None
    ) -> Stage:
        distributed.agree("their masks", masks.digest())
        several = distributed.processes() > 1  # the others already wait for the first one
        with self.store.lock(key, wait=several) if distributed.first() else nullcontext():
            distributed.wait()
            stage = self.store.latest(key, last)  # another process or an earlier run may have stored it
            distributed.wait()
            if stage and "diverged" in stage.info:  # it diverged on the way and would again
                return stage
            if stage and stage.step == last:
                if stage.checkpoint and distributed.first():
                    self.store.put(key, last, stage.tensors(), {**stage.info, "checkpoint": False})
            else:
                self._continue(stage, start, masks, ingredients, key, last, callback)
            distributed.wait()
            return self.stage(State(key, last))

    def _continue(
        self,
        stage: Stage | None,
        start: State,
        masks: Masks,
        ingredients: dict[str, Any],
        key: str,
        last: int,
        callback: Callback | None,
    ) -> None:
        """Train from ``stage``, or from the beginning, to the step ``last``, and store that. Call under the lock of the key."""
        total, order, slim = ingredients["total"], ingredients.get("order", 0), ingredients.get("slim", False)
        model, maskables, enforced = self.load(start), self.maskables, masks
        if slim:
            model, maskables = self.slim(start, masks), []
            enforced = masks.restrict_to(model)
        make = self.task.constant_optimizer if ingredients["schedule"] == "constant" else self.task.optimizer
        optimizer, schedule = make(model, total)
        progress = Progress(ingredients["first"])
        run = TrainingContext(
            model,
            optimizer,
            maskables,
            progress.step,
            total,
            self.task.steps_per_epoch,
            enforced,
            set_masks=lambda masks: None,
            generator=lambda purpose: self.generator(f"rule {purpose}"),
            validate=lambda: self.signed_metric(model, "val"),
        )
        if stage:
            tensors = stage.tensors()
            model.load_state_dict(below("model", tensors))
            load_optimizer_state(optimizer, dict(model.named_parameters()), below("optimizer", tensors))
            progress = Progress(**stage.info["progress"])
            run.step = progress.step
        seek(schedule, progress.step)
        if callback:
            callback.on_start(run)
            if stage:
                callback.load(below("rule", tensors))
                run.masks = masks.replace({n: m.bool() for n, m in below("masks", tensors).items()})

        def save(at: int | None = None, **more: Any) -> Stage | None:
            if not distributed.first():
                return None
            tensors = {f"model/{n}": t for n, t in snapshot(model).items()}
            if progress.step < total:  # nothing goes on from the end of a schedule with its old momentum
                state = optimizer_state(optimizer, dict(model.named_parameters()))
                tensors |= {f"optimizer/{n}": t for n, t in state.items()}
            if callback:
                tensors |= {f"rule/{n}": t for n, t in callback.state().items()}
            if callback or slim:
                moved = masks if slim else run.masks
                tensors |= {f"masks/{n}": m.to(torch.uint8) for n, m in moved.items()}
            info = {"ingredients": ingredients, "checkpoint": at is None, "progress": asdict(progress), **more}
            return self.store.put(key, progress.step if at is None else at, tensors, info)

        def report(progress: Progress) -> None:
            left, first = masks if slim else run.masks, ingredients["first"]
            self._report(f"{left.density():.3g} of {masks.total():,}", progress.step - first, last - first)

        seed = seed_for(self.seed, "order", order) if order else self.seed
        try:
            with nullcontext() if callback else self.task.with_fixed_masks(model, enforced):
                train(self.task, run, seed, progress, last, schedule, save, self._checkpoint_seconds, report, callback)
            save(at=last)
            if progress.step < last:  # a callback stopped it: a ticket may start from that very step
                save()
        except Diverged as error:
            progress.step, progress.loss_sum = last, 0.0
            save(at=last, diverged=str(error))
