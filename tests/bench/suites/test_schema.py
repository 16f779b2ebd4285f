"""Suites as files: what is refused, and that those of this repository are what they say."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from bench.errors import UsageError
from bench.suites import entry, schema

ROOT = Path(__file__).parents[3] / "leaderboards"
EVENT = {
    "name": "cora",
    "domain": "graphs",
    "task": "tasks/gcn_planetoid",
    "data": "cora",
    "model": "gcn",
    "protocol": "desk",
    "config": "0123abcd",
    "densities": [0.1, 0.0316],
    "seeds": 3,
    "chance": 30.0,
}


def written(folder, **suite):
    """The path of a suite's file."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "version": 1, "about": "Mine.", "events": [EVENT], **suite}))
    return path


@pytest.mark.parametrize("density", [1, 0.8, 0.79, 0.794, 0.63, 0.6, 0.5, 0.32, 0.3, 0.25, 0.2, 0.1, 0.05, 0.0316, 0.01, 0.00316])
def test_densities_of_the_grid(density):
    assert schema.on_grid(density)


@pytest.mark.parametrize("density", [0, 1.1, 0.9, 0.7, 0.64, 0.107, 0.55, 0.014])
def test_densities_between(density):
    assert not schema.on_grid(density)
    assert schema.on_grid(schema.nearest(density)) or density > 1


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"densities": [0.1, 0.07]}, r"density 0.07 is not on the grid 10 \*\* \(-k / 10\); the nearest that is: 0.0631"),
        ({"densities": [0.01, 0.1]}, "must fall"),
        ({"densities": [float("nan")]}, "finite"),
        ({"task": "tasks/gcn_planetiod"}, "event cora: unknown task 'tasks/gcn_planetiod'; did you mean tasks/gcn_planetoid"),
        ({"data": "cara"}, "event cora: unknown data 'cara'; did you mean cora"),
        ({"protocol": "dask"}, "event cora: unknown protocol 'dask'; did you mean desk"),
        ({"seeds": 2}, "events.0.seeds"),
        ({"budgets": ["edges", "edges"]}, "a budget stands twice"),
        ({"config": "zzz"}, "events.0.config"),
        ({"colour": "red"}, "events.0.colour: Extra inputs are not permitted"),
    ],
)
def test_a_bad_event_is_one_line_that_names_the_file(tmp_path, event, message):
    with pytest.raises(UsageError, match=message) as error:
        schema.read(written(tmp_path, events=[{**EVENT, **event}]))
    assert str(tmp_path / "mine.yaml") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ({"events": []}, "events"),
        ({"events": [EVENT, EVENT]}, "two events have the name cora"),
        ({"name": "other"}, "name the file other.yaml"),
        ({"controls": ["reinit"]}, "controls must hold random"),
        ({"controls": ["random", "randm"]}, "unknown control 'randm'; did you mean random"),
        ({"version": 0}, "version"),
    ],
)
def test_a_bad_suite_is_one_line_that_names_the_file(tmp_path, suite, message):
    with pytest.raises(UsageError, match=message) as error:
        schema.read(written(tmp_path, **suite))
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_yaml_is_one_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("events: [")
    with pytest.raises(UsageError, match=r"mine\.yaml is not readable YAML"):
        schema.read(tmp_path / "mine.yaml")


def test_unknown_suites_and_events_are_named(tmp_path):
    with pytest.raises(UsageError, match="unknown suite 'weight'; did you mean weights"):
        schema.named(ROOT, "weight")
    with pytest.raises(UsageError, match="unknown event of suite weights 'lanet'; did you mean lenet"):
        schema.named(ROOT, "weights").event("lanet")


@pytest.mark.parametrize("suite", schema.read_all(ROOT), ids=lambda suite: suite.name)
def test_events_of_this_repository_are_what_their_commands_make(suite, mirror, monkeypatch):
    """Configurations, budgets and chance, from the data themselves."""
    models = Path(os.environ.get("BENCH_MODELS") or mirror.parent / "models")
    if not models.is_dir():
        pytest.skip("no pre-trained models: set BENCH_MODELS")
    monkeypatch.setenv("BENCH_DATA", str(mirror))
    monkeypatch.setenv("BENCH_MODELS", str(models))
    for event in suite.events:
        setting = entry.settings(suite, event, ["method=imp", "device=cpu"])[0]
        entry.check(suite, event, setting)
        task = entry.open_task(setting)
        assert set(event.budgets) <= {m.budget for m in task.maskables(task.build(0))}
        assert best_constant(task) == pytest.approx(event.chance)


def best_constant(task):
    """The test metric of the best constant answer, from the labels of the test split."""
    if task.metric.name in ("pearson", "spearman", "matthews"):
        return 0.0  # a constant correlates with nothing
    assert task.metric.name == "accuracy"
    if hasattr(task, "_data"):  # a graph: its test nodes
        labels = task._data.labels[task._data.splits["test"]]
    else:
        labels = torch.cat([batch[1] for batch in task.batches("test", 0, 0)]).numpy()
    return 100 * np.bincount(labels).max() / len(labels)
