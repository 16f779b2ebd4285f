"""Stage keys: the list of everything that a stored training depends on, and its hash.

Two trainings with equal keys are one training, which is stored once. What a task adds to the list is ``Task.identity``; what a
callback adds is ``Callback.options``.
"""

from collections.abc import Mapping
from typing import Any

from bench.storage.files import canonical, text_sum
from bench.task import Task
from pruning import Masks
from pruning.callbacks.base import Callback
from pruning.hashed_options import without_defaults
from pruning.ticket import State

STORE_VERSION = 1
"""Part of every key: raise it when the training loop's numbers change."""


def task_ingredients(task: Task, name: str, version: int, seed: int) -> dict[str, Any]:
    """Return what all trainings of one task and seed depend on."""
    return {"task": name, "version": version, "config": task.identity(), "data": task.fingerprint, "seed": seed}


def training_ingredients(
    shared: Mapping[str, Any],
    start: State,
    masks: Masks,
    first: int,
    total: int,
    schedule: str,
    callback: Callback | None,
    order: int,
    slim: bool,
    pattern: str | None,
) -> dict[str, Any]:
    """Return everything that one training depends on: ``shared``, see ``task_ingredients``, and its own choices.

    ``first`` is the step at which the training enters its schedule of ``total`` steps; see ``Training.train`` for the others.
    ``pattern`` is that of the lab's masks, on which a training depends whose callback moves them.
    """
    later = {
        "rule": callback.options() if callback else None,
        "order": order,
        "slim": slim,
        "pattern": pattern if callback else None,
    }
    return {
        **shared,
        "start": start.key,
        "masks": masks.digest(),
        "first": first,
        "total": total,
        "schedule": "constant" if schedule == "constant" else "task",
        **without_defaults(later, dict.fromkeys(later) | {"order": 0, "slim": False}),
    }


def stage_key(ingredients: Mapping[str, Any]) -> str:
    """Return the first 20 hex digits of the sha256 of the ingredients, as canonical JSON, and of ``STORE_VERSION``."""
    return text_sum(canonical({"store": STORE_VERSION, **ingredients}))[:20]
