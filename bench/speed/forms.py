"""The forms that a ticket is timed in: a network and what runs it."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from bench.errors import first_line
from bench.export.formats import onnx
from bench.export.runtimes import Runner, module_runner
from bench.export.ticket import TrainedTicket
from bench.speed import sparse_linear
from bench.task.capabilities import Call

DENSE, MASKED, SLIM, CSR, CONDENSED, TWO_OF_FOUR = "dense", "masked", "slim", "CSR", "condensed", "2:4"
EAGER, COMPILED, ONNX, HALF = "eager", "compiled", "ONNX Runtime", "eager fp16"


class Form(NamedTuple):
    """A form of a ticket. ``network``: dense, masked, slim, CSR, condensed (constant fan-in) or 2:4; ``runtime``: eager,
    compiled, ONNX Runtime or eager fp16."""

    network: str
    runtime: str


def forms(ticket: TrainedTicket, batch: Any, folder: Path, report: Callable[[str], None]) -> dict[Form, Runner]:
    """Return every form that runs on this machine and what runs it; ``report`` is told why another does not. ``folder``: for ONNX
    files."""
    found: dict[Form, Runner] = {}
    for form, call in _calls(ticket, batch):
        try:
            found[form] = _runner(form, call, folder)
        except Exception as error:  # no compiler, no package, an operator that a runtime lacks
            report(f"{form.network}, {form.runtime}: left out ({first_line(error)})")
    return found


def _calls(ticket: TrainedTicket, batch: Any) -> Iterator[tuple[Form, Call]]:
    masks = dict(ticket.masks)
    networks: dict[str, nn.Module | None] = {DENSE: ticket.whole}
    if not ticket.trained_slim:
        masked = ticket.exporting.folded(copy.deepcopy(ticket.network)).eval()
        networks |= {
            MASKED: masked,
            CSR: sparse_linear.replaced(masked, masks, sparse_linear.Csr, sparse_linear.is_very_sparse),
            CONDENSED: sparse_linear.replaced(masked, masks, sparse_linear.Condensed, sparse_linear.is_very_sparse),
        }
    if ticket.slim:
        networks[SLIM] = ticket.small
    runtimes = {DENSE: (EAGER, COMPILED, ONNX), SLIM: (EAGER, COMPILED, ONNX), CONDENSED: (EAGER, COMPILED)}
    for name, network in networks.items():
        if network is not None:
            call = ticket.exporting.call(network, batch)
            for runtime in runtimes.get(name, (EAGER,)):
                yield Form(name, runtime), call
    if ticket.task.device.type == "cuda" and not ticket.trained_slim:
        halved = sparse_linear.replaced(masked.half(), masks, sparse_linear.SemiStructured, sparse_linear.is_two_of_four)
        if halved is not None:
            yield Form(DENSE, HALF), ticket.exporting.call(copy.deepcopy(ticket.whole).half(), batch)
            yield Form(TWO_OF_FOUR, HALF), ticket.exporting.call(halved, batch)


def _runner(form: Form, call: Call, folder: Path) -> Runner:
    module: Callable[..., Any] = call.module.eval()
    if form.runtime == ONNX:
        path = folder / f"{form.network}.onnx"
        onnx.write(call, path)
        return onnx.runner(path)
    if form.runtime == COMPILED:
        module = torch.compile(copy.deepcopy(module), dynamic=False, options={"freezing": True})
    run = module_runner(module)
    return run if form.runtime != HALF else lambda inputs: run([t.half() if t.is_floating_point() else t for t in inputs])
