"""A columnar copy of a folder's records, so that tables need not read and check thousands of files each time.

The copy is one file in the folder, ``NAME``: a checksum, then JSON with a list for every field of the records (equal values are
stored once) and with the time and size of every file. A file that changed, came or went is noticed by these, and it alone is read
again. A copy that is damaged, or of another version of the records, is made again. It is never committed: whoever clones the
repository reads and checks every record once.
"""

import gc
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from bench.storage.cost import Cost
from bench.storage.files import canonical, text_sum, write_atomic
from bench.storage.migrations import SCHEMA
from bench.storage.records import ANALYSIS, BudgetUse, Identity, Record, Result, TicketOrigin, read_record
from bench.storage.strict_model import Strict

NAME = ".cache"
FEWEST = 200
"""Folders of fewer records are read as they are."""
PARTS: Mapping[str, type[Strict]] = {"identity": Identity, "result": Result, "ticket": TicketOrigin, "cost": Cost}
"""The sections of a record that have a column for each of their fields."""
WHOLE = [name for name in Record.model_fields if name not in (*PARTS, "tensors")]
"""The fields of a record that are a column themselves."""
VERSION = text_sum(canonical([1, SCHEMA, WHOLE, {name: list(kind.model_fields) for name, kind in PARTS.items()}]))
Columns = dict[str, list[Any]]
Made = TypeVar("Made", bound=Strict)
Stamp = list[int]
"""The time of a file's last change, in nanoseconds, and its size, in bytes."""


@contextmanager
def without_collection() -> Iterator[None]:
    """Make many objects that live on, without being searched for garbage again and again. It is a decorator, too."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@without_collection()
def load_records(root: Path) -> list[Record]:
    """Return all records below ``root`` in the order of their paths, as ``read_records`` yields them, but without ``tensors``.
    Values that are equal in several records are one object: nothing in them may be changed."""
    stamps = dict(_stamps(root))
    if len(stamps) < FEWEST:
        return [read_record(root / path) for path in _in_order(stamps)]
    columns, before = _read(root / NAME)
    if before != stamps:
        stamps = _in_order(stamps)
        columns = _updated(root, columns, before, stamps)
        with suppress(OSError):  # a folder that cannot be written to has no copy
            _write(root / NAME, columns, stamps)
    return _records(columns)


def _stamps(root: Path) -> Iterator[tuple[str, Stamp]]:
    """Yield the path below ``root`` and the stamp of every record's file."""
    folders = [""]
    while folders:
        folder = folders.pop()
        with suppress(FileNotFoundError), os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}{os.sep}{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.name.endswith(".json") and not entry.name.endswith(ANALYSIS):
                    with suppress(FileNotFoundError):  # it was there a moment ago
                        state = entry.stat()
                        yield path, [state.st_mtime_ns, state.st_size]


def _in_order(stamps: Mapping[str, Stamp]) -> dict[str, Stamp]:
    """The stamps in the order of their paths."""
    return dict(sorted(stamps.items(), key=lambda item: item[0].split(os.sep)))


def _updated(root: Path, columns: Columns, before: Mapping[str, Stamp], stamps: Mapping[str, Stamp]) -> Columns:
    """Return the columns of the files there are now; those that changed are read."""
    at = {path: i for i, path in enumerate(before)}
    kept = {path: at[path] for path, stamp in stamps.items() if before.get(path) == stamp}
    read = {path: _row(read_record(root / path)) for path in stamps if path not in kept}
    return {
        name: [columns[name][kept[path]] if path in kept else read[path][name] for path in stamps]
        for name in (*WHOLE, *PARTS, *(f"{part}.{field}" for part, kind in PARTS.items() for field in kind.model_fields))
    }


def _row(record: Record) -> dict[str, Any]:
    """Return the values of a record's columns; of a section that it lacks, None."""
    row = record.model_dump(include=set(WHOLE))
    for part, kind in PARTS.items():
        section = getattr(record, part)
        values = {} if section is None else section.model_dump()
        row |= {part: section is not None, **{f"{part}.{field}": values.get(field) for field in kind.model_fields}}
    return row


def _records(columns: Columns) -> list[Record]:
    """Return the records of columns that were checked before."""
    budgets: dict[int, dict[str, BudgetUse]] = {}
    for value in columns["budgets"]:
        if id(value) not in budgets:
            budgets[id(value)] = {name: BudgetUse.model_construct(**kept) for name, kept in value.items()}
    fields = {name: columns[name] for name in WHOLE}
    fields["budgets"] = [budgets[id(value)] for value in fields["budgets"]]
    for part, kind in PARTS.items():
        there, made = columns[part], _made(kind, {name: columns[f"{part}.{name}"] for name in kind.model_fields})
        fields[part] = [section if is_there else None for is_there, section in zip(there, made, strict=True)]
    return list(_made(Record, {**fields, "tensors": [{} for _ in fields["id"]]}))


def _made(kind: type[Made], fields: Mapping[str, Sequence[Any]]) -> Iterator[Made]:
    """Yield models of values that were checked before, as ``model_construct`` does, at a fifth of its time."""
    names, put, everything = list(fields), object.__setattr__, set(fields)
    for values in zip(*fields.values(), strict=True):
        made = kind.__new__(kind)
        put(made, "__dict__", dict(zip(names, values, strict=True)))
        put(made, "__pydantic_fields_set__", everything)
        put(made, "__pydantic_extra__", None)
        put(made, "__pydantic_private__", None)
        yield made


def _read(path: Path) -> tuple[Columns, dict[str, Stamp]]:
    """Return the columns of a copy, and the stamps of its files; nothing if there is no sound one of this version."""
    with suppress(OSError, ValueError):
        checksum, _, text = path.read_text(encoding="utf-8").partition("\n")
        if checksum == text_sum(VERSION + text):
            found = json.loads(text)
            return {name: _decoded(column) for name, column in found["columns"].items()}, found["stamps"]
    return {}, {}


def _write(path: Path, columns: Columns, stamps: Mapping[str, Stamp]) -> None:
    text = json.dumps({"stamps": stamps, "columns": {name: _encoded(column) for name, column in columns.items()}})
    write_atomic(path, f"{text_sum(VERSION + text)}\n{text}")


def _encoded(column: list[Any]) -> list[Any] | dict[str, list[Any]]:
    """Return a column as it is, or, where that is shorter, its different values and the position of each row's value."""
    index: dict[str, int] = {}
    values: list[Any] = []
    positions = []
    for value in column:
        text = json.dumps(value)
        if text not in index:
            index[text] = len(values)
            values.append(value)
        positions.append(index[text])
    return {"values": values, "positions": positions} if 2 * len(values) <= len(column) else column


def _decoded(column: list[Any] | dict[str, list[Any]]) -> list[Any]:
    if isinstance(column, list):
        return column
    values = column["values"]
    return [values[i] for i in column["positions"]]
