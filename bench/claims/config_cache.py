"""The configurations of claims' commands: the setting of their records, their densities, options of methods and analyses.

Composing a configuration takes a tenth of a second, and claims name dozens. What came of it is kept in a file of the user's
cache for as long as no source changes that composing may depend on. Nothing is kept of tasks and methods from elsewhere.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import bench
import pruning
from bench import config, registry
from bench.leaderboard import method_metadata
from bench.storage.files import cache as cache_folder
from bench.storage.files import canonical, text_sum, write_atomic

READERS = ("checks", "claims", "export", "leaderboard", "site", "speed", "suites", "verbs")
"""Folders of bench that composing a configuration does not run: they may change while what was made is kept."""
Setting = tuple[str, int, str, str]
"""Task, its version, protocol, and the parts of the configuration that can change numbers, as JSON."""


class Made(NamedTuple):
    """A command without its method: what its records' identities say, the names of task, data, model and protocol, and its
    densities, falling."""

    setting: Setting
    names: list[str]
    densities: list[dict[str, float]]


@cache
def made(task: str, overrides: tuple[str, ...]) -> Made:
    """What a command makes, whatever its method or analysis; ``overrides`` are its words after the task."""
    setting, names, densities = _kept(_own_sources(task), _made, task, overrides)
    return Made(tuple(setting), names, densities)


@cache
def method_options(task: str, overrides: tuple[str, ...], method: str) -> dict[str, Any]:
    """The options of a method where a command does not name any."""
    sources = _own_sources(task) if method in registry.METHODS else None
    options: dict[str, Any] = _kept(sources, _method_options, task, overrides, method)
    return options


@cache
def analysis_options(name: str) -> dict[str, Any]:
    """The options of an analysis at their defaults."""
    options: dict[str, Any] = _kept("" if name in registry.ANALYSES else None, _analysis_options, name)
    return options


def is_sequential(method: str, options: Mapping[str, Any]) -> bool:
    """Whether a method's tickets depend on the densities that were requested before theirs."""
    if method in registry.METHODS:
        return method_metadata.is_sequential(method, options)
    return registry.sequential(registry.method(method), options)


def recipe(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections of a configuration as JSON. A model may be a folder: only the last part of its name counts."""
    return canonical(
        {
            section: {key: Path(str(value)).name if key == "name" else value for key, value in values.items()}
            for section, values in sections.items()
        }
    )


def keep() -> None:
    """Write down what was made since the file was read, for the next process."""
    known = _known(cache_folder())
    if known.new:
        with suppress(OSError):  # a cache that cannot be written to is none
            write_atomic(known.path, json.dumps({"sources": _sources(), "made": known.made}))
        known.new = False


class _Known:
    """What the file has, if it was made by these sources, and what was made since."""

    def __init__(self, path: Path):
        self.path, self.new = path, False
        self.made: dict[str, Any] = {}
        with suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["sources"] == _sources():
                self.made = dict(found["made"])


@cache
def _known(folder: Path) -> _Known:
    return _Known(folder / "claims.json")


@cache
def _sources() -> str:
    """A sum over everything that composing any configuration of this repository may depend on, but for the tasks' folders."""
    packages = [Path(folder) for package in (bench, pruning) for folder in package.__path__]
    places = [place for package in packages for place in sorted(package.iterdir()) if place.name not in READERS]
    return canonical([[version(name) for name in ("hydra-core", "omegaconf")], *map(_sum, [*places, Path(__file__)])])


@cache
def _own_sources(task: str) -> str | None:
    """A sum over the folder of a task and what tasks share; None for a task that is not of this repository."""
    folder = registry.task_folder(task)
    if not registry.task_folder_is_own(folder):
        return None
    shared = [place for place in sorted(folder.parent.iterdir()) if not (place / "config.yaml").is_file()]
    return text_sum("".join(map(_sum, [folder, *shared])))


def _sum(place: Path) -> str:
    """A sum over the sources in a folder, or one of them; of another file, over none."""
    paths = sorted(place.rglob("*")) if place.is_dir() else [place]
    found = [path for path in paths if path.suffix in (".py", ".yaml") and path.is_file()]
    return text_sum(canonical([[str(path), text_sum(path.read_text(encoding="utf-8"))] for path in found]))


def _kept(sources: str | None, make: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives, from the file if it is there. ``sources``: a sum over what it depends on besides ``_sources``;
    None: on more than this repository, so that nothing is kept."""
    if sources is None:
        return make(*arguments)
    known, key = _known(cache_folder()), canonical([make.__name__, sources, *arguments])
    if key not in known.made:
        known.made[key], known.new = make(*arguments), True
    return known.made[key]


def _made(task: str, overrides: tuple[str, ...]) -> Made:
    from bench.runner.precision import as_asked  # loads PyTorch

    setting = _composed(task, overrides)
    adapter = registry.adapter(setting.folder, setting.config["task"]["adapter"])
    sections = {section: setting.config[section] for section in ("data", "model", "train")}
    identity = as_asked(adapter.identity_of(sections), sections["train"])
    asked = setting.config["densities"]
    return Made(
        (setting.name, setting.config["task"]["version"], setting.protocol, recipe(identity)),
        [setting.name, setting.config["data"]["name"], setting.config["model"]["name"], setting.protocol],
        config.densities(asked, list(asked) if isinstance(asked, dict) else ["weights"]),
    )


@cache
def _composed(task: str, overrides: tuple[str, ...]) -> config.Setting:
    """The configuration of a command. Its method is the default one."""
    return config.settings(task, overrides)[0]


def _method_options(task: str, overrides: tuple[str, ...], method: str) -> dict[str, Any]:
    return config.method_options(_composed(task, overrides), method)


def _analysis_options(name: str) -> dict[str, Any]:
    return registry.options(registry.analysis(name))
