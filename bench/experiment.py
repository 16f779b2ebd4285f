"""Your own network as an experiment: every method and control on plain PyTorch objects, without a task folder."""

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import MISSING, OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer

from bench import registry
from bench.config import Setting, check, method_node
from bench.errors import BenchError, Held, UsageError
from bench.lab.lab import Lab
from bench.runner.environment import device as place
from bench.runner.jobs import Job, open_lab
from bench.runner.recorder import Recorder
from bench.runner.status import GridStatus
from bench.storage.files import safe_name, store_folder, text_sum, write_atomic
from bench.storage.records import Record, read_records
from bench.task.own_network import Data, OwnTask, built, optimizer_for
from bench.task.prunable import UNITS, chosen
from pruning import Maskable, Masks, budgets
from pruning.ticket import State


@dataclass(frozen=True)
class OwnSetting(Setting):
    """The setting of an experiment, which no command line can compose."""

    def command(self, seed: int, analysis: Any = None) -> str:
        """Say how the record was made."""
        method = {key: value for key, value in self.config["method"].items() if key != "name"}
        arguments = {**method, "densities": self.config["densities"], "pattern": self.config["pattern"], "seeds": [seed]}
        options = ", ".join(f"{key}={value!r}" for key, value in arguments.items() if value is not None)
        return f"bench.Experiment(name={self.name!r}, ...).run({self.config['method']['name']!r}, {options})"

    def sibling(self, task: str | None, data: str | None) -> Setting:
        """Refuse: an experiment has its own data alone."""
        raise BenchError("an experiment knows no other task or data set: give methods that need one a file of masks")


class Experiment:
    """A network, data and a recipe of the user's, on which every method and control runs.

    build       a function without arguments that makes the network, its weights drawn from PyTorch's global generator
    train       training data: tensors (inputs, targets), a data loader, or a list of batches. A batch is (inputs, targets), or a
                dict with ``labels``; inputs are a tensor, a tuple of them, or a dict by the names of the network's arguments
    val, test   data of the same kind; what is reported is measured on ``test``, and methods see ``val`` alone
    loss        (outputs, targets) -> mean loss over the batch, a scalar tensor
    metric      (outputs, targets) -> a number, over all examples of a split at once; its ``__name__`` heads the tables
    optimizer   parameters -> a torch optimizer, such as ``functools.partial(torch.optim.SGD, lr=0.1)``
    schedule    the factor of the learning rate when a share in [0, 1) of the training is over; None: 1
    epochs      passes over the training data in one training
    batch_size  examples in a batch of tensors; loaders have their own
    prunable    what may be pruned: ``weights`` of linear, convolutional and recurrent layers and attentions, without embeddings;
                ``channels`` of convolutions with a BatchNorm2d, and hidden ``neurons`` between two linear layers, which can be
                removed; names of parameters; or a function from the network to maskables
    name        the experiment's name in records and tables
    clip_norm   the global norm that gradients are clipped to; None: no clipping
    higher_is_better  whether a higher metric is better

    Trainings are kept in the folder ``store`` and shared by all methods; records are written to ``runs``. A training has its name
    by everything that can change it: every example, the initial weights, the optimizer's settings, epochs, and the source of
    the functions, as far as Python shows it. What a function reads besides its arguments is not seen: give another ``name``
    when that changes. Raises BenchError in one line for objects that do not fit together.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        train: Data,
        val: Data,
        test: Data,
        loss: Callable[[Any, Any], Tensor],
        metric: Callable[[Any, Any], Any],
        optimizer: Callable[[Any], Optimizer],
        schedule: Callable[[float], float] | None = None,
        epochs: int = 10,
        batch_size: int = 64,
        prunable: str | Sequence[str] | Callable[[nn.Module], list[Maskable]] = "weights",
        name: str = "experiment",
        clip_norm: float | None = None,
        higher_is_better: bool = True,
        store: str | Path = ".bench",
        runs: str | Path = "runs",
        device: str = "auto",
    ):
        if name in registry.names("tasks") or not name or safe_name(name) != name:
            raise UsageError(f"name={name!r} is that of a task here, or no plain word: give the experiment another name")
        if epochs < 1 or batch_size < 1:
            raise UsageError(f"epochs is {epochs} and batch_size {batch_size}: both are at least 1")
        network = built(build)
        trained_by = optimizer_for(network, optimizer)
        every = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(Path(__file__).parent / "conf" / "base.yaml")))
        self._config: dict[str, Any] = {
            **{key: value for key, value in every.items() if key != "defaults"},
            "executor": {"name": "serial"},
            "task": {"name": name, "version": 1, "adapter": "bench.Experiment"},
            "data": {"name": "own"},
            "model": {
                "name": type(network).__name__,
                "build": _described(build),
                "parameters": text_sum(str([(n, tuple(p.shape)) for n, p in network.named_parameters()]))[:16],
                "units": isinstance(prunable, str) and prunable in UNITS,
                "prunable": _described(prunable)
                if callable(prunable)
                else prunable
                if isinstance(prunable, str)
                else [*prunable],
            },
            "train": {
                "epochs": epochs,
                "batch_size": batch_size,
                "clip_norm": clip_norm,
                "optimizer": type(trained_by).__name__,
                "settings": [_settings(group) for group in trained_by.param_groups],
                "schedule": None if schedule is None else [round(float(schedule(share / 100)), 9) for share in range(100)],
                "loss": _described(loss),
                "metric": _described(metric),
                "higher_is_better": higher_is_better,
            },
            "store": str(store),
            "runs": str(runs),
        }
        data = {"train": train, "val": val, "test": test}
        self.task = OwnTask(self._config, place(device), build, data, loss, metric, optimizer, schedule, chosen(prunable))
        self.task.maskables(self.task.build(0))

    def run(
        self,
        method: str = "imp",
        densities: float | Iterable[float] | Mapping[str, Any] = (0.5,),
        controls: Sequence[str] = (),
        seeds: Sequence[int] = (0,),
        pattern: str | None = None,
        **options: Any,
    ) -> list[Record]:
        """Train what is not stored yet and return the records: of the dense network, every ticket and every control.

        method     the name of a method (``bench list methods``), or ``file.py:function``
        densities  densities of the weights, or budget -> densities
        controls   names of controls (``bench list controls``)
        seeds      one record each
        pattern    of all masks, such as 2:4; None: any entry may be kept
        options    options of the method

        ``bench status`` shows how far it is. Held where another process trains a network that it needs.
        """
        setting, records = self._setting(method, densities, controls, seeds, pattern, options), []
        jobs = [Job(setting, seed) for seed in seeds]
        command = f"bench.Experiment(name={setting.name!r}, ...).run({method!r}, ...)"
        with (
            GridStatus.begin(store_folder(self._config["store"]), jobs, command) as status,
            status.worker("1", here=True) as worker,
        ):
            for job in jobs:
                status.running, status.waiting = 1, len(jobs) - status.done - 1
                status.write()
                worker.begin(str(job))
                recorder = Recorder(job, self.task, open_lab(job, self.task, report=worker), worker)
                records += recorder.records()
                for key in recorder.held:
                    raise Held(key)
                status.done, status.networks_left = status.done + 1, status.networks_left - job.networks
        return records

    def table(self) -> str:
        """Return all records of the experiment as plain-text tables."""
        from bench.leaderboard.terminal import summary

        return summary(self.records())

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw the plots of the leaderboards from the experiment's records, as SVG files below ``folder``."""
        from bench.leaderboard.boards import boards
        from bench.leaderboard.plots import plots
        from bench.leaderboard.svg import file

        drawn = {Path(folder) / path: plot for board in boards(self.records()) for path, plot in plots(board).items()}
        for path, plot in drawn.items():
            write_atomic(path, file(plot))
        return list(drawn)

    def records(self) -> list[Record]:
        """Return all records of the experiment that lie in its folder of runs."""
        root = Path(self._config["runs"]) / self._config["task"]["name"]
        return list(read_records(root))

    def masks(self, record: Record) -> Masks:
        """Return the masks of a record's ticket."""
        if record.ticket is None:
            raise BenchError(f"record {record.id} holds no ticket: {record.status}, {record.reason}")
        return Masks.load(record.path(Path(self._config["runs"])).with_suffix(".masks.safetensors"), record.ticket.masks)

    def model(self, record: Record, slim: bool = False) -> nn.Module:
        """Return the trained network of a record, zeros where it was pruned; with ``slim`` without the units that were, which
        takes ``prunable="channels"`` or ``"neurons"``."""
        if slim and not self._config["model"]["units"]:
            raise BenchError(
                "slim=True removes units, and here weights were pruned: make the experiment with prunable='channels' or 'neurons'"
            )
        masks = self.masks(record)
        assert record.ticket is not None
        lab, state = self.lab(record.identity.seed), State.of(record.ticket.stages[-1])
        return lab.slim(state, masks) if slim and record.identity.control != "slim" else lab.network(state)

    def lab(self, seed: int = 0) -> Lab:
        """Return the lab of a seed, the door that methods and analyses have to the task; see ``pruning.lab.Lab``.
        ``bench status`` shows it while it trains."""
        job = Job(self._setting(), seed)
        status = GridStatus.begin(
            store_folder(self._config["store"]), [job], f"bench.Experiment(name={job.setting.name!r}, ...).lab()"
        )
        status.running, status.waiting, worker = 1, 0, status.worker("1", here=True)
        worker.job = str(job)

        def report(training: str, step: int, last: int) -> None:
            status.write()
            worker(training, step, last)

        return open_lab(job, self.task, report=report)

    def _setting(
        self,
        method: str = "dense",
        densities: Any = (0.5,),
        controls: Sequence[str] = (),
        seeds: Sequence[int] = (0,),
        pattern: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> OwnSetting:
        defaults = method_node(method, {})
        chosen = {option: default for option, default in defaults.items() if default != MISSING}
        chosen |= {option: registry.plain(value, f"{option} is") for option, value in (options or {}).items()}
        for option in defaults:
            if option not in chosen:
                raise UsageError(f"option {option} of method {method} has no default: give {option}=...")
        if not isinstance(densities, Mapping):
            densities = [densities] if isinstance(densities, (int, float)) else list(densities)
            budget, *others = budgets(self.task.maskables(self.task.build(0)))
            densities = densities if others else {budget: densities}
        requested = {"densities": densities, "controls": list(controls), "seeds": list(seeds), "pattern": pattern}
        config, folder = {**self._config, **requested, "method": chosen}, Path(self._config["task"]["name"])
        check(config, folder, {**self._config, "method": defaults})
        return OwnSetting(folder, f"{config['train']['epochs']}ep", config, ())


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a group of an optimizer's parameters, as JSON holds them."""
    plain = {key: float(v) if torch.is_tensor(v) else list(v) if isinstance(v, tuple) else v for key, v in group.items()}
    return {key: v for key, v in plain.items() if key != "params" and isinstance(v, (bool, int, float, str, list))}


def _described(function: Any) -> str:
    """Return the name of a function and, unless it is of a library, a hash of its source where Python has it."""
    if isinstance(function, partial):
        arguments = [*map(repr, function.args), *(f"{key}={value!r}" for key, value in sorted(function.keywords.items()))]
        return f"{_described(function.func)}({', '.join(arguments)})"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        file = inspect.getsourcefile(function) or ""
        if "site-packages" in file or not file:
            return name
        return f"{name} {text_sum(textwrap.dedent(inspect.getsource(function)))[:16]}"
    except (OSError, TypeError):
        return name
