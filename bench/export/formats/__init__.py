"""Formats of other runtimes. One file for each, which has the members of ``Format`` and is called like the format on the command
line; adding the file adds the format. Nothing heavy is imported before a network is written."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from bench.export.runtimes import Runner
    from bench.task.capabilities import Call

OTHERS = tuple(module.name for module in iter_modules(__path__))
"""Each adds the file ``model.NAME`` to the folder of a ticket."""
FORMATS = ("hf", *OTHERS)
"""hf: the folder as hub libraries have it."""
OPSET = 20
"""The version of the operators unless another is asked for, in formats that have versions."""


class Format(Protocol):
    """The members of a format's module."""

    def write(self, call: "Call", path: Path, opset: int = OPSET) -> None:
        """Write a network; the free sizes of the call are free. BenchError where the format cannot hold it."""

    def runner(self, path: Path) -> "Runner":
        """Return what runs the file that was written."""


def named(name: str) -> Format:
    """Return one of ``OTHERS``."""
    return cast(Format, import_module(f"{__name__}.{name}"))
