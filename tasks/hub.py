"""Files in the hub's layout, read from a folder of the user, the hub's cache, or a download."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import re
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from bench.task import BenchError, first_line

if TYPE_CHECKING:
    from pyarrow import Table

TIMEOUT = 5.0
"""Seconds to wait for the hub's first answer."""
DOWNLOAD_TIMEOUT = 30
"""Seconds that a file may keep us waiting."""


def mirror(root: str | None, variable: str = "BENCH_DATA") -> Path | None:
    """Return the user's own folder of repositories: the config's ``root``, or the environment variable."""
    root = root or os.environ.get(variable)
    return Path(root).expanduser() if root else None


def dataset(repository: str, part: str, splits: Iterable[str], root: str | None, title: str = "") -> Path:
    """Return the folder ``part`` of data set ``repository``, with the files of ``splits`` in it.

    It is looked for below ``root`` or $BENCH_DATA, and only there if one of them is set; else in the hub's cache; else
    downloaded. BenchError if it is not found. Below a root, the folder of the repository may lack its owner's name, or be the
    root itself; the folder of the part may bear its ``title``, or be that of the repository.
    """
    own = mirror(root)
    if own is None:
        remedy = f"set data.root or $BENCH_DATA to a folder with {repository}/{part}/*.parquet in it"
        needed = [f"{part}/{split}-*.parquet" for split in splits]
        return snapshot(repository, "dataset", [f"{part}/*.parquet"], needed, remedy) / part
    bases = (own / repository, own / Path(repository).name, own)
    places = [base / name for base in bases for name in (part, title, "") if name or base != own]
    for folder in places:
        if any(files(folder, split) for split in splits):
            return folder
    if not places[0].is_dir():
        raise BenchError(
            f"no data set at {places[0]}: put the files of https://huggingface.co/datasets/{repository} "
            "there, or unset data.root and $BENCH_DATA to have them downloaded"
        )
    return places[0]


def snapshot(name: str, kind: str, patterns: list[str], needed: list[str], remedy: str) -> Path:
    """Return the folder of hub repository ``name`` (``kind``: dataset or model) with the files of ``patterns``. Of each pattern
    of ``needed`` at least one file must be there; ``remedy`` says what to do other than going online. BenchError within seconds
    where the hub cannot be reached."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import disable_progress_bars, get_session

    disable_progress_bars()
    reason = "not found"
    for local in (True, False):
        try:
            if not local:  # the client itself waits for ever where a network drops packets
                get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
            folder = Path(snapshot_download(name, repo_type=kind, allow_patterns=patterns, local_files_only=local))
        except Exception as error:  # the client raises many types, from OSError to its own: the file is not available
            reason = first_line(error)
            continue
        missing = [pattern for pattern in needed if not any(folder.glob(pattern))]
        if not missing:
            return folder
        reason = f"it has no {', '.join(missing)}"
    raise BenchError(
        f"{kind} {name} ({', '.join(patterns)}) is not in the hub's cache, and the hub did not give it "
        f"({reason}); go online once, or {remedy}"
    )


def download(url: str, path: Path, sha256: str | None = None) -> None:
    """Download a file unless it is there; it gets its name only when it is complete. OSError where it cannot be had, BenchError
    where its content has not this ``sha256``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.is_file() and sha256 in (None, hashlib.sha256(path.read_bytes()).hexdigest()):
            return
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as answer:
            content = answer.read()
        if sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise BenchError(f"{url} is not the file that this task knows (its sha256 differs): set data.root")
        partial = path.with_name(f"{path.name}.partial")
        partial.write_bytes(content)
        partial.replace(path)


def files(folder: Path, split: str) -> list[Path]:
    """Return the files of a split in ``folder``, in order. They are ``train-00000-of-00001.parquet`` as the hub has them,
    ``train.parquet`` or ``train/0000.parquet``, or the same as .jsonl, .csv, .tsv; a validation split may be called ``dev``,
    ``valid`` or ``val``. BenchError where one of several is missing."""
    for word, ending in itertools.product(("validation", "dev", "valid", "val"), ("parquet", "jsonl", "csv", "tsv")):
        name = split.replace("validation", word)
        for pattern in (f"{name}-*.{ending}", f"{name}.{ending}", f"{name}/*.{ending}"):
            if found := sorted(folder.glob(pattern)):
                whole = re.search(r"-of-(\d+)\.", found[0].name)
                if whole and len(found) != int(whole[1]):
                    raise BenchError(f"{split} in {folder} has {len(found)} of its {int(whole[1])} files: fetch the others too")
                return found
    return []


def read(
    folder: Path,
    split: str,
    columns: Iterable[str],
    also: Mapping[str, tuple[str, ...]] | None = None,
    header: tuple[str, ...] = (),
) -> Table:
    """Return the ``columns`` of a split in ``folder``, one file after the other. A column may have another name of ``also``, and
    tab-separated values without names are in the order of ``header``. BenchError where there is no such file or column, or where
    one cannot be read."""
    import pyarrow

    # not datasets.load_dataset: its own cache may answer, with what another folder held
    found = files(folder, split)
    if not found:
        raise BenchError(f"no {split}-*.parquet in {folder}, nor {split}.parquet, .jsonl, .csv or .tsv: fetch that folder again")
    names = {column: (column, *(also or {}).get(column, ())) for column in columns}
    try:
        tables = [_table(file, names.values(), header) for file in found]
        return pyarrow.concat_tables([_chosen(table, names) for table in tables])
    except (OSError, KeyError, ValueError, AttributeError, IndexError, csv.Error, pyarrow.ArrowException) as error:
        raise BenchError(
            f"{split} in {folder} cannot be read with columns {', '.join(names)} ({first_line(error)}): fetch that folder again"
        ) from None


def _chosen(table: Table, names: Mapping[str, tuple[str, ...]]) -> Table:
    """Return the columns under the keys of ``names``, whichever of its names each has. KeyError where one is missing."""
    own = [next((name for name in known if name in table.column_names), None) for known in names.values()]
    if None in own:
        raise KeyError(f"its columns are {', '.join(table.column_names)}")
    return table.select(own).rename_columns(list(names)).replace_schema_metadata(table.schema.metadata)


def _table(file: Path, wanted: Iterable[tuple[str, ...]], header: tuple[str, ...]) -> Table:
    """Return all rows of one file. Tab-separated values have no quotes, and a row that is too short is left out, as the hub
    does."""
    import pyarrow
    from pyarrow import parquet

    if file.suffix == ".parquet":
        return parquet.read_table(file, partitioning=None)  # a folder "x=7" adds no column x
    with file.open(encoding="utf-8-sig", newline="") as stream:
        if file.suffix == ".jsonl":
            return pyarrow.Table.from_pylist([json.loads(line) for line in stream if line.strip()])
        rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE) if file.suffix == ".tsv" else csv.reader(stream))
    named = not header or any(set(known) & set(rows[0]) for known in wanted)
    names = rows.pop(0) if named else header
    whole = [row[: len(names)] for row in rows if len(row) >= len(names)]
    return pyarrow.table({name: [row[i] for row in whole] for i, name in enumerate(names)})
