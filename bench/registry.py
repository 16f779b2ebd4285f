"""Where tasks, methods, scores and analyses come from: this repository, an entry point (group ``bench.tasks``, ...), or a path.

Everything is looked up when it is asked for; nothing registers itself by being imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.errors import BenchError, UsageError, unknown
from pruning.catalogue import ANALYSES, METHODS, SCORES
from pruning.metadata import MethodInfo, info_of


def names(kind: str) -> list[str]:
    """All known methods, scores, analyses or tasks by name."""
    own = {"methods": METHODS, "scores": SCORES, "analyses": ANALYSES, "tasks": _own_tasks()}[kind]
    return sorted({*own, *(point.name for point in entry_points(group=f"bench.{kind}"))})


def method(name: str) -> Callable:
    """A generator of tickets: by name, entry point or ``path/to/file.py:function``."""
    return _lookup("method", METHODS, name)


def score(name: str) -> Callable:
    """A score: by name, entry point or ``path/to/file.py:function``."""
    return _lookup("score", SCORES, name)


def analysis(name: str) -> Callable:
    """A generator of rows: by name, entry point or ``path/to/file.py:function``."""
    return _lookup("analysis", ANALYSES, name)


def options(function: Callable) -> dict[str, Any]:
    """The keyword options of a method and their defaults."""
    return {p.name: p.default for p in inspect.signature(function).parameters.values() if p.default is not p.empty}


def sequential(function: Callable, options: Mapping[str, Any]) -> bool:
    """Whether a method's tickets depend on the densities that were asked for before theirs."""
    declared = info_of(function, MethodInfo).sequential
    return declared(options) if callable(declared) else declared


def task_folder(name: str) -> Path:
    """The folder of a task: a path, ``tasks/<name>`` or ``<name>`` of this repository, or an entry point naming a package."""
    path = Path(name)
    if (path / "config.yaml").is_file():
        return path.resolve()
    short = path.name
    if short in _own_tasks() and str(path) in (short, f"tasks/{short}"):
        return _own_tasks()[short]
    for point in entry_points(group="bench.tasks"):
        if point.name == short:
            return Path(point.load().__file__).parent
    if path.is_dir():
        raise UsageError(f"{name} is a folder without config.yaml, so it is no task; docs/new_task.md says what one needs")
    raise unknown("task", name, (f"tasks/{n}" for n in names("tasks")))


def task_folder_is_own(folder: Path) -> bool:
    """Whether a task folder is one of this repository's."""
    return _own_tasks().get(folder.name) == folder


def adapter(folder: Path, reference: str) -> type:
    """The Task class ``module:Class`` of a task folder."""
    module, _, attribute = reference.partition(":")
    package = _package(folder)
    try:
        found = importlib.import_module(f"{package}.{module}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith(package):
            raise BenchError(f"{folder.name} says its adapter is {reference}, but there is no such module in {folder}") from None
        raise BenchError(f"task {folder.name} needs the package {error.name}, which is not installed: "
                         f"pip install {error.name}") from None
    if not hasattr(found, attribute):
        raise BenchError(f"{folder / module}.py has no {attribute}, which config.yaml names as the adapter")
    return getattr(found, attribute)


def _package(folder: Path) -> str:
    """An importable name for a task folder; one outside the repository becomes a package of its own."""
    if task_folder_is_own(folder):
        return f"tasks.{folder.name}"
    name = f"bench_task_{folder.name}_{zlib.crc32(str(folder).encode()):08x}"  # two folders may share their last name
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


@cache
def _own_tasks() -> dict[str, Path]:
    import tasks
    roots = [Path(root) for root in tasks.__path__]
    return {p.parent.name: p.parent.resolve() for root in roots for p in sorted(root.glob("*/config.yaml"))}


def _lookup(kind: str, own: dict[str, str], name: str) -> Callable:
    if ".py:" in name:
        return _from_file(kind, name)
    if name.endswith(".py"):
        raise UsageError(f"say which function of the file is the {kind}: {name}:NAME")
    if name in own:
        return EntryPoint(name, own[name], "").load()
    kinds = "analyses" if kind == "analysis" else f"{kind}s"
    for point in entry_points(group=f"bench.{kinds}"):
        if point.name == name:
            return point.load()
    raise unknown(kind, name, names(kinds))


@cache
def _from_file(kind: str, reference: str) -> Callable:
    path, _, attribute = reference.rpartition(":")
    if not Path(path).is_file():
        raise UsageError(f"no file {path} to take the {kind} {attribute} from")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BenchError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, attribute, None)):
        raise unknown(f"function of {path}", attribute, (n for n, v in vars(module).items() if inspect.isfunction(v)))
    return getattr(module, attribute)
