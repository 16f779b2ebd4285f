"""The program that torch.export makes of a network: ``torch.export.load`` needs no class of ours to run it."""

from pathlib import Path

import torch

from bench.errors import BenchError, first_line
from bench.export.formats import OPSET
from bench.export.runtimes import Runner, examples, free_sizes, module_runner, quiet
from bench.task.capabilities import Call


def write(call: Call, path: Path, opset: int = OPSET) -> None:
    """Write the program, whose operators are PyTorch's own: it has no ``opset``."""
    with quiet(), torch.no_grad():
        try:  # the bounds of free sizes are found out, such as the most positions
            sizes = free_sizes(call, lambda name: torch.export.Dim.DYNAMIC)
            torch.export.save(torch.export.export(call.module.eval(), examples(call), dynamic_shapes=sizes), path)
        except Exception as error:
            raise BenchError(f"torch.export cannot take this network ({first_line(error)})") from None


def runner(path: Path) -> Runner:
    """Return the program of a file that was just written: parts of such files are pickles, so only one's own are to be loaded."""
    with quiet():
        return module_runner(torch.export.load(path).module())
