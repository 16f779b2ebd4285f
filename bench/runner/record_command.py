"""The command of a record, read back into settings. It is whatever its sender wrote, so it is checked first."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench import registry
from bench.config import Setting, is_local, settings
from bench.errors import BenchError
from bench.runner.analyses import Analysis, requested
from bench.storage.records import ChecksummedRecord

Trust = Callable[[str], bool]
"""Whether code from outside this repository, of which it is told, may be run."""


def settings_of(record: ChecksummedRecord, path: Path, trusted: Trust, *local: str) -> tuple[list[Setting], Analysis | None]:
    """The settings of a record's command, and the analysis it asks for. ``local``: what is to be said of this machine, as
    ``key=value``. BenchError where the command is none that `bench` writes, or runs code from outside that is not ``trusted``."""
    try:
        words, analysis = shlex.split(record.command), None
    except ValueError:
        words = []
    named = words[2:4] if words[:2] == ["bench", "analyse"] else words[2:3]
    if words[:2] not in (["bench", "run"], ["bench", "analyse"]) or len(named) < 1 + (words[1] == "analyse"):
        raise BenchError(f"the command of {path} is no `bench run TASK`: {record.command}")
    overrides = words[2 + len(named) :]
    for word in overrides:
        key = word.split("=")[0].lstrip("+~")
        if is_local(key) or key.partition(".")[0] in ("hydra", "task") or word.startswith("-"):
            raise BenchError(f"the command of {path} says {word}, as no record's does: it was edited")
    outside = registry.foreign([*named, *overrides])
    if outside and not trusted(", ".join(outside)):
        raise BenchError(
            f"the command of {path} runs code from outside this repository ({', '.join(outside)}): read it, then say --trust"
        )
    if words[1] == "analyse":
        analysis, overrides = requested(named[0], overrides)
    return [replace(setting, precision=record.precision) for setting in settings(named[-1], [*overrides, *local])], analysis
