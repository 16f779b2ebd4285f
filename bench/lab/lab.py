"""The lab: the only door between a method and a task, and the only way to spend compute."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from bench import registry
from bench.errors import BenchError, Diverged, UsageError, unknown
from bench.seeds import seed_for
from bench.storage.stages import Stage, Store, stage_key
from bench.task import Batch, Task
from bench.training import distributed
from bench.training.loop import Progress, load_optimizer, optimizer_tensors, reseed, seek, share_of_macs, train
from bench.training.speed import speedups
from pruning import Densities, Masks, NotApplicable, Ticket, allocate, attach, budgets
from pruning.callbacks.base import Callback, TrainingContext
from pruning.metadata import ScoreInfo, info_of
from pruning.methods.at_init import cut
from pruning.rewinding import SHUFFLES, UNTRAINED, parse
from pruning.scores import evaluate
from pruning.ticket import SearchCost, State, TrainingCost

SCHEDULES = ("replay", "whole", "constant")


class Data:
    """What a score may see: training and validation batches, the loss, the probe; never the test split.

    weights: the maskable parameters of the state, by name, as they were before any mask.
    """

    def __init__(self, task: Task, seed: int, purpose: str, weights: Mapping[str, Tensor]):
        self._task, self._seed, self._purpose, self.weights = task, seed, purpose, weights

    def batches(self, split: str = "train", epoch: int = 0) -> Iterable[Batch]:
        """Batches of train or val."""
        if split not in ("train", "val"):
            raise unknown("split", split, ("train", "val"))
        return self._task.batches(split, epoch, self._seed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The training loss."""
        return self._task.loss(model, batch)

    def generator(self) -> torch.Generator:
        """Random draws of this score, the same for every method."""
        return torch.Generator().manual_seed(seed_for(self._seed, "score", self._purpose))

    def probe(self, model: nn.Module) -> Tensor:
        """Logits of a data-free forward."""
        self._need("probe", "a data-free probe")
        return self._task.probe(model)

    def examples(self, per_class: int, balanced: bool) -> list[Batch]:
        """A few training examples, the same for every method."""
        self._need("examples", "a few examples of each class")
        return self._task.examples(per_class, self._seed, balanced)

    def summed_loss(self, model: nn.Module, batch: Batch, temperature: float = 1.0) -> Tensor:
        """Their loss, summed, in the model's own precision."""
        return self._task.summed_loss(model, batch, temperature)

    def filters(self, model: nn.Module) -> dict[str, str]:
        """Batch-norm scale -> the weight whose filters make its channels."""
        self._need("filters", "filters behind its channels")
        return self._task.filters(model)

    def _need(self, offer: str, meaning: str) -> None:
        if offer not in self._task.offers:
            raise NotApplicable(f"score {self._purpose} needs {meaning}, which this task does not offer ({offer})")

    def graph(self) -> tuple[Tensor, Tensor]:
        """The undirected edges and the nodes' features."""
        return _graph(self._task, f"score {self._purpose}")


class Lab:
    """One task and one seed. Every training it is asked for is looked up in the store, else run and stored."""

    def __init__(self, task: Task, name: str, version: int, seed: int, store: Store, checkpoint_seconds: float = 60,
                 report: Callable[[str, int, int], None] = lambda what, step, last: None,
                 open_sibling: Callable[[str | None, str | None, int], Lab] | None = None):
        """``open_sibling`` opens the lab of another task, data set or seed; see ``sibling``."""
        self.task, self.seed, self.store, self._open_sibling = task, seed, store, open_sibling
        self._ingredients = {"task": name, "version": version, "config": task.identity(), "data": task.fingerprint,
                             "seed": seed}
        self._checkpoint_seconds, self._report = checkpoint_seconds, report
        self.model = task.build(seed_for(seed, "init"))
        self.maskables = task.maskables(self.model)
        self.budgets = budgets(self.maskables)
        self.steps = task.epochs * task.steps_per_epoch
        self._ledger = SearchCost()
        self._fresh = {"init": _snapshot(self.model)}
        self._derived: dict[State, tuple[State, Callable[[dict[str, Tensor]], Mapping[str, Tensor]]]] = {}

    # what methods call

    def ones(self) -> Masks:
        """Nothing pruned."""
        return Masks.ones(self.maskables)

    def start(self, rewind: str) -> State:
        """Return the start state that ``rewind`` names, see ``pruning.rewinding``; its training is run if it is not stored."""
        point = parse(rewind, self.task.steps_per_epoch, self.steps)
        if point.needs_pretrained and not self.task.pretrained:
            raise NotApplicable(f"rewind={rewind} needs a pre-trained model, which this task does not have; use rewind=init")
        state = State(point.weights, 0)
        return state if point.step is None else self.train(state, self.ones(), until=point.step)

    def train(self, start: State, masks: Masks, schedule: str = "replay", until: int | None = None,
              callback: Callback | None = None, order: int = 0, slim: bool = False) -> State:
        """The state at the end of training ``start`` under ``masks`` (or at step ``until``): stored, or trained now.

        The optimizer is fresh and the schedule stands where ``schedule`` says; see ``SCHEDULES`` and ``imp``.
        ``stretch:N`` is the whole schedule drawn out over N steps. ``callback`` takes part; see ``callback_state``.
        ``order`` other than 0 draws the data's order, augmentation and dropout anew: another sample of SGD's noise.
        ``slim`` trains the network that is left when what ``masks`` cut is really gone, see ``slim``.
        """
        first, total = self.span(start, schedule)
        last = total if until is None else until
        ingredients = {**self._ingredients, "start": start.key, "masks": masks.digest(), "first": first, "total": total,
                       "schedule": "constant" if schedule == "constant" else "task"}
        if callback:
            ingredients["rule"] = callback.options()
        if order:
            ingredients["order"] = order
        if slim:
            ingredients["slim"] = True
        key = stage_key(ingredients)
        stage = self.store.get(key, last)
        if distributed.from_first(stage is None or stage.checkpoint):
            stage = self._train(start, masks, ingredients, key, last, callback)
        if "diverged" in stage.info:
            raise Diverged(stage.info["diverged"])
        progress = stage.info["progress"]
        steps = progress["step"] - first  # short of ``last`` where a callback stopped it earlier
        sparse = progress["sparse_steps"] if callback else steps * share_of_macs(self.task, self.model, masks)
        self._ledger.enter_training(key, TrainingCost(last, steps, sparse))
        return State(key, last)

    def derived_state(self, state: State, how: str, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> State:
        """A state to start from: another one whose maskable weights ``change`` made anew, from name -> weight to the same. It is
        stored nowhere and made again whenever it is loaded; its name is ``how``, which must tell all that ``change`` does."""
        made = State(f"{state.training} {how}", state.step)
        self._derived[made] = state, change
        return made

    def slim(self, state: State, masks: Masks) -> nn.Module:
        """The network of a state with what ``masks`` cut really gone: smaller, a model of the caller's own."""
        self.need("slim", "cut units out of its network")
        model = self.network(state)
        attach(masks, model)
        return self.task.slim(model, dict(masks))

    def need(self, offer: str, meaning: str) -> None:
        """NotApplicable unless the task offers it."""
        if offer not in self.task.offers:
            raise NotApplicable(f"this task cannot {meaning} (it does not offer {offer!r})")

    def sibling(self, task: str | None = None, data: str | None = None, seed: int | None = None) -> Lab:
        """Return the lab of the same store and protocol on another task, on other data or with another seed."""
        return self._open_sibling(task, data, self.seed if seed is None else seed)

    def step_macs(self) -> float:
        """Theoretical multiply-adds of the forward passes of one dense training step."""
        return self.macs(self.ones()) * self.task.batch_size

    def callback_state(self, state: State) -> dict[str, Tensor]:
        """Return what the callback of a training stored: its ``state()``."""
        return _part(self.stage(state).tensors(), "rule/")

    def logged(self, state: State, name: str) -> list[float]:
        """Return numbers that the callback of a training stored under ``name``, for a ticket's notes."""
        return self.callback_state(state)[name].tolist()

    def masks(self, state: State) -> Masks:
        """Return the masks in force at the end of a training, which its callback may have moved."""
        moved = _part(self.stage(state).tensors(), "masks/")
        return self.ones().replace({name: mask.bool() for name, mask in moved.items()})

    def learned_scores(self, state: State) -> dict[str, Tensor]:
        """Return the scores that the callback of a training learned."""
        return _part(self.callback_state(state), "scores/")

    def score(self, name: str, state: State, masks: Masks, **options: Any) -> dict[str, Tensor]:
        """Scores of a state under masks, one tensor a maskable. The score works on a model of its own, so gradients, modes
        and hooks it leaves behind reach no training; dropout in it draws the same whatever was stored before. ``options``
        are the score's."""
        model, data = self._bench(name, state, options)
        attach(masks, model)
        with self._scoring():
            return evaluate(registry.score(name), model, self.maskables, data, **options)

    def cut(self, score: str, state: State, goals: list[Densities], scheme: str = "global", regrow: bool = False,
            floors: bool = True, **options: Any) -> tuple[Masks, dict[str, Tensor]]:
        """Masks after scoring and cutting a state to each of ``goals`` in turn, and the scores of the whole network; see
        ``pruning.methods.at_init``. ``options`` are the score's."""
        model, data = self._bench(score, state, options)
        with self._scoring():
            return cut(registry.score(score), model, self.maskables, data, goals, scheme, regrow, floors,
                       seed_for(self.seed, "ties"), **options)

    @contextmanager
    def _scoring(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._ledger.enter_scoring(time.perf_counter() - began)

    def allocate(self, scores: Mapping[str, Tensor], masks: Masks, densities: Densities, scheme: str = "global",
                 floors: bool = True) -> Masks:
        """Masks of the asked densities; ties are broken by the run's seed, alike for every method."""
        return allocate(scores, masks, densities, self.maskables, scheme, seed_for(self.seed, "ties"), floors)

    def interpolate(self, one: State, other: State, fraction: float, refresh: bool = False) -> nn.Module:
        """A model of the caller's own on the straight line from one state to the other: all floating-point parameters and buffers
        interpolated, or with ``refresh`` batch-norm statistics taken anew from an epoch of training data."""
        ends = [copy.deepcopy(self.load(state).state_dict()) for state in (one, other)]
        model = self.network(one)
        model.load_state_dict({name: a.lerp(ends[1][name], fraction) if a.is_floating_point() else a
                               for name, a in ends[0].items()})
        if refresh:
            norms = [m for m in model.modules() if hasattr(m, "reset_running_stats")]
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the plain mean of all batches
            model.train()
            with torch.no_grad():
                for batch in self.task.batches("train", 0, self.seed):
                    self.task.loss(model, batch)
        return model

    def network(self, state: State) -> nn.Module:
        """A model of the caller's own, with a state's weights."""
        return copy.deepcopy(self.load(state))

    def loss(self, model: nn.Module, split: str) -> float:
        """Mean training loss over the batches of a split, with nothing dropped out. For analyses."""
        model.eval()
        with torch.no_grad():
            losses = [self.task.loss(model, batch).double() for batch in self.task.batches(split, 0, self.seed)]
        loss = float(torch.stack(losses).mean())
        if not math.isfinite(loss):
            raise Diverged(f"the loss of {split} is {loss}")
        return loss

    def signed_metric(self, model: nn.Module, split: str) -> float:
        """The task's metric of a model, higher being better. For analyses: methods have no test data."""
        value = self.task.evaluate(model, split)[self.task.metric.name]
        return value if self.task.metric.higher_is_better else -value

    @property
    def epochs(self) -> int:
        """Of one dense training."""
        return self.task.epochs

    def allocate_each(self, scores: Mapping[str, Tensor], masks: Masks, members: Mapping[str, str],
                      densities: Mapping[str, float]) -> Masks:
        """As ``allocate``, for pools of tensors each with a density of its own. ``members``: name of a tensor -> its pool."""
        pools = [replace(m, budget=members[m.name]) for m in self.maskables if m.name in members]
        return allocate(scores, masks, densities, pools, seed=seed_for(self.seed, "ties"))

    def tickets(self, method: str, densities: list[Densities], **options: Any) -> Iterator[Ticket]:
        """Those of another method, by its name; it is not asked for more, or imp would train the last one."""
        return islice(registry.method(method)(self, densities, **options), len(densities))

    def generator(self, purpose: str) -> torch.Generator:
        """Random draws of a control."""
        return torch.Generator().manual_seed(seed_for(self.seed, "control", purpose))

    def graph(self) -> tuple[Tensor, Tensor]:
        """The undirected edges (2, M), in the order of the budget ``edges``, and the nodes' features (N, F)."""
        return _graph(self.task, "this method")

    @contextmanager
    def search(self, start: SearchCost | None = None) -> Iterator[SearchCost]:
        """Open a ledger for one ticket, which starts from ``start``, or from what has been spent in common so far."""
        common, self._ledger = self._ledger, self._ledger.copy() if start is None else start.copy()
        try:
            yield self._ledger
        finally:
            self._ledger = common

    def spent(self) -> SearchCost:
        """Return a copy of the current ledger."""
        return self._ledger.copy()

    def charge(self, search: SearchCost, relative_step_cost: float) -> None:
        """Enter what was spent in another lab, whose dense step costs ``relative_step_cost`` of this one's in MACs."""
        self._ledger.add(search, relative_step_cost)

    def score_info(self, name: str) -> ScoreInfo:
        """Return what a score declares of itself."""
        return info_of(registry.score(name), ScoreInfo)

    def span(self, start: State, schedule: str) -> tuple[int, int]:
        """First step and total length of the schedule of a training from ``start``."""
        if schedule.startswith("stretch:"):
            return 0, int(schedule.removeprefix("stretch:"))
        if schedule not in SCHEDULES:
            raise unknown("schedule", schedule, SCHEDULES)
        first = start.step if schedule == "replay" else 0
        if first >= self.steps:
            raise UsageError("schedule=replay from the end of training leaves no steps: choose schedule=whole or constant")
        return first, self.steps

    def training_steps(self, ticket: Ticket) -> int:
        """Steps it still takes to train a ticket."""
        if ticket.trained:
            return 0
        first, total = self.span(ticket.start, ticket.schedule)
        return total - first

    # what the runner calls

    def stage(self, state: State) -> Stage:
        """The stored step behind a state."""
        stage = self.store.get(state.training, state.step)
        if stage is None:
            raise BenchError(f"stage {state.key} is not in the store {self.store.root}: run the command again")
        return stage

    def load(self, state: State) -> nn.Module:
        """The model with a state's parameters and buffers, bit for bit; a smaller one where the state is of a slim training."""
        if state.training in UNTRAINED:
            self.model.load_state_dict(self._initial(state.training))
            return self.model
        if state in self._derived:
            of, change = self._derived[state]
            return self._with(self.load(of), state.training, change)
        stage = self.stage(state)
        model = self.model
        if stage.info["ingredients"].get("slim"):
            model = self.slim(State("init", 0), self.masks(state))
        model.load_state_dict(_part(stage.tensors(), "model/"))
        return model

    def evaluate(self, state: State, split: str) -> dict[str, float]:
        """Metrics of a stored state; computed once. For the recorder: methods have no test data."""
        stage = self.stage(state)
        metrics = distributed.from_first(stage.evaluations().get(split))
        if metrics is None:
            metrics = self.task.evaluate(self.load(state), split)
            for name, value in metrics.items():
                if not math.isfinite(value):
                    raise Diverged(f"metric {name} of {split} is {value}")
            if distributed.first():
                stage.add_evaluation(split, metrics)
        return metrics

    def is_disconnected(self, state: State, masks: Masks) -> bool:
        """Whether no path leads from input to output, so that training could only learn how frequent the answers are: the masked
        network of absolute weights, in which no unit is dead, answers two training batches alike; or, where all data are one
        batch, that batch and the task's probe. Looks at models whose output is one tensor; False for any other."""
        if masks.kept() == masks.total():
            return False
        model, outputs = self.network(state), []
        attach(masks, model)
        batches = list(islice(self.task.batches("train", 0, self.seed), 2))
        model.train(len(batches) > 1).register_forward_hook(lambda module, inputs, output: outputs.append(output))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.abs_()
            for batch in batches:
                reseed(seed_for(self.seed, "collapsed"), self.task.device)  # the same dropout
                self.task.loss(model, batch)
            if len(batches) == 1 and "probe" in self.task.offers:
                self.task.probe(model)
        if len(outputs) != 2 or not all(map(torch.is_tensor, outputs)) or outputs[0].shape != outputs[1].shape:
            return False
        # batch norm magnifies the rounding of a constant
        return bool((outputs[0] - outputs[1]).abs().max() <= 1e-4 * outputs[0].abs().max())

    def speedups(self, state: State, masks: Masks) -> tuple[float, float]:
        """Measured: how many times faster the slim network is at inference and at training than the whole one."""
        slim = self.slim(state, masks)
        return speedups(self.task, self.network(state), slim, self.seed)

    def macs(self, masks: Masks) -> float:
        """Theoretical multiply-adds of one inference under ``masks``."""
        return self.task.macs(self.model, masks.densities())

    # the rest is private

    def _bench(self, score: str, state: State, options: Mapping[str, Any]) -> tuple[nn.Module, Data]:
        """A model of the score's own, and its view of the task."""
        takes = list(inspect.signature(registry.score(score)).parameters)[3:]
        for option in options:
            if option not in takes:
                raise unknown(f"option of score {score}", option, takes)
        model = self.network(state)
        weights = dict(self.model.named_parameters())
        reseed(seed_for(self.seed, "score", score), self.task.device)
        return model, Data(self.task, self.seed, score, {m.name: weights[m.name].detach() for m in self.maskables})

    def _initial(self, kind: str) -> dict[str, Tensor]:
        if kind not in self._fresh:
            model = self._shuffled(kind) if kind in SHUFFLES else self.task.reinit(seed_for(self.seed, kind))
            self._fresh[kind] = _snapshot(model)
        return self._fresh[kind]

    def _shuffled(self, kind: str) -> nn.Module:
        """The initial network, its maskable weights shuffled."""
        self.model.load_state_dict(self._fresh["init"])
        return self._with(self.model, kind, lambda weights: SHUFFLES[kind](weights, self.maskables, self.generator(kind)))

    def _with(self, model: nn.Module, what: str, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> nn.Module:
        """A model, its maskable weights changed. NotApplicable where that leaves them as they were."""
        parameters = dict(model.named_parameters())
        weights = {m.name: parameters[m.name].detach().clone() for m in self.maskables}
        made = change(weights)
        if all(torch.equal(made[name], weights[name]) for name in made):
            raise NotApplicable(f"{what}: this leaves the weights that may be masked as they are, all of a tensor being equal")
        for name, weight in made.items():
            parameters[name].data.copy_(weight)
        return model

    def _train(self, start: State, masks: Masks, ingredients: dict[str, Any], key: str, last: int,
               callback: Callback | None) -> Stage:
        distributed.agree("their masks", masks.digest())
        with self.store.lock(key) if distributed.first() else nullcontext():
            distributed.wait()
            stage = self.store.latest(key, last)  # another process may have been here, or an earlier run of ours
            distributed.wait()
            if stage and "diverged" in stage.info:  # on the way: it would again
                return stage
            if stage and stage.step == last:
                if stage.checkpoint and distributed.first():
                    self.store.put(key, last, stage.tensors(), {**stage.info, "checkpoint": False})
                distributed.wait()
                return self.store.get(key, last)
            total, order = ingredients["total"], ingredients.get("order", 0)
            slim = ingredients.get("slim", False)
            model, maskables, enforced = self.load(start), self.maskables, masks
            if slim:
                model, maskables = self.slim(start, masks), []
                enforced = masks.restrict_to(model)
            make = self.task.constant_optimizer if ingredients["schedule"] == "constant" else self.task.optimizer
            optimizer, schedule = make(model, total)
            progress = Progress(ingredients["first"])
            run = TrainingContext(model, optimizer, maskables, progress.step, total, self.task.steps_per_epoch, enforced,
                      set_masks=lambda masks: None, generator=lambda purpose: self.generator(f"rule {purpose}"),
                      validate=lambda: self.signed_metric(model, "val"))
            if stage:
                tensors = stage.tensors()
                model.load_state_dict(_part(tensors, "model/"))
                load_optimizer(model, optimizer, tensors)
                progress = Progress(**stage.info["progress"])
                run.step = progress.step
            seek(schedule, progress.step)
            if callback:
                callback.on_start(run)
                if stage:
                    callback.load(_part(tensors, "rule/"))
                    run.masks = masks.replace({n: m.bool() for n, m in _part(tensors, "masks/").items()})

            def save(at: int | None = None, **more: Any) -> Stage | None:
                if not distributed.first():
                    return None
                tensors = {f"model/{n}": t for n, t in _snapshot(model).items()}
                if progress.step < total:  # nothing goes on from the end of a schedule with its old momentum
                    tensors |= optimizer_tensors(model, optimizer)
                if callback:
                    tensors |= {f"rule/{n}": t for n, t in callback.state().items()}
                if callback or slim:
                    moved = masks if slim else run.masks
                    tensors |= {f"masks/{n}": m.to(torch.uint8) for n, m in moved.items()}
                info = {"ingredients": ingredients, "checkpoint": at is None, "progress": asdict(progress), **more}
                return self.store.put(key, progress.step if at is None else at, tensors, info)

            def report(progress: Progress) -> None:
                first = ingredients["first"]
                left = masks if slim else run.masks
                self._report(f"{left.density():.3g} of {masks.total():,}", progress.step - first, last - first)

            seed = seed_for(self.seed, "order", order) if order else self.seed
            try:
                with nullcontext() if callback else self.task.final(model, enforced):
                    train(self.task, run, seed, progress, last, schedule, save, self._checkpoint_seconds, report, callback)
                save(at=last)
                if progress.step < last:  # a callback stopped it: a ticket may start from that very step
                    save()
            except Diverged as error:
                progress.step, progress.loss_sum = last, 0.0
                save(at=last, diverged=str(error))
            distributed.wait()
            return self.store.get(key, last)


class PlanLab(Lab):
    """A lab that trains nothing: for ``--dry-run``. Where a state is not stored yet, its scores are drawn at random, so the
    densities and the number of trainings come out right."""

    def __init__(self, *args: Any, planned: dict[tuple[str, int], int], **options: Any):
        """``planned``: training and step -> steps to get there, of this and every earlier lab."""
        super().__init__(*args, **options)
        self.planned = planned
        self.met: set[str] = set()

    def train(self, *what: Any, **how: Any) -> State:
        """As ``Lab.train``, but only counted."""
        state = super().train(*what, **how)
        self.met.add(state.training)
        return state

    def _train(self, start: State, masks: Masks, ingredients: dict[str, Any], key: str, last: int,
               callback: Callback | None) -> Stage:
        if (key, last) not in self.planned:
            stored = self.store.latest(key, last)
            behind = [step for training, step in self.planned if training == key and step < last]
            behind.append(stored.step if stored else ingredients["first"])
            self.planned[key, last] = last - max(behind)
        return Stage(self.store.root, key, last, {"checkpoint": False, "progress": {"step": last, "sparse_steps": 0.0}})

    def stage(self, state: State) -> Stage:
        """A stored step; what is only planned cannot be looked into."""
        if self._is_planned(state):
            raise NotPlanned
        return super().stage(state)

    def score(self, name: str, state: State, masks: Masks, **options: Any) -> dict[str, Tensor]:
        """Scores of a stored state; else random ones."""
        return self._drawn(name, state) if self._is_planned(state) else super().score(name, state, masks, **options)

    def logged(self, state: State, name: str) -> list[float]:
        """None where nothing was trained yet."""
        return [] if self._is_planned(state) else super().logged(state, name)

    def learned_scores(self, state: State) -> dict[str, Tensor]:
        """Scores of a stored training; else random ones."""
        return self._drawn("learned", state) if self._is_planned(state) else super().learned_scores(state)

    def masks(self, state: State) -> Masks:
        """Masks of a stored training; else random ones, so that what is trained under them counts."""
        if not self._is_planned(state):
            return super().masks(state)
        return self.ones().replace({name: score > 0.5 for name, score in self._drawn("masks", state).items()})

    def interpolate(self, one: State, other: State, fraction: float, refresh: bool = False) -> nn.Module:
        """Any model: what lies between decides nothing."""
        return self.model

    def network(self, state: State) -> nn.Module:
        """That of a stored state; else any model, as what it is decides nothing."""
        return self.model if self._is_planned(state) else super().network(state)

    def loss(self, model: nn.Module, split: str) -> float:
        """Nothing is measured."""
        return 0.0

    def signed_metric(self, model: nn.Module, split: str) -> float:
        """Nothing is measured."""
        return 0.0

    def _is_planned(self, state: State) -> bool:
        return (state.training, state.step) in self.planned

    def _drawn(self, what: str, state: State) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed_for(self.seed, "plan", what, state.key))
        return {m.name: torch.rand(m.shape, generator=generator) for m in self.maskables}

    def cut(self, score: str, state: State, goals: list[Densities], scheme: str = "global", regrow: bool = False,
            floors: bool = True, **options: Any) -> tuple[Masks, dict[str, Tensor]]:
        """One cut, by scores drawn for this very question: the last density is what counts."""
        if score == "random":
            return super().cut(score, state, goals[-1:], scheme, regrow, floors)
        drawn = self._drawn(f"{score} {len(goals)} {regrow} {sorted(options.items())}", state)
        return cut(lambda *_: drawn, copy.deepcopy(self.network(state)), self.maskables, None, goals[-1:], scheme, floors=floors,
                   seed=seed_for(self.seed, "ties"))

    def seconds_per_step(self, tries: int = 5, patience: float = 10) -> float:
        """Fastest of a few real training steps, after one to warm up; of fewer once they have taken ``patience`` seconds."""
        optimizer, _ = self.task.optimizer(self.model, self.steps)
        self.model.train()
        epochs = (self.task.batches("train", epoch, self.seed) for epoch in range(tries + 1))  # some have but one step
        seconds = []
        for batch in itertools.islice(itertools.chain.from_iterable(epochs), tries + 1):
            began = time.perf_counter()
            self.task.loss(self.model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - began)
            if len(seconds) > 1 and sum(seconds) > patience:
                break
        return min(seconds[1:])


class NotPlanned(Exception):
    """A dry run came to a training whose outcome decides how the method goes on."""


def _graph(task: Task, who: str) -> tuple[Tensor, Tensor]:
    if "edges" not in task.offers:
        raise NotApplicable(f"{who} needs a graph's edges, which this task does not have")
    return task.edges()


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}
