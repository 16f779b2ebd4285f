"""Writes the folder of a ticket, whole or not at all, after every form in it was compared with the trained network."""

import shutil
import tempfile
from pathlib import Path

from bench.errors import BenchError
from bench.export import formats
from bench.export.card import card
from bench.export.layout import CARD, MASKS, MODEL, RECORD, read_config, write_config
from bench.export.parity import Parity, compare
from bench.export.pretrained import from_pretrained
from bench.export.runtimes import module_runner
from bench.export.ticket import TrainedTicket, shapes, tensors_of
from bench.storage.records import write_sealed
from pruning.checksummed import write_tensors


def export(ticket: TrainedTicket, to: Path, form: str = "hf", opset: int = formats.OPSET) -> list[Parity]:
    """Write the folder ``to``, in place of an exported ticket that is there. ``form``: one of ``formats.FORMATS``. Returns how
    each form compares with the network as it was trained, on the validation data. BenchError where they differ by more than
    rounding, or where ``to`` holds something else."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        try:
            read_config(to)
        except BenchError:
            raise BenchError(
                f"{to} is there and is no exported ticket as it was written: name another folder, or remove it"
            ) from None
    to.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.absolute().parent) as place:
        folder = Path(place) / to.name
        folder.mkdir()
        parities = _fill(ticket, folder, form, opset)
        if to.exists():
            shutil.rmtree(to)
        folder.rename(to)
    return parities


def _fill(ticket: TrainedTicket, folder: Path, form: str, opset: int) -> list[Parity]:
    small, task, call = ticket.small, ticket.exporting, ticket.exporting.call
    tensors = {name: tensor.cpu().clone().contiguous() for name, tensor in tensors_of(small).items()}
    write_tensors(folder / MODEL, tensors, {"format": "pt", "record": ticket.record.id})
    ticket.masks.save(folder / MASKS)
    write_sealed(ticket.record, folder / RECORD)
    task.write_files(folder, dict(ticket.masks))
    batches = list(ticket.task.batches("val", 0, 0))
    calls = [call(small, batch) for batch in batches]
    other = folder / f"model.{form}"
    if form in formats.OTHERS:
        formats.named(form).write(calls[0], other, opset)
    identity = ticket.record.identity
    section = {
        "record": ticket.record.id,
        "task": identity.task,
        "network": identity.model,
        "slim": ticket.slim,
        "tensors": shapes(small),
    }
    write_config(folder, task.facts(small), section)

    loaded = from_pretrained(folder, ticket.setting.folder)
    runners = {MODEL: module_runner(call(loaded, batches[0]).module.eval())}
    if form in formats.OTHERS:
        runners[other.name] = formats.named(form).runner(other)
    trained = module_runner(call(ticket.network, batches[0]).module.eval())
    inputs = [tuple(one.inputs.values()) for one in calls]
    parities = [compare(name, trained, runner, inputs) for name, runner in runners.items()]
    for parity in parities:
        parity.check()
    (folder / CARD).write_text(card(ticket, parities, folder), encoding="utf-8")
    return parities


def sizes(ticket: TrainedTicket, folder: Path) -> str:
    """Return how many bytes the files have, next to the parameters of the network that was pruned."""
    whole = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(ticket.whole).values())
    files = ", ".join(f"{name} {(folder / name).stat().st_size:,} bytes" for name in (MODEL, MASKS))
    return f"{files}; the whole network's tensors are {whole:,} bytes"
