"""Migrations: a record of an older schema is read as a record of the current one.

``MIGRATIONS`` has a function for each schema that is no longer written: it takes the JSON object of a record of that schema and
returns that of the next. Whoever changes the fields of a record raises ``SCHEMA``, adds a function, and freezes a record of the
schema before the change in ``tests/bench/storage/schemas/``.
"""

import shlex
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from bench.storage.files import canonical, text_sum

SCHEMA = 2
"""The schema of the records that are written now."""
DAMAGED = "it was edited or damaged: delete it and run its command again"


def migrated(raw: Any) -> Any:
    """Return a record of any schema up to the current one as one of the current. ValueError for any other, and for a record of an
    older schema whose id or digest does not match its content."""
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(version) is int and version > SCHEMA:
        raise ValueError(
            f"was made by a newer Ticket Bench (schema version {version!s:.20}, this is version {SCHEMA}): update to read it"
        )
    if type(version) is not int or version < 1:
        raise ValueError(f"has schema version {version!r:.40}, which was never in use; {DAMAGED}")
    try:
        for old in range(version, SCHEMA):
            raw = MIGRATIONS[old](raw)
    except (KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(
            f"is not a valid record of schema version {version}: {' '.join(str(error).split())}; {DAMAGED}"
        ) from None
    return raw


def add_rounds(old: Mapping[str, Any]) -> dict[str, Any]:
    """Migrate schema 1 to 2, in which an identity names the densities that were requested before its own.

    They matter to ``imp`` and ``ugs``, whose tickets depend on them. Schema 1 has them in the record's command alone; where that
    gives none, they were a default of the time, and a note of the ticket says that they are unknown. The first records of schema
    1 had no digest.
    """
    _check_seal(old)
    result = {"untrained_val": None, "untrained_test": None, **old["result"]} if old["result"] else None
    cost = {"search_at_sparse_rate": None, "train_at_sparse_rate": None, **old["cost"]} if old["cost"] else None
    identity, ticket = {**old["identity"], "rounds": []}, old["ticket"]
    if identity["method"] in ("imp", "ugs"):
        columns = _columns(old["command"])
        if identity["densities"] in columns:
            identity["rounds"] = columns[: columns.index(identity["densities"])]
        elif ticket:
            notes = {**ticket["notes"], "rounds": "unknown: schema 1 did not record the densities requested before"}
            ticket = {**ticket, "notes": notes}
    return _sealed({**old, "schema_version": 2, "identity": identity, "result": result, "cost": cost, "ticket": ticket})


MIGRATIONS: dict[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = {1: add_rounds}
"""Schema -> the function that turns a record of it into one of the next schema."""


def _columns(command: str) -> list[dict[str, float]]:
    """Return the densities that a command of schema 1 requests, one dict from budget to density for each column, falling."""
    asked: dict[str, Any] = {}
    for word in shlex.split(command):
        key, _, value = word.partition("=")
        if key == "densities" or key.startswith("densities."):
            asked[key.removeprefix("densities").removeprefix(".") or "weights"] = yaml.safe_load(value)
    lists = {budget: value if isinstance(value, list) else [value] for budget, value in asked.items() if value is not None}
    length = max(map(len, lists.values()), default=0)
    columns = [{budget: values[min(i, len(values) - 1)] for budget, values in lists.items()} for i in range(length)]
    return sorted(columns, key=lambda column: list(column.values()), reverse=True)


def _check_seal(raw: Mapping[str, Any]) -> None:
    if raw["id"] != text_sum(canonical(raw["identity"]))[:16]:
        raise ValueError(f"is not a valid record: its id is not that of the identity block; {DAMAGED}")
    if "digest" in raw and raw["digest"] != _digest(raw):
        raise ValueError(f"is not a valid record: the digest is not that of the record; {DAMAGED}")


def _sealed(raw: Mapping[str, Any]) -> dict[str, Any]:
    record = {**raw, "id": text_sum(canonical(raw["identity"]))[:16]}
    return {**record, "digest": _digest(record)}


def _digest(raw: Mapping[str, Any]) -> str:
    return text_sum(canonical({key: value for key, value in raw.items() if key != "digest"}))
