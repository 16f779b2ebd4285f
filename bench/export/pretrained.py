"""Networks from the folders of tickets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from bench import registry
from bench.errors import BenchError, first_line
from bench.export.layout import CONFIG, MASKS, MODEL, READ, RECORD, SECTION, read_config
from bench.export.ticket import tensors_of
from bench.storage.records import Record, read_record
from bench.task import Task
from bench.task.capabilities import CanExport, CanShrink
from pruning import Masks
from pruning.checksummed import Damaged, read_tensors


def from_pretrained(name: str | Path, task: str | Path | None = None) -> nn.Module:
    """Return the network of a ticket, on the CPU and in evaluation mode; slim where the ticket is structured.

    ``name`` is a folder that ``bench export`` wrote, or its repository on the hub (user/name). The network's classes come from
    the installed task that the record names, and from nowhere else: no pickle is read and nothing in the folder is executed.
    ``task`` is the folder of a task that is not installed, whose code you trust. BenchError where a file was changed, is missing
    or belongs to another network.
    """
    folder = _folder(name)
    config = read_config(folder)
    record = read_record(folder / RECORD)
    if config[SECTION].get("record") != record.id or record.ticket is None:
        raise BenchError(f"{folder / RECORD} is of another ticket than {CONFIG}: fetch the folder again")
    adapter = _adapter(record, task)
    made_task = adapter(_configuration(record, adapter), torch.device("cpu"))
    exporting, shrinking = made_task.capability(CanExport), made_task.capability(CanShrink)
    if exporting is None:
        raise BenchError(f"task {record.identity.task} cannot build a network from a folder: update it to one with CanExport")
    try:
        masks = Masks.load(folder / MASKS, record.ticket.masks)
        tensors, _ = read_tensors(folder / MODEL)
        network = exporting.bare(config)
        if config[SECTION].get("slim") and shrinking:
            masks.check_like({name: parameter for name, parameter in network.named_parameters() if name in masks})
            network = shrinking.slim(network, dict(masks))
        network = exporting.folded(network)
    except (Damaged, OSError, KeyError, TypeError, AttributeError, ValueError, IndexError, RuntimeError) as error:
        task, why = record.identity.task, first_line(error)
        raise BenchError(f"{folder} does not describe a network of task {task} ({why}): fetch it again") from None
    _load(network, tensors, folder)
    return network.eval()


def _folder(name: str | Path) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if isinstance(name, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise BenchError(f"no folder {name}: name one that `bench export` wrote, or a repository of the hub, user/name")
    from tasks import hub

    fetched: Path = hub.snapshot(name, "model", READ, [CONFIG, MODEL, MASKS, RECORD], "name a folder that `bench export` wrote")
    return fetched


def _adapter(record: Record, task: str | Path | None) -> type[Task]:
    """Return the class of the record's task: of an installed task, or of the folder ``task``."""
    name = record.identity.task
    place = registry.installed_task(name) if task is None else registry.task_folder(str(task))
    if place is None:
        raise BenchError(
            f"this ticket is of task {name!r:.60}, which is not installed: install the package that has it, or give "
            "from_pretrained(..., task=FOLDER), a task folder whose code you trust"
        )
    declared = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))["task"]
    if (declared["name"], declared["version"]) != (name, record.identity.task_version):
        raise BenchError(
            f"this ticket is of task {name!r:.60}, version {record.identity.task_version}, and {place} is "
            f"{declared['name']}, version {declared['version']}"
        )
    return registry.adapter(place, declared["adapter"])


def _configuration(record: Record, adapter: type[Task]) -> dict[str, Any]:
    """Return the record's configuration, with the options that ``Task.identity`` leaves out at their defaults. It does not say
    where data and encoders are, which building a network from facts does not need."""
    sections = record.identity.config
    return {section: {**adapter.later_defaults.get(section, {}), **values} for section, values in sections.items()}


def _load(network: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Put ``tensors`` into the network: all of its own, each of its shape, and no others."""
    own = tensors_of(network)
    for name in sorted(own.keys() ^ tensors.keys()):
        whose = "lacks" if name in own else "has, beyond the network's,"
        raise BenchError(f"{folder / MODEL} {whose} {name}: it is of another network than {CONFIG} and {RECORD}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
            raise BenchError(
                f"{folder / MODEL} has {name} as {tensor.dtype} {tuple(tensor.shape)}, and the network as {own[name].dtype} "
                f"{tuple(own[name].shape)}: it is of another network than {CONFIG} and {RECORD}"
            )
        own[name].copy_(tensor)
