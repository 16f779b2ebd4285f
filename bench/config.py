"""From a command line to composed configurations. Hydra composes them; the grid is built here, because it must be resumable."""

import itertools
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from bench import registry
from bench.errors import UsageError, first_line, one_of, unknown
from bench.runner import executors
from bench.values import KINDS, check_kind, flat, text

if TYPE_CHECKING:
    from bench.runner.analyses import Analysis

GROUPS = ("data", "method", "protocol")
LOCAL = ("store", "runs", "jobs", "threads", "device", "checkpoint_seconds", "tracker", "executor", "data.root", "model.root")
"""Keys that say where and how fast a run computes. They change no number, so a record's command leaves them and all keys below
them out."""
NODE = "method_"
"""The prefix of the config nodes that are made of the signatures of methods and lie in no file."""


@dataclass(frozen=True)
class Setting:
    """One composed configuration: a task with data, model, method and protocol. Its seeds are expanded later."""

    folder: Path
    protocol: str
    config: dict[str, Any]
    overrides: tuple[str, ...]
    precision: str | None = None
    """What ``train.precision: auto`` means where a record is made again. None: the precision that the device has."""

    @property
    def name(self) -> str:
        """The name of the task."""
        return str(self.config["task"]["name"])

    def command(self, seed: int, analysis: "Analysis | None" = None) -> str:
        """Return the command that makes the records of this setting, or of an analysis of it, for one seed on any machine."""
        task = f"tasks/{self.name}" if registry.task_folder_is_own(self.folder) else str(self.folder)
        overrides = [o for o in self.overrides if not is_local(key := o.lstrip("+~").split("=")[0]) and key != "seeds"]
        verb = ["run"] if analysis is None else ["analyse", analysis.name]
        options = [] if analysis is None else [f"analysis.{key}={text(v)}" for key, v in analysis.options.items()]
        return shlex.join(["bench", *verb, task, *overrides, *options, f"seeds=[{seed}]"])

    def sibling(self, task: str | None, data: str | None) -> "Setting":
        """Return the same setting on other data, or the same protocol and model on another task."""
        overrides = {o.split("=")[0]: o for o in self.overrides}
        if task:
            kept = ("protocol", "model", "pattern")
            overrides = {key: o for key, o in overrides.items() if is_local(key) or key.partition(".")[0] in kept}
        if data:
            overrides["data"] = f"data={data}"
        other = _compose(registry.task_folder(task) if task else self.folder, list(overrides.values()))
        return replace(other, precision=self.precision)


def is_local(key: str) -> bool:
    """Whether a key says where and how fast, not what."""
    return key in LOCAL or key.partition(".")[0] in LOCAL


def settings(task: str, overrides: Iterable[str]) -> list[Setting]:
    """Return all settings of a command: ``method=[a,b]``, ``data=[x,y]`` and Hydra's ``key=a,b`` make a grid."""
    folder = registry.task_folder(task)
    axes = [_choices(text) for text in overrides]
    return [_compose(folder, list(combination)) for combination in itertools.product(*axes)]


def group_options(folder: Path, group: str) -> list[str]:
    """Return the choices of a config group for a task."""
    return sorted(path.stem for path in (folder / group).glob("*.yaml"))


def densities(requested: Any, budgets: list[str]) -> list[dict[str, float]]:
    """Return the densities of the columns, falling: one dict from budget to density for each column. ``requested`` is a number or
    list (for the budget ``weights``), or a mapping from budget to number or list. Lists are paired position by position, and a
    single number serves all positions; null leaves a budget unpruned."""
    if not isinstance(requested, Mapping):
        requested = {"weights": requested}
    lists = {b: list(v) if isinstance(v, (list, tuple)) else [v] for b, v in requested.items() if v is not None}
    for budget, values in lists.items():
        one_of("budget", budget, budgets)
        for value in values:
            check_density(value, f" of {budget}")
    longest = max((len(v) for v in lists.values()), default=0)
    for budget, values in lists.items():
        if len(values) not in (1, longest):
            raise UsageError(
                f"densities.{budget} has {len(values)} entries, another budget {longest}: give as many, or one for all"
            )
    columns = [{b: float(v[i] if len(v) > 1 else v[0]) for b, v in lists.items()} for i in range(longest)]
    if not columns:
        raise UsageError("no densities asked: give densities=[0.5,0.2]")
    columns.sort(key=lambda c: tuple(-c[b] for b in c))
    for one, other in itertools.pairwise(columns):
        if one == other:
            raise UsageError(f"{', '.join(f'density {d:g} of {b}' for b, d in one.items())} is asked twice: give it once")
    return columns


def check_density(density: Any, of: str) -> None:
    """Raise UsageError unless 0 < density <= 1."""
    if isinstance(density, bool) or not isinstance(density, (int, float)) or not 0 < density <= 1:
        raise UsageError(f"density {density!r}{of} must be a number in (0, 1]")


def _choices(text: str) -> list[str]:
    """Return the override once for every value of a grid."""
    override, key = _parsed(text), text.split("=", 1)[0]
    if override.is_delete():
        raise UsageError(f"cannot leave out {key[1:]}: every key is needed; set it to null or [] where it may be empty")
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    value = override.value()
    if key in (*GROUPS, "model") and isinstance(value, list):
        if not value:
            raise UsageError(f"{text} leaves nothing to run")
        return [f"{key}={v}" for v in value]
    return [text]


def _parsed(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise UsageError(f"cannot read {text!r}: options are written key=value ({first_line(error)})") from None


def _compose(folder: Path, overrides: list[str]) -> Setting:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.3"):
        for name in executors.EXECUTORS:
            ConfigStore.instance().store(group="executor", name=name, node=executors.defaults(name))
        groups, words = {group: group_options(folder, group) for group in (*GROUPS, "model")}, []
        groups["executor"] = sorted(executors.EXECUTORS)
        own = _method_defaults(folder)
        _add_method("imp", own)  # the method of a command that names none
        for text in overrides:
            key, _, value = text.partition("=")
            if key == "model" and not groups["model"]:
                text = f"model.name={value}"
            elif key == "method" and not (folder / "method" / f"{value}.yaml").is_file():  # the store keeps other tasks' nodes
                text = f"method={_add_method(value, own)}"
            elif key in groups and value not in groups[key]:
                raise unknown(key, value, groups[key])
            words.append(text)
        chosen = [o for o in words if (o.split("=")[0] in groups and groups[o.split("=")[0]]) or o.startswith("method=")]
        try:
            known = _known(folder, tuple(chosen))
            for text in words:
                if text.split("=")[0] not in groups:
                    _known_key(text, known)
            # densities given whole replace the default: Hydra would merge two mappings and refuse a mapping for a list
            replacing = itertools.chain(*(("~densities", f"+{o}") if o.startswith("densities=") else (o,) for o in words))
            config = compose("config", overrides=list(replacing), return_hydra_config=True)
            protocol = config.hydra.runtime.choices.get("protocol", "none")
            whole = OmegaConf.masked_copy(config, [str(key) for key in config if key not in ("hydra", "method_defaults")])
            plain = cast(dict[str, Any], OmegaConf.to_container(whole, resolve=True, throw_on_missing=True))
        except MissingMandatoryValue as error:
            raise UsageError(f"{error.full_key} has no default: give {error.full_key}=...") from None
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError, AttributeError) as error:
            why = " ".join(str(error.__cause__ or error).split())
            raise UsageError(f"the configuration of {folder.name} does not compose: {why}") from None
    check(plain, folder, known)
    return Setting(folder, protocol, plain, tuple(overrides))


@cache
def _known(folder: Path, chosen: tuple[str, ...]) -> dict[str, Any]:
    """Return the configuration of these groups before any key is overridden. It is cached, because Hydra takes a tenth of a
    second."""
    return cast(dict[str, Any], OmegaConf.to_container(compose("config", overrides=list(chosen))))


@cache
def _method_defaults(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the task's own defaults for options of methods: the section ``method_defaults`` of its config.yaml."""
    try:
        found: Any = OmegaConf.load(folder / "config.yaml")
        return cast(dict[str, dict[str, Any]], OmegaConf.to_container(OmegaConf.create(found.get("method_defaults", {}))))
    except (OmegaConfBaseException, YAMLError, ValueError, AttributeError) as error:
        raise UsageError(f"the configuration of {folder.name} does not compose: {' '.join(str(error).split())}") from None


def _add_method(name: str, own: Mapping[str, Mapping[str, Any]]) -> str:
    """Give a method a config node made of its signature and the task's ``own`` defaults; return the node's name."""
    node = name if name in registry.METHODS else NODE + "".join(c if c.isalnum() else "_" for c in name)
    ConfigStore.instance().store(group="method", name=node, node=method_node(name, own))
    return node


def method_node(name: str, own: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a method's section of a configuration: its name and options at their defaults or at the task's ``own`` ones."""
    function = registry.method(name)
    required = dict.fromkeys(registry.required(function), MISSING)
    return {"name": name, **required, **registry.options(function), **own.get(name, {})}


def method_options(setting: Setting, name: str) -> dict[str, Any]:
    """Return the options that a method has in a setting whose command names it and none of its options. This takes milliseconds,
    and composing the command takes a tenth of a second."""
    node = OmegaConf.create({**setting.config, "method": method_node(name, _method_defaults(setting.folder))})
    try:
        plain = cast(dict[str, Any], OmegaConf.to_container(node.method, resolve=True, throw_on_missing=True))
    except MissingMandatoryValue as error:
        raise UsageError(f"{error.full_key} has no default: give {error.full_key}=...") from None
    return {key: value for key, value in plain.items() if key != "name"}


def checked(override: str, known: Mapping[str, Any], hints: Mapping[str, Any]) -> Any:
    """Return the value of an override, after checking that its key is one of ``known`` and that it has the key's kind."""
    key, value = _known_key(override, known), _parsed(override).value()
    check_kind(key, value, dict(flat(known))[key], hints)
    return value


def _known_key(override: str, known: Mapping[str, Any]) -> str:
    """Return the key of an override. It must exist unless the override declares it as new."""
    key = override.split("=", 1)[0]
    if key.startswith("densities.") and not isinstance(known["densities"], Mapping):
        raise UsageError(
            f"{override}: densities is one list here; for several budgets say 'densities={{weights: 0.5, edges: 0.8}}'"
        )
    if key.startswith("densities.") and key.removeprefix("densities.") not in known["densities"]:
        raise unknown("budget", key.removeprefix("densities."), known["densities"])
    if not key.startswith(("+", "densities.")) and key not in (keys := dict(flat(known))):
        raise unknown("key", key, keys)
    return key


def check(config: Mapping[str, Any], folder: Path, before: Mapping[str, Any]) -> None:
    """Refuse every setting that is known to be wrong before anything is trained. ``before``: the configuration before any
    override."""
    from bench.lab.training import SCHEDULES  # these load PyTorch, which looking at configurations does not need
    from pruning import CONTROLS, PruningError, patterns
    from pruning.allocation import DISTRIBUTIONS

    known, defaults = dict(flat(config)), dict(flat(before))
    names = ("task.name", "data.name", "model.name", "method.name", "executor.name")
    for key in (*names, "task.version", "task.adapter", "train.epochs", "seeds", "controls", "jobs", "checkpoint_seconds"):
        if known.get(key) is None:
            raise UsageError(f"{folder / 'config.yaml'} must set {key}, which is missing or null")
    if type(pattern := known.get("pattern")) is int:  # as YAML reads hours and minutes
        raise UsageError(f'pattern={pattern}: YAML reads 2:4 as the number 124, so a pattern needs quotes there: pattern: "2:4"')
    for key in KINDS.keys() & known:
        check_kind(key, known[key], defaults.get(key), {})
    function = registry.method(known["method.name"])
    for option in config["method"]:
        if option not in defaults["method"] and not registry.takes_more(function):
            raise unknown(f"option of method {known['method.name']}", option, defaults["method"])
    kinds = {f"method.{option}": kind for option, kind in registry.hints(function).items()}
    if known["executor.name"] != defaults["executor.name"]:
        raise UsageError(f"executor.name={text(known['executor.name'])}: an executor is chosen by executor=NAME")
    for option in config["executor"]:
        one_of(f"option of executor {known['executor.name']}", option, defaults["executor"])
    kinds |= {f"executor.{option}": kind for option, kind in executors.hints(known["executor.name"]).items()}
    for key, value in known.items():
        if key.partition(".")[0] != "densities" and value != defaults.get(key):
            check_kind(key, value, defaults.get(key), kinds)
    if not known["seeds"] or min(known["seeds"]) < 0:
        raise UsageError(f"seeds={text(known['seeds'])} must be a list of whole numbers from 0 on, such as [0,1,2]")
    for key in ("train.epochs", "train.batch_size", "jobs", "threads", "train.lr"):
        if isinstance(known.get(key), int | float) and not known[key] > 0:
            raise UsageError(f"{key}={known[key]} must be above 0")
    requested = config.get("densities")
    for values in requested.values() if isinstance(requested, Mapping) else [requested]:
        for value in values if isinstance(values, list) else [values]:
            if value is not None:
                check_density(value, "")
    for control in known["controls"]:
        one_of("control", control, CONTROLS)
    if pattern is not None:
        try:
            patterns.parse(pattern)
        except PruningError as error:
            raise UsageError(str(error)) from None
    for option, choices in (("schedule", SCHEDULES), ("scheme", tuple(DISTRIBUTIONS))):
        one_of(option, known.get(f"method.{option}", choices[0]), choices)
    if isinstance(known.get("method.score"), str):
        registry.score(known["method.score"])
