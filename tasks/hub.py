"""Files of the hub's layout, read from a folder of the user's, the hub's cache, or a download."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.task import BenchError

if TYPE_CHECKING:
    from pyarrow import Table

TIMEOUT = 5.0
"""Seconds to wait for the hub's first answer."""


def first_line(error: Exception) -> str:
    """What an error says, at most 120 characters of it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def mirror(root: str | None, variable: str = "BENCH_DATA") -> Path | None:
    """The user's own folder of repositories: the config's ``root``, or the environment variable."""
    root = root or os.environ.get(variable)
    return Path(root).expanduser() if root else None


def dataset(repository: str, part: str, splits: Iterable[str], root: str | None) -> Path:
    """The folder ``part`` of data set ``repository``, with ``<split>-*.parquet`` in it: below ``root`` or $BENCH_DATA,
    and only there if one of them is set; else in the hub's cache; else downloaded. Raises BenchError if it is not."""
    own = mirror(root)
    if own is None:
        remedy = f"set data.root or $BENCH_DATA to a folder with {repository}/{part}/*.parquet in it"
        needed = [f"{part}/{split}-*.parquet" for split in splits]
        return snapshot(repository, "dataset", [f"{part}/*.parquet"], needed, remedy) / part
    folder = own / repository / part
    if not folder.is_dir():
        raise BenchError(f"no data set at {folder}: put the files of https://huggingface.co/datasets/{repository} "
                         "there, or unset data.root and $BENCH_DATA to have them downloaded")
    return folder


def snapshot(name: str, kind: str, patterns: list[str], needed: list[str], remedy: str) -> Path:
    """The folder of hub repository ``name`` (``kind``: dataset or model) with the files of ``patterns``.

    Of each pattern of ``needed`` at least one file must be there; ``remedy`` is what to do other than going online.
    Raises BenchError within seconds where the hub cannot be reached.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import disable_progress_bars, get_session

    disable_progress_bars()
    reason = "not found"
    for local in (True, False):
        try:
            if not local:  # the client itself waits without end for a network that swallows packets
                get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
            folder = Path(snapshot_download(name, repo_type=kind, allow_patterns=patterns, local_files_only=local))
        except Exception as error:  # the client raises many types, from OSError to its own; each means: not to be had
            reason = first_line(error)
            continue
        missing = [pattern for pattern in needed if not any(folder.glob(pattern))]
        if not missing:
            return folder
        reason = f"it has no {', '.join(missing)}"
    raise BenchError(f"{kind} {name} ({', '.join(patterns)}) is not in the hub's cache, and the hub did not give it "
                     f"({reason}); go online once, or {remedy}")


def read_parquet(folder: Path, split: str, columns: Iterable[str]) -> Table:
    """The ``columns`` of ``<split>-*.parquet`` in ``folder``, one file after the other. Raises BenchError where there
    is no such file or column, or one cannot be read."""
    import pyarrow
    from pyarrow import parquet

    # not datasets.load_dataset: its own cache may answer, with what another folder held
    files = sorted(folder.glob(f"{split}-*.parquet"))
    if not files:
        raise BenchError(f"no {split}-*.parquet in {folder}: fetch that folder again")
    try:
        tables = [parquet.read_table(file, partitioning=None) for file in files]  # a folder "x=7" adds no column x
        return pyarrow.concat_tables([table.select(list(columns)) for table in tables])
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise BenchError(f"{split} in {folder} cannot be read with columns {', '.join(columns)} ({first_line(error)}): "
                         "fetch that folder again") from None
