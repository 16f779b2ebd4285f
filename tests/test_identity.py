"""Identity, pinned: no stage key, option, label or record id may change unnoticed, wherever the code that makes them moves.

Nothing here is trained but in ``golden``, and no data but generated ones are read: stage keys are those a dry run asks for, where
data must be real their fingerprint is given. What was pinned lies in ``tests/identity``, one file for each of ``PINS``.

After an intended change: ``python -m tests.test_identity`` writes the files again (with names of pins: those alone); read their
diff. A changed key or id makes stored stages and committed records worthless, so there should hardly ever be one. New records
change ``records`` alone.
"""

import hashlib
import importlib
import inspect
import itertools
import json
import pkgutil
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from torch import nn

# The adapter: all that is known here of where things are in the project. Where they move, this alone follows.
import pruning
from bench import registry
from bench.config import Setting, densities, group_options, settings
from bench.lab.dry_run import NotPlanned, PlanLab
from bench.lab.lab import Lab
from bench.runner.analyses import asked
from bench.runner.jobs import Job, label, open_lab, open_task
from bench.runner.jobs import asked_of as _asked
from bench.runner.plan import Planner as _Planner
from bench.runner.recorder import Recorder as _Recorder
from bench.runner.work import run_job
from bench.seeds import seed_for
from bench.storage.analysis_records import AnalysisIdentity, AnalysisRecord, read_analyses
from bench.storage.records import Record, identity_id, read_records, record_path
from bench.storage.stages import Store
from bench.task import Maskable, Metric, Task
from pruning import CONTROLS, Masks
from pruning.callbacks.base import Callback as Rule
from pruning.ticket import State

NAMES = {
    "admm": "Admm",
    "alone": "FreezeExcept",
    "early_bird": "EarlyBird",
    "edge_popup": "EdgePopup",
    "gem_miner": "GemMiner",
    "gradual": "Gradual",
    "l1": "L1",
    "low_precision": "LowPrecision",
    "movement": "Movement",
    "regrow": "Regrow",
    "soft_masks": "SoftMasks",
    "soft_movement": "SoftMovement",
    "sparsifier": "Sparsifier",
    "together": "CallbackList",
}
"""The name in its options -> the class of every rule."""
ABSTRACT = {"Callback", "Learned", "Moving"}


def rule_classes(kind: type = Rule) -> Iterator[tuple[str, type]]:
    """Every class of rule in the project by its name, wherever it lies."""
    if kind is Rule:
        for module in pkgutil.walk_packages(pruning.__path__, "pruning."):
            importlib.import_module(module.name)
    if kind.__module__.startswith("pruning."):
        yield kind.__name__, kind
    for below in kind.__subclasses__():
        yield from rule_classes(below)


CLASSES = dict(rule_classes())
RULES = {name: CLASSES[kind] for name, kind in NAMES.items()}


def planned(lab: PlanLab) -> list[str]:
    """Every stage that a dry run asked for."""
    return [f"{key}/{step}" for key, step in lab.planned]


def walked(setting: Setting, task: Task, store: Path) -> list[str]:
    """Every stage of a method, its tickets and their controls, as far as a dry run gets."""
    lab = open_lab(Job(setting, 0), task, PlanLab, planned={})
    with suppress(NotPlanned):
        for _ in _Planner(Job(setting, 0), task, lab).run():
            pass
    return planned(lab)


def recorder(setting: Setting, task: Task, seed: int, budgets: list[str]) -> _Recorder:
    """What makes identities of tickets."""
    return _Recorder(Job(setting, seed), task, SimpleNamespace(budgets=budgets))


def of_command(record: Record | AnalysisRecord) -> str:
    """The id that the command of a record gives today; fingerprint, seed and precision are taken from the record."""
    made, (_, verb, *words) = record.identity, shlex.split(record.command)
    name, task, *said = (None, *words) if verb == "run" else words
    analysis, said = asked(name, said) if name else (None, said)
    if precision := made.config["train"].get("precision"):
        said = [*said, f"train.precision={precision}"]
    setting = composed(task, *(word for word in said if not word.startswith("seeds=")))
    with opened(setting, made.fingerprint) as task:
        budgets = sorted({budget for column in made.densities for budget in column}) if name else list(record.budgets)
        if analysis:
            columns = densities(setting.config["densities"], budgets)
            return identity_id(
                AnalysisIdentity(
                    **_asked(Job(setting, made.seed, analysis), task),
                    analysis=analysis.name,
                    options=analysis.options,
                    densities=columns,
                )
            )
        method = {"name": "dense"} if made.method == "dense" else None
        return identity_id(recorder(setting, task, made.seed, budgets).identity(made.densities, made.control, method))


@cache
def composed(task: str, *overrides: str) -> Setting:
    """One configuration."""
    return settings(task, overrides)[0]


@contextmanager
def opened(setting: Setting, fingerprint: str = "0" * 64) -> Iterator[Task]:
    """Its task, and any other of that class, with a fingerprint that no data are read for."""
    task = open_task(setting)
    with mock.patch.object(type(task), "fingerprint", fingerprint):
        yield task


# The end of the adapter.

HERE = Path(__file__).parent
TOY = str(HERE / "toy")
RECORDS = HERE.parent / "leaderboards" / "records"
OWN = ("bert_glue", "bert_mlm", "bert_squad", "cnn_cifar", "cnn_imagenet", "gcn_ogb", "gcn_planetoid", "tour_flickr")
BF16 = {*((task, "desk") for task in OWN), ("cnn_imagenet", "paper")}
"""Protocols that compute in bfloat16 where the machine is fast at it: said outright here, so that no machine decides."""


def digest(value: Any) -> str:
    """Short sha256 of a plain value, or of a tensor's integers."""
    content = value.numpy().tobytes() if torch.is_tensor(value) else text(value).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def exact(task: str, protocol: str, *more: str) -> list[str]:
    """Overrides for a protocol of an own task, its precision said outright."""
    kind = "bf16" if (task, protocol) in BF16 else "fp32"
    return [f"protocol={protocol}", *([] if task.startswith(("gcn_", "tour_")) else [f"train.precision={kind}"]), *more]


# Configurations

OPTIONS = {
    "bert_glue": (
        "model.root=/x",
        "model.name=/x/all-MiniLM-L6-v2",
        "model.start=init",
        "model.scope=units",
        "data.root=/x",
        "train.validate_every=1",
    ),
    "bert_mlm": (
        "model.root=/x",
        "model.name=/x/all-MiniLM-L6-v2",
        "model.start=init",
        "model.scope=units",
        "train.validate_every=1",
    ),
    "bert_squad": (
        "model.root=/x",
        "model.name=/x/all-MiniLM-L6-v2",
        "model.start=init",
        "model.scope=units",
        "data.root=/x",
        "train.validate_every=1",
    ),
    "cnn_cifar": (
        "model.name=vgg16",
        "model.shortcut=zero_pad",
        "model.scope=channels",
        "model.init=glorot_normal",
        "model.gain=2.0",
        "model.hidden=64",
        "model.affine=false",
        "train.optimizer=adam",
        "train.augment=false",
        "train.validate_every=1",
        "data.root=/x",
    ),
    "cnn_imagenet": (
        "model.scope=channels",
        "train.label_smoothing=0.1",
        "train.validate_every=1",
        "data.workers=3",
        "data.root=/x",
    ),
    "gcn_ogb": (
        "model.directed=true",
        "train.neighbours=[3,2]",
        "train.batch_size=50",
        "train.edge_lr=0",
        "data.root=/x",
        "train.validate_every=1",
    ),
    "gcn_planetoid": ("model.directed=true", "train.edge_lr=0", "data.root=/x", "train.validate_every=1"),
    "tour_flickr": ("data.folds=0", "model.pretrain=[]", "train.pretrain_epochs=0", "data.root=/x", "train.validate_every=1"),
}
"""Options of tasks, each beside all defaults of desk: those left out of an identity at their defaults, or whatever they are."""
NEEDED = {"text": ["data.path=/x"], "folder": ["data.folder=/x"]}
"""Options without a default, by the data that have them."""


def configs(folder: Path) -> dict[str, Any]:
    """What of a configuration enters keys and records: every protocol, data set and network of every own task."""
    made = {}
    for task in OWN:
        home = registry.task_folder(task)
        cases = [exact(task, protocol) for protocol in group_options(home, "protocol")]
        cases += [
            exact(task, "desk", f"{group}={choice}", *NEEDED.get(choice, ()))
            for group in ("data", "model")
            for choice in group_options(home, group)
        ]
        for case in cases:
            made[" ".join([task, *case])] = open_task(composed(task, *case)).identity()
        desk = composed(task, *exact(task, "desk"))
        for option in OPTIONS[task]:
            changed = {section: dict(desk.config[section]) for section in ("data", "model", "train")}
            (section, key), value = option.partition("=")[0].split("."), yaml.safe_load(option.partition("=")[2])
            assert key in changed[section]
            changed[section][key] = value
            made[f"{task} {option}"] = open_task(replace(desk, config=desk.config | changed)).identity()
    return made


# Kinds of training


@lru_cache(1)
def third(lab: Lab) -> Masks:
    """Masks without every third entry."""
    return lab.ones().replace({m.name: (torch.arange(m.size) % 3 != 0).reshape(m.shape) for m in lab.maskables})


def noisy(lab: Lab, state: State) -> State:
    """A state made of another one's weights."""
    return lab.derived_state(state, "noise 0.5", lambda weights: weights)


TRAININGS: dict[str, Callable[[Lab], State]] = {
    "dense": lambda lab: lab.train(lab.start("init"), lab.ones()),
    "masked": lambda lab: lab.train(lab.start("init"), third(lab)),
    "until": lambda lab: lab.train(lab.start("init"), third(lab), until=3),
    **{
        f"start {rewind}": lambda lab, rewind=rewind: lab.train(lab.start(rewind), third(lab))
        for rewind in ("reinit", "pretrained", "shuffled_layers", "shuffled_weights", "2it", "1ep", "50%")
    },
    **{
        f"start {rewind}, {schedule}": lambda lab, rewind=rewind, schedule=schedule: lab.train(
            lab.start(rewind), third(lab), schedule
        )
        for rewind in ("init", "2it", "end")
        for schedule in ("whole", "constant", "stretch:7")
    },
    "altered": lambda lab: lab.train(noisy(lab, lab.start("init")), third(lab)),
    "altered 2it": lambda lab: lab.train(noisy(lab, lab.start("2it")), third(lab)),
    "order 1": lambda lab: lab.train(lab.start("init"), third(lab), order=1),
    "order 2": lambda lab: lab.train(lab.start("init"), third(lab), order=2),
    "slim": lambda lab: lab.train(lab.start("init"), third(lab), slim=True),
    "rule": lambda lab: lab.train(lab.start("init"), third(lab), callback=RULES["low_precision"](8)),
    "slim, order 1, rule, constant": lambda lab: lab.train(
        lab.start("2it"), third(lab), "constant", None, RULES["low_precision"](8), 1, True
    ),
}


def trainings(folder: Path) -> dict[str, Any]:
    """The stages of every kind of training of the toy and of every own task's smoke protocol; of the toy for another seed and
    version, too."""
    made = {}
    for task in (TOY, *OWN):
        setting = composed(task, *(["protocol=smoke"] if task == TOY else exact(task, "smoke")))
        with opened(setting) as own:
            for version, seed in ((1, 0), (1, 1), (2, 0)) if task == TOY else ((1, 0),):
                lab = PlanLab(own, setting.name, version, seed, Store(folder), planned={})
                made[f"{setting.name} {version} {seed}"] = {}
                for name, train in TRAININGS.items():
                    lab.planned.clear()
                    with mock.patch.object(own, "pretrained", True):  # for the names of the states that start from such weights
                        train(lab)
                    made[f"{setting.name} {version} {seed}"][name] = planned(lab)
    return made


# Rules

CUT = {"weights": 0.5}
RULE_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "admm": (
        {"density": CUT, "span": 48, "rho": 0.01, "stages": 3, "growth": 10**0.5, "interval": 1},
        {
            "density": {"weights": 0.2, "edges": 0.5},
            "span": 24,
            "rho": 0.5,
            "stages": 2,
            "growth": 2.0,
            "interval": 2,
            "scheme": "erk",
        },
    ),
    "alone": ({"side": "edges"}, {"side": "network"}),
    "early_bird": (
        {
            "densities": [{"weights": 0.5, "edges": 1.0}, {"weights": 0.2, "edges": 0.5}],
            "window": 4,
            "eps": 0.1,
            "normalised": False,
        },
        {
            "densities": [CUT],
            "window": 2,
            "eps": 0.2,
            "normalised": True,
            "stop": "joint",
            "after": 1,
            "scheme": {"weights": "erk"},
            "every": 0.5,
        },
    ),
    "edge_popup": (
        {"densities": CUT, "scheme": "uniform", "lr": 0.1, "optimizer": "sgd", "weight_decay": 1e-4},
        {
            "densities": {"weights": 0.2, "edges": 0.5},
            "scheme": "global",
            "lr": 0.2,
            "optimizer": "adam",
            "weight_decay": 0.0,
            "period": 2,
        },
    ),
    "gem_miner": (
        {"densities": CUT, "lr": 0.1, "optimizer": "sgd", "penalty": 1e-4, "period": None},
        {"densities": {"weights": 0.2}, "lr": 0.2, "optimizer": "adam", "penalty": 0.0, "period": 2},
    ),
    "gradual": (
        {"densities": CUT, "begin": 0.0, "until": 0.75, "interval": None, "scheme": "uniform"},
        {"densities": {"weights": 0.2}, "begin": 0.1, "until": 0.5, "interval": 3, "scheme": "erk"},
    ),
    "l1": ({"strength": 1e-4, "budgets": ["weights"]}, {"strength": 1e-3, "budgets": ["heads", "neurons"]}),
    "low_precision": ({"bits": 8}, {"bits": 4}),
    "movement": (
        {"densities": CUT, "lr": 0.01, "optimizer": "adam", "begin": 0.1, "until": 0.8, "scheme": "uniform"},
        {"densities": {"weights": 0.2}, "lr": 0.02, "optimizer": "sgd", "begin": 0.2, "until": 0.5, "scheme": "global"},
    ),
    "regrow": (
        {"grow": "random", "drop": 0.3, "interval": None, "until": 0.75},
        {"grow": "gradient", "drop": 0.2, "interval": 3, "until": 0.5},
    ),
    "soft_masks": (
        {"lr": 0.008, "weight_decay": 8e-5, "weight_penalty": 1e-2, "edge_penalty": 1e-2},
        {"lr": 0.01, "weight_decay": 0.0, "weight_penalty": 1e-3, "edge_penalty": 1e-6},
    ),
    "soft_movement": (
        {"densities": CUT, "threshold": 0.1, "penalty": 400.0, "lr": 0.01, "optimizer": "adam", "begin": 0.1, "until": 0.8},
        {
            "densities": {"weights": 0.2},
            "threshold": 0.2,
            "penalty": 10.0,
            "lr": 0.02,
            "optimizer": "sgd",
            "begin": 0.2,
            "until": 0.5,
        },
    ),
    "sparsifier": (
        {"density": 0.5, "every": 25, "rho": 1e-3, "penalty": "mean", "nodes": 400},
        {"density": 0.2, "every": 1, "rho": 1e-2, "penalty": "half_sum", "nodes": 300, "directions": 1},
    ),
}
"""What methods give a rule at their defaults, and another value of every parameter."""


def rule_cases() -> Iterator[tuple[str, Rule]]:
    """Every rule as methods make it by default, and with every parameter changed alone."""
    for name, (usual, others) in RULE_CASES.items():
        for changed in ({}, *({key: value} for key, value in others.items())):
            yield " ".join([name, *(f"{k}={v}" for k, v in changed.items())]), RULES[name](**usual | changed)
    alone, bits = RULES["alone"]("edges"), RULES["low_precision"](8)
    yield "together", RULES["together"](alone, bits)
    yield "together in another order", RULES["together"](bits, alone)


def rules(folder: Path) -> dict[str, Any]:
    """Options of every rule, and the key of a training of the toy with it."""
    made = {}
    with opened(composed(TOY)) as task:
        for name, rule in rule_cases():
            lab = PlanLab(task, "toy", 1, 0, Store(folder), planned={})
            lab.train(lab.start("init"), lab.ones(), callback=rule)
            made[name] = {"options": rule.options(), "stages": planned(lab)}
    return made


# Methods

ALTERNATIVES: dict[str, list[Any]] = {
    "after": [1.0, 2],
    "balanced": [False],
    "begin": [0.2],
    "bits": [8],
    "drop": [0.2],
    "edge_penalty": [0.1],
    "eps": [0.2],
    "every": [0.5, 2],
    "floors": [True],
    "growth": [2.0],
    "interval": [2],
    "l1": [1e-3],
    "layers": ["erk"],
    "length": [0.5],
    "lr": [0.05],
    "maker": ["imp"],
    "method": ["one_shot"],
    "mode": ["train"],
    "normalised": [True, False],
    "optimizer": ["adam", "sgd"],
    "options": [{"rate": 0.3}],
    "path": ["linear"],
    "penalty": ["half_sum", 0.01, 10],
    "per_class": [5],
    "period": [2],
    "rate": [0.3],
    "rates": [{"linear": 0.3}],
    "rewind": ["2it", "init"],
    "rho": [0.5],
    "rounds": [3],
    "schedule": ["constant"],
    "scheme": ["uniform", "global"],
    "score": ["random", "grasp"],
    "source": ["points"],
    "stages": [2],
    "stop": ["joint", "each"],
    "temperature": [1.0],
    "threshold": [0.2],
    "through": [[0.9, 0.8]],
    "together": [True],
    "unflag": [False],
    "until": [0.5],
    "watch_weights": [0.5],
    "weight_decay": [0.01],
    "weight_penalty": [0.1],
    "weights": ["reset", "inherit"],
    "window": [2],
}
"""Other values of options of methods: the first that is of the default's type and not it is taken."""
GRAPH, BOTH = [{"edges": 0.8}, {"edges": 0.5}], [{"weights": 0.5, "edges": 0.8}, {"weights": 0.2, "edges": 0.5}]
PLACES: dict[str, tuple[str, list[str], list[dict[str, float]]]] = {
    **dict.fromkeys(("early_bird", "slimming"), ("cnn_cifar", ["model.scope=channels"], [{"channels": 0.5}, {"channels": 0.3}])),
    "early_bert": ("bert_glue", ["model.scope=units"], [{"heads": 0.75, "neurons": 0.5}, {"heads": 0.5, "neurons": 0.2}]),
    **dict.fromkeys(("sgcn", "geb"), ("gcn_planetoid", [], GRAPH)),
    **dict.fromkeys(("gebt", "ugs"), ("gcn_planetoid", [], BOTH)),
}
"""Where methods are tried that say nothing on the toy: task, overrides, densities."""


def method_cases(name: str) -> Iterator[dict[str, Any]]:
    """A method at its defaults, and with every option changed alone."""
    usual = registry.options(registry.method(name)) | ({"source": "more"} if name == "transfer" else {})
    yield usual
    for key, default in usual.items():
        value = next(v for v in ALTERNATIVES[key] if v != default and (default is None or type(v) is type(default)))
        yield usual | ({"weights": "dense_fresh"} if key == "watch_weights" else {}) | {key: value}


def methods(folder: Path) -> dict[str, Any]:
    """Label, folder and record ids of every method and option, and the stages a dry run comes to: dense, search and tickets."""
    made = {}
    with ExitStack() as stack:
        places = {}
        for name in registry.names("methods"):
            where, more, columns = PLACES.get(name, (TOY, [], [{"weights": 0.5}, {"weights": 0.2}]))
            if (where, *more) not in places:
                said = [f"store={folder}", *(["protocol=smoke"] if where == TOY else exact(where, "smoke")), *more]
                setting = composed(where, *said)
                places[where, *more] = setting, stack.enter_context(opened(setting))
            setting, task = places[where, *more]
            for options in method_cases(name):
                asked = GRAPH if options.get("weights") == "dense_fresh" else columns
                lists = {budget: [column[budget] for column in asked] for budget in asked[0]}
                method = {"name": name, **options}
                chosen = replace(setting, config={**setting.config, "method": method, "densities": lists, "controls": []})
                records = recorder(chosen, task, 0, list(asked[0]))
                who = records.identity(records.columns[-1] if records.columns else {}, None)
                made[f"{name} {label(method)}"] = {
                    "folder": record_path(Path(), who, label(method)).parent.as_posix(),
                    "id": identity_id(who),
                    "stages": walked(chosen, task, folder),
                }
    return made


def controls(folder: Path) -> dict[str, Any]:
    """The stages of every control on tickets of several origins, its records' ids, and the name of its start."""
    made = {}
    with opened(composed(TOY, "protocol=smoke", f"store={folder}")) as task:
        task.pretrained = True
        setting = composed(TOY, "protocol=smoke", f"store={folder}")
        for name, changed in (
            ("imp", {}),
            ("imp", {"rewind": "2it"}),
            ("imp", {"rewind": "end", "schedule": "whole"}),
            ("random_ticket", {}),
            ("synflow", {}),
            ("movement", {}),
            ("edge_popup", {}),
            ("set", {}),
        ):
            method = {"name": name, **registry.options(registry.method(name)), **changed}
            for control in CONTROLS:
                chosen = replace(setting, config={**setting.config, "method": method, "densities": [0.5], "controls": [control]})
                records = recorder(chosen, task, 0, ["weights"])
                made[f"{label(method)} {control}"] = {
                    "id": identity_id(records.identity(records.columns[-1], control)),
                    "stages": walked(chosen, task, folder),
                }
    return made


# Records


@cache
def committed() -> list[Record | AnalysisRecord]:
    """Every committed record, read and validated."""
    return [*read_records(RECORDS), *read_analyses(RECORDS)]


def records(folder: Path) -> dict[str, Any]:
    """How many records every setting has, and a sum over their paths, ids and digests."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for record in committed():
        path = record.path(RECORDS).relative_to(RECORDS)
        found.setdefault("/".join(path.parts[:2]), []).append((path.as_posix(), record.id, record.digest))
    whole = sorted(itertools.chain(*found.values()))
    return {"all": [len(whole), digest(whole)], **{place: [len(mine), digest(sorted(mine))] for place, mine in found.items()}}


class StandIn(Task):
    """A task that a record tells of: its configuration, its data's fingerprint and the length of its dense training."""

    metric = Metric("accuracy")
    fingerprint = ""

    def __init__(self, identity: Any, steps: int):
        super().__init__(identity.config, torch.device("cpu"))
        self.fingerprint, self._steps = identity.fingerprint, steps

    @property
    def steps_per_epoch(self) -> int:
        return 1

    @property
    def epochs(self) -> int:
        return self._steps

    def identity(self) -> dict[str, Any]:
        return dict(self.config)

    def build(self, seed: int) -> nn.Module:
        return nn.Linear(1, 1)

    def maskables(self, model: nn.Module) -> list[Maskable]:
        return [Maskable("weight", (1, 1), "linear")]

    def macs(self, model: nn.Module, density: Any) -> float:
        return 1.0

    batches = loss = evaluate = optimizer = None


# What training makes

DRAWN = {
    **{task: exact(task, "smoke") for task in OWN},
    "gcn_ogb, sampled": exact("gcn_ogb", "smoke", "train.neighbours=[3,2]", "train.batch_size=50"),
    "gcn_ogb, sampled links": exact("gcn_ogb", "smoke", "data=generated_links", "train.neighbours=[3,2]", "train.batch_size=50"),
    TOY: ["protocol=smoke"],
}


def drawn(folder: Path) -> dict[str, Any]:
    """What seeds alone decide: seeds of purposes, the signs of initial weights, and the first batches of two epochs, of whose
    numbers that are not whole again the signs count: no processor gets one wrong."""

    def signs(tensors: Any) -> str:
        return digest([digest(t.detach() > 0 if t.is_floating_point() else t) for t in tensors])

    made: dict[str, Any] = {"seeds": [seed_for(0, "init"), seed_for(1, "data", 3), seed_for(0, "rule x", "y", 2)]}
    for place, said in DRAWN.items():
        setting = composed(place.partition(",")[0], *said)
        with opened(setting) as task:
            weights = {
                kind: signs(make(seed_for(0, kind)).parameters())
                for kind, make in (("init", task.build), ("reinit", task.reinit))
            }
            batches = []
            for epoch in (0, 1):
                batch = next(iter(task.batches("train", epoch, 0)))
                parts = [*batch.values()] if isinstance(batch, dict) else batch
                flat = [t for part in parts if part is not None for t in ([part] if torch.is_tensor(part) else part)]
                # how an image file is decoded is another library's
                batches.append(signs(flat[1:] if setting.name == "cnn_imagenet" else flat))
            made[place.replace(TOY, "toy")] = {**weights, "batches": batches}
    return made


def losses(folder: Path) -> dict[str, float]:
    """Validation losses of the toy after real trainings: to three digits they are the same on every processor, while another
    draw of order, dropout or weights shows."""
    made = {}
    task = open_task(composed(TOY, "protocol=smoke"))
    for name in ("dense", "masked", "start reinit", "start 2it, constant", "start end, whole", "order 1", "slim"):
        lab = Lab(task, "toy", 1, 0, Store(folder))
        made[name] = lab.evaluate(TRAININGS[name](lab), "val")["loss"]
    return made


FREE = ("random_ticket", "dense")
"""Methods whose masks no trained weight decides."""
GOLDEN = {
    "toy": (TOY, ["protocol=smoke"], ["imp", "random_ticket", "set", "movement"], ["random", "shuffle", "dense_as_long"]),
    "cnn_cifar": ("cnn_cifar", exact("cnn_cifar", "smoke", "train.epochs=1", "densities=[0.5]"), ["random_ticket"], ["shuffle"]),
    "gcn_planetoid": ("gcn_planetoid", exact("gcn_planetoid", "smoke"), ["imp", "random_ticket"], ["random"]),
    "tour_flickr": ("tour_flickr", exact("tour_flickr", "smoke"), ["imp", "random_ticket"], ["random"]),
}


def golden(folder: Path) -> dict[str, Any]:
    """Short runs: of every record what does not depend on the last bit of a number, which differs between processors."""
    made: dict[str, Any] = {}
    for place, (task, said, names, chosen) in GOLDEN.items():
        for name in names:
            setting = composed(
                task,
                *said,
                f"method={name}",
                f"store={folder / place}",
                f"runs={folder / 'runs'}",
                "threads=1",
                f"controls=[{','.join(chosen)}]",
            )
            with opened(setting):
                outcome = run_job(Job(setting, 0))
            assert outcome.error is None, outcome.error
            for record in outcome.records:
                who = record.identity
                made[f"{place} {record.label} {who.densities} {who.control}"] = content(record)
    return made


def content(record: Record) -> dict[str, Any]:
    """A record without its numbers; without masks and stages where trained weights decide them."""
    whole, who = record.content(), record.identity
    made = {key: whole[key] for key in ("id", "status", "reason", "label", "budgets", "collapsed")}
    if record.status != "ok":
        return made
    ticket, cost = whole["ticket"], whole["cost"]
    made |= {
        "metric": record.result.metric,
        "step": record.result.step,
        "schedule": ticket["schedule"],
        "stages": [stage.partition("/")[2] for stage in ticket["stages"]],
        "notes": sorted(ticket["notes"]),
        **{key: cost[key] for key in ("search_steps", "train_steps", "inference_macs_dense")},
    }
    if who.method in FREE or who.control == "random":
        made["masks"] = ticket["masks"]
    if who.method in FREE:
        made |= {"start": ticket["start"], "stages": ticket["stages"]}
    return made


PINS = {pin.__name__: pin for pin in (configs, trainings, rules, methods, controls, records, drawn, losses, golden)}


def text(value: Any) -> str:
    """Equal values, equal text."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("name", PINS)
def test_pinned(name, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    wanted = json.loads((HERE / "identity" / f"{name}.json").read_text(encoding="utf-8"))
    made = PINS[name](tmp_path)
    texts = [(key, text(wanted.get(key)), text(made.get(key))) for key in {**wanted, **made}]  # 1 is not 1.0 there, nor true
    changed = [
        f"{key}\n  pinned {before}\n  now    {now}"
        for key, before, now in texts
        if before != now
        and not (name == "losses" and made.keys() == wanted.keys() and made[key] == pytest.approx(wanted[key], rel=1e-3))
    ]
    assert not changed, f"{len(changed)} of {len(wanted)} changed, such as\n" + "\n".join(changed[:5])


def test_every_rule_and_every_parameter_is_pinned():
    assert CLASSES.keys() == {*NAMES.values()} | ABSTRACT
    assert RULE_CASES.keys() | {"together"} == NAMES.keys()
    for name, (_, others) in RULE_CASES.items():
        assert others.keys() == inspect.signature(RULES[name]).parameters.keys()


def test_no_two_rules_share_a_key():
    pinned = json.loads((HERE / "identity" / "rules.json").read_text(encoding="utf-8"))
    assert len({tuple(case["stages"]) for case in pinned.values()}) == len(pinned)


def test_every_record_lies_where_its_identity_says():
    for record in committed():
        path = record.path(RECORDS)
        assert path.is_file()
        assert path.name.partition(".")[0] == record.id == identity_id(record.identity)
    assert len({record.path(RECORDS) for record in committed()}) == len(list(RECORDS.rglob("*.json")))


def test_records_name_the_stages_they_would_be_made_of_today(tmp_path):
    """The key of the last training of every ticket, made anew of what its record says of task, data, masks and start."""
    found = [record for record in committed() if isinstance(record, Record) and record.status == "ok"]
    lengths = {(str(r.identity.config), r.identity.fingerprint): r.result.step for r in found if r.identity.method == "dense"}
    labs: dict[tuple, PlanLab] = {}
    for record in found:
        who, ticket = record.identity, record.ticket
        place = str(who.config), who.fingerprint
        if (*place, who.seed) not in labs:
            labs[*place, who.seed] = PlanLab(
                StandIn(who, lengths[place]), who.task, who.task_version, who.seed, Store(tmp_path), planned={}
            )
        lab, (training, _, step) = labs[*place, who.seed], ticket.start.rpartition("/")
        masks = SimpleNamespace(digest=lambda ticket=ticket: ticket.masks, densities=dict)
        end = lab.train(State(training, int(step)), masks, ticket.schedule, slim=who.control == "slim")
        assert ticket.stages[-1].partition("/")[0] == end.training, record.label


OUTDATED = ("early_bird(l1=0.0001)", "early_bird(l1=0.0001, every=0.05)")
"""Labels of records whose command gives another id today: made when ``after`` was 0 and not 0.0, or there was no ``every``."""


def test_commands_of_records_give_their_ids():
    """One record of every method and analysis of every task, and of every control."""
    chosen: dict[Any, Record | AnalysisRecord] = {}
    for record in committed():
        who = record.identity
        if record.label not in OUTDATED:
            chosen.setdefault((who.task, who.analysis if isinstance(record, AnalysisRecord) else who.method), record)
            chosen.setdefault(getattr(who, "control", None), record)
    assert len(chosen) > 12
    for what, record in chosen.items():
        assert of_command(record) == record.id, what


if __name__ == "__main__":
    torch.set_num_threads(1)
    for pin in sys.argv[1:] or PINS:
        with tempfile.TemporaryDirectory() as scratch, mock.patch.dict("os.environ", BENCH_CACHE=f"{scratch}/cache"):
            lines = [f" {text(key)}: {text(value)}" for key, value in PINS[pin](Path(scratch)).items()]
        (HERE / "identity" / f"{pin}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="\n")
