"""The network of a record: from its stage in the store, as it was trained and as it is exported."""

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.config import LOCAL, Setting, is_local
from bench.errors import BenchError, UsageError, unknown
from bench.lab.lab import Lab
from bench.runner.jobs import Job, identity_fields, open_lab, open_task
from bench.runner.record_command import Trust, settings_of
from bench.storage.files import canonical
from bench.storage.records import Record, read_record
from bench.storage.stages import Store
from bench.task import Task
from bench.task.capabilities import CanExport, CanShrink
from pruning import Masks, PruningError, attach
from pruning.ticket import State


@dataclass(frozen=True)
class TrainedTicket:
    """A record of a ticket, its masks, and the lab and the state that hold its network."""

    path: Path
    record: Record
    setting: Setting
    lab: Lab
    masks: Masks
    state: State

    @property
    def task(self) -> Task:
        """The record's task with its data."""
        return self.lab.task

    @cached_property
    def exporting(self) -> CanExport:
        """The task as one whose networks can be exported. BenchError where they cannot."""
        task = self.task.capability(CanExport)
        if task is None:
            raise BenchError(
                f"task {self.setting.name} does not say how its networks are exported: give it the methods of CanExport "
                "(bench/task/capabilities.py)"
            )
        return task

    @cached_property
    def network(self) -> nn.Module:
        """The network as it was trained: with zeros where it is pruned, or small where it was trained so."""
        return self.lab.network(self.state).eval()

    @property
    def trained_slim(self) -> bool:
        """Whether ``network`` was already small when it was trained."""
        return bool(self.lab.stage(self.state).info["ingredients"].get("slim"))

    @cached_property
    def small(self) -> nn.Module:
        """The network for inference: without units or edges that the masks cut, with gates folded into the weights. It computes
        what ``network`` does, to rounding."""
        network, shrinking = copy.deepcopy(self.network), self.task.capability(CanShrink)
        if shrinking and not self.trained_slim:
            attach(self.masks, network)
            smaller = shrinking.slim(network, dict(self.masks))
            network = smaller if shapes(smaller) != shapes(network) else network
        return self.exporting.folded(network).eval()

    @cached_property
    def whole(self) -> nn.Module:
        """The network before anything was pruned, with its initial weights."""
        return self.exporting.folded(self.lab.network(self.lab.start("init"))).eval()

    @property
    def slim(self) -> bool:
        """Whether ``small`` is smaller than the task's whole network."""
        return shapes(self.small) != shapes(self.whole)


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name; a tensor that several names share is there once, under the first. Batch norms'
    counts of training steps are left out: inference does not read them, and in a small network their names take more room than
    many a layer."""
    found: dict[int, str] = {}
    state = network.state_dict(keep_vars=True)
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            found.setdefault(id(tensor), name)
    return {name: state[name].detach() for name in found.values()}


def shapes(network: nn.Module) -> dict[str, list[int]]:
    """Return the name of a parameter or buffer -> its sizes."""
    return {name: list(tensor.shape) for name, tensor in tensors_of(network).items()}


def trained_ticket(path: Path, local: list[str], trusted: Trust) -> TrainedTicket:
    """Return the ticket of the record at ``path``. ``local``: where things are on this machine, such as ``store=DIR``. BenchError
    where the record has no ticket, its weights or masks are not here, or its task or data have changed."""
    record = read_record(path)
    if record.status != "ok" or record.ticket is None:
        raise BenchError(f"record {record.id} holds no ticket: {record.status}, {record.reason}")
    for word in local:
        if not is_local(key := word.partition("=")[0]):
            raise unknown("option of this machine", key, LOCAL)
    settings, analysis = settings_of(record, path, trusted, *local)
    if len(settings) != 1 or analysis:
        raise BenchError(f"the command of {path} makes more than this record's setting: it was edited")
    (setting,) = settings
    state, store = State.of(record.ticket.stages[-1]), Store(setting.config["store"])
    if store.get(state.training, state.step) is None:
        raise BenchError(
            f"the trained weights are not in the store {store.root}: give its store with store=DIR, or run "
            f"`{record.command}` again"
        )
    file = path.with_suffix(".masks.safetensors")
    if not file.exists():
        raise BenchError(f"the masks of {path} are not beside it: name the record below runs/, or run `{record.command}` again")
    masks = Masks.load(file, record.ticket.masks)
    job = Job(setting, record.identity.seed)
    task = open_task(setting)
    lab: Lab = open_lab(job, task)
    for name, value in identity_fields(job, task).items():
        if canonical(value) != canonical(getattr(record.identity, name)):
            raise BenchError(f"record {record.id} is of another {name} than its command gives now: task or data have changed")
    try:
        lab.ones().check_like(masks)
    except PruningError as error:
        raise BenchError(f"record {record.id} and its task do not fit together ({error})") from None
    return TrainedTicket(path, record, setting, lab, masks, state)


def limit_threads(ticket: TrainedTicket) -> None:
    """Use as many threads as the command line asks for, or as the record was made with."""
    threads = ticket.setting.config["threads"]
    if threads == "auto":
        threads = ticket.record.environment.get("threads", torch.get_num_threads())
    if not isinstance(threads, int) or threads < 1:
        raise UsageError(f"threads={threads} must be a whole number above 0")
    torch.set_num_threads(threads)
