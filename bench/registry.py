"""Where tasks, methods, scores and analyses come from: this repository, an entry point (group ``bench.tasks``, ...), or a path.
Everything is looked up when it is needed; nothing registers itself by being imported."""

import ast
import importlib
import importlib.util
import inspect
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from bench.errors import BenchError, UsageError, unknown
from pruning.catalogue import ANALYSES as ANALYSES
from pruning.catalogue import METHODS as METHODS
from pruning.catalogue import SCORES as SCORES
from pruning.metadata import MethodInfo, info_of

if TYPE_CHECKING:
    from bench.task import Task


OPTION = re.compile(r"(\w+(?:, \w+)*)  +(\S.*)")
"""A line of a docstring that says what an option means."""
_OWN = {"methods": METHODS, "scores": SCORES, "analyses": ANALYSES}


def names(kind: str) -> list[str]:
    """Return all known methods, scores, analyses or tasks by name."""
    own = _own_tasks() if kind == "tasks" else _OWN[kind]
    return sorted({*own, *(point.name for point in entry_points(group=f"bench.{kind}"))})


def documentation(kind: str, name: str) -> str:
    """Return the docstring of a method, score or analysis. Files of this repository are read, not imported, which would take
    seconds."""
    if name not in _OWN[kind]:
        return inspect.getdoc(_lookup(kind, name)) or ""
    module, _, function = _OWN[kind][name].partition(":")
    return _docstrings(module)[function]


@cache
def controls() -> dict[str, str]:
    """Return the docstring of every control by name: of all public functions of their module."""
    return {name: text for name, text in _docstrings("pruning.controls").items() if not name.startswith("_")}


def declared(module: str, function: str) -> dict[str, Any]:
    """Return the literal arguments of the decorator of ``pruning.metadata`` on a function of this repository. Its module is read
    and not imported, because that takes a second."""
    calls = [d for d in _function(module, function).decorator_list if isinstance(d, ast.Call)]
    given = {keyword.arg: keyword.value for call in calls for keyword in call.keywords if keyword.arg}
    return {key: ast.literal_eval(node) for key, node in given.items() if isinstance(node, ast.Constant | ast.Dict | ast.Tuple)}


def written_options(name: str) -> dict[str, Any]:
    """Return what ``options`` does for a method of this repository, without importing it unless a default is no literal."""
    arguments = _function(*METHODS[name].split(":")).args
    pairs = [
        *reversed(list(zip(arguments.args[::-1], arguments.defaults[::-1], strict=False))),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    try:
        return {argument.arg: plain(ast.literal_eval(default), "") for argument, default in pairs if default}
    except ValueError:
        return options(method(name))


def _function(module: str, name: str) -> ast.FunctionDef:
    return next(node for node in _parsed(module).body if isinstance(node, ast.FunctionDef) and node.name == name)


@cache
def _parsed(module: str) -> ast.Module:
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    assert spec
    assert spec.origin, package
    root = Path(spec.origin).parent
    return ast.parse(root.joinpath(*rest).with_suffix(".py").read_text(encoding="utf-8"))


def _docstrings(module: str) -> dict[str, str]:
    return {node.name: ast.get_docstring(node) or "" for node in _parsed(module).body if isinstance(node, ast.FunctionDef)}


def method(name: str) -> Callable[..., Any]:
    """Return a generator of tickets by its name, its entry point or ``path/to/file.py:function``."""
    return _lookup("methods", name)


def score(name: str) -> Callable[..., Any]:
    """Return a score by its name, its entry point or ``path/to/file.py:function``."""
    return _lookup("scores", name)


def analysis(name: str) -> Callable[..., Any]:
    """Return a generator of rows by its name, its entry point or ``path/to/file.py:function``."""
    return _lookup("analyses", name)


def options(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the keyword options of a method and their defaults, as a record holds them. UsageError for a default that a record
    cannot hold."""
    given, whose = [p for p in _parameters(function) if p.default is not p.empty], getattr(function, "__name__", function)
    return {p.name: plain(p.default, f"option {p.name} of {whose} defaults to") for p in given}


def required(function: Callable[..., Any]) -> list[str]:
    """Return the options of a method that have no default."""
    return [p.name for p in _parameters(function)[2:] if p.default is p.empty]


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return which kind of value each option takes, where its annotation says so."""
    try:
        return get_type_hints(function)
    except Exception:  # names that are there for type checkers alone
        return {}


def meanings(function: Callable[..., Any]) -> dict[str, str]:
    """Return what each option of a method or analysis means; an option that its docstring does not describe has an empty text."""
    lines = _meanings(
        inspect.getdoc(function) or "", lambda other: inspect.getdoc(function.__globals__.get(other) or method(other)) or ""
    )
    return {option: lines.get(option, "") for option in (*required(function), *options(function))}


def written_meanings(name: str) -> dict[str, str]:
    """Return what ``meanings`` does for a method of this repository, without importing it."""
    module = METHODS[name].partition(":")[0]
    return _meanings(
        documentation("methods", name), lambda other: _docstrings(module).get(other) or documentation("methods", other)
    )


def _meanings(documented: str, look: Callable[[str], str]) -> dict[str, str]:
    """Return the lines "name  meaning" of a docstring and of those whose options it shares ("Options as those of ``imp``"), which
    ``look`` finds."""
    lines: dict[str, str] = {}
    for line in documented.splitlines():
        if match := OPTION.fullmatch(line):
            names = match[1].split(", ")
            lines |= dict.fromkeys(names, match[2])
        elif lines and line.startswith("   "):
            lines |= {name: f"{lines[name]} {line.strip()}" for name in names}
    shared = re.search(r"options as those\s+of\s+(``\w+``(?:\s+and\s+``\w+``)*)", documented, re.IGNORECASE)
    for other in re.findall(r"\w+", shared[1].replace(" and ", " ")) if shared else ():
        lines = _meanings(look(other), look) | lines
    return lines


def takes_more(function: Callable[..., Any]) -> bool:
    """Return whether a function takes options that it does not name."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def plain(value: Any, whose: str) -> Any:
    """Return a value as JSON holds it: text, finite numbers, true and false, null, lists, mappings. Numbers of NumPy and PyTorch
    become Python's."""
    if callable(getattr(value, "item", None)) and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or type(value) is str or (isinstance(value, (bool, int, float)) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(v, whose) for v in value]
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return {key: plain(v, whose) for key, v in value.items()}
    raise UsageError(
        f"{whose} {value!r:.60} ({type(value).__name__}), which no record can hold: use finite numbers, text, true, "
        "false, null, or lists and mappings of them"
    )


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(function).parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def sequential(function: Callable[..., Any], options: Mapping[str, Any]) -> bool:
    """Return whether a method's tickets depend on the densities that were requested before theirs."""
    return info_of(function, MethodInfo).is_sequential(options)


def task_folder(name: str) -> Path:
    """Return the folder of a task: a path, ``tasks/<name>`` or ``<name>`` of this repository, or an entry point that names a
    package."""
    path = Path(name)
    if (path / "config.yaml").is_file():
        return path.resolve()
    short = path.name
    if (short not in _own_tasks() or str(path) in (short, f"tasks/{short}")) and (found := installed_task(short)):
        return found
    if path.is_dir():
        raise UsageError(f"{name} is a folder without config.yaml, so it is no task; docs/new_task.md says what one needs")
    raise unknown("task", name, (f"tasks/{n}" for n in names("tasks")))


def installed_task(name: str) -> Path | None:
    """The folder of a task of this repository or of an installed package, by its name alone; None where there is none."""
    if name in _own_tasks():
        return _own_tasks()[name]
    points = [point for point in entry_points(group="bench.tasks") if point.name == name]
    return Path(points[0].load().__file__).parent if points else None


def task_folder_is_own(folder: Path) -> bool:
    """Return whether a task folder belongs to this repository."""
    return _own_tasks().get(folder.name) == folder


def foreign(words: Iterable[str]) -> list[str]:
    """Return those words of a command (task, analysis, key=value) that may name code outside this repository: in a file, a folder
    or a package. Nothing is imported to find out."""
    outside = {point.name for kind in ("tasks", "methods", "scores", "analyses") for point in entry_points(group=f"bench.{kind}")}

    def runs(text: str) -> bool:
        places = [Path(name) for name in (text, text.rpartition(":")[0]) if name]  # TASK:DATA, too
        tasks = [place.resolve() for place in places if (place / "config.yaml").is_file()]
        return ".py" in text or any(p.name in outside for p in places) or not all(map(task_folder_is_own, tasks))

    return [
        word
        for word in words  # what Hydra would put together from parts cannot be told
        if set(word) & set("$\\") or any(map(runs, re.split(r"[\s,=\[\]{}()'\"]+|:\s+", word)))
    ]


def adapter(folder: Path, reference: str) -> "type[Task]":
    """Return the Task class ``module:Class`` of a task folder."""
    module, _, attribute = reference.partition(":")
    package = _package(folder)
    try:
        with nullcontext() if task_folder_is_own(folder) else _neighbours(folder):
            found = importlib.import_module(f"{package}.{module}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith(package):
            raise BenchError(f"{folder.name} says its adapter is {reference}, but there is no such module in {folder}") from None
        raise BenchError(
            f"task {folder.name} needs the package {error.name}, which is not installed: pip install {error.name}"
        ) from None
    if not hasattr(found, attribute):
        raise BenchError(f"{folder / module}.py has no {attribute}, which config.yaml names as the adapter")
    kind: type[Task] = getattr(found, attribute)
    return kind


def _package(folder: Path) -> str:
    """Return an importable name for a task folder; a folder outside the repository becomes a package of its own."""
    if task_folder_is_own(folder):
        return f"tasks.{folder.name}"
    name = _private("task", folder)
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


def _private(what: str, path: Path) -> str:
    """Return a module name that no other path has: two paths may share their last part."""
    return f"bench_{what}_{path.stem}_{zlib.crc32(str(path.resolve()).encode()):08x}"


@contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Inside the context, a file of ``folder`` can import the files next to it by their plain names. Afterwards those names are
    free again, so that another file may have neighbours of the same names."""
    before, place = set(sys.modules), str(folder)
    sys.path.insert(0, place)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(place)
        for name in sys.modules.keys() - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(folder) and not name.startswith("bench_"):
                sys.modules[f"{_private('beside', folder)}.{name}"] = sys.modules.pop(name)


@cache
def _own_tasks() -> dict[str, Path]:
    import tasks

    roots = [Path(root) for root in tasks.__path__]
    return {p.parent.name: p.parent.resolve() for root in roots for p in sorted(root.glob("*/config.yaml"))}


def _lookup(kinds: str, name: str) -> Callable[..., Any]:
    kind = "analysis" if kinds == "analyses" else kinds.removesuffix("s")
    if ".py:" in name:
        return _from_file(kind, name)
    if name.endswith(".py"):
        raise UsageError(f"say which function of the file is the {kind}: {name}:NAME")
    if name in _OWN[kinds]:
        return cast(Callable[..., Any], EntryPoint(name, _OWN[kinds][name], "").load())
    for point in entry_points(group=f"bench.{kinds}"):
        if point.name == name:
            return cast(Callable[..., Any], point.load())
    raise unknown(kind, name, names(kinds))


@cache
def _from_file(kind: str, reference: str) -> Callable[..., Any]:
    path, _, attribute = reference.rpartition(":")
    if not Path(path).is_file():
        raise UsageError(f"no file {path} to take the {kind} {attribute} from")
    name = _private("file", Path(path))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader, path
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with _neighbours(Path(path).resolve().parent):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BenchError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, attribute, None)):
        raise unknown(f"function of {path}", attribute, (n for n, v in vars(module).items() if inspect.isfunction(v)))
    return cast(Callable[..., Any], getattr(module, attribute))
