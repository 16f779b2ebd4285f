"""OGB's raw layout (Hu et al. 2020), read without its package: no prompt, no network, and no pickle that could run a program.

<root>/ogb/<folder>/raw/edge.csv.gz, node-feat.csv.gz, num-node-list.csv.gz, num-edge-list.csv.gz
                    raw/node-label.csv.gz, split/time/{train,valid,test}.csv.gz     nodes to classify
                    split/time/{train,valid,test}.pt                                links to predict
"""

from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch

from bench.task import BenchError, first_line
from tasks import hub
from tasks.graph.data import LinkGraph, NodeGraph

URL = "https://snap.stanford.edu/ogb/data"
SPLITS = {"train": "train", "val": "valid", "test": "test"}  # ours, OGB's
COMMON = ("edge", "node-feat", "num-node-list", "num-edge-list")


def read_nodes(folder: str, root: str | None) -> NodeGraph:
    """Return a node task. BenchError where a file is missing, damaged or does not fit the others."""
    place = _place(folder, root, (*COMMON, "node-label"), "csv.gz")
    features, edges = _graph(place)
    labels = _numbers(place / "raw" / "node-label.csv.gz", np.float64).reshape(-1)
    if labels.size != len(features):
        raise BenchError(f"{place}: {labels.size} labels for {len(features)} nodes; get the files again from {URL}")
    given = labels[~np.isnan(labels)]
    if given.size and not (np.array_equal(given, given.round()) and 0 <= given.min() <= given.max() < len(features)):
        raise BenchError(
            f"{place}: labels must be whole numbers from 0 on, fewer than nodes, but one is "
            f"{given[np.argmax((given != given.round()) | (given < 0) | (given >= len(features)))]:g}"
        )
    splits = {ours: _numbers(place / "split" / "time" / f"{theirs}.csv.gz").reshape(-1) for ours, theirs in SPLITS.items()}
    return NodeGraph(features, edges, np.nan_to_num(labels, nan=-1).astype(np.int64), splits)


def read_links(folder: str, root: str | None) -> LinkGraph:
    """Return a link task. BenchError where a file is missing, damaged or does not fit the others."""
    place = _place(folder, root, COMMON, "pt")
    features, edges = _graph(place)
    parts = {ours: _dictionary(place / "split" / "time" / f"{theirs}.pt") for ours, theirs in SPLITS.items()}
    try:
        true = {split: _pairs(part["edge"]) for split, part in parts.items()}
        return LinkGraph(features, edges, true, {split: _pairs(parts[split]["edge_neg"]) for split in ("val", "test")})
    except (KeyError, ValueError, TypeError) as error:
        raise BenchError(
            f"{place / 'split' / 'time'}: a split lacks pairs of nodes ({error}); get the files again from {URL}"
        ) from None


def _place(folder: str, root: str | None, raw: tuple[str, ...], split: str) -> Path:
    """Return the data set's folder, after checking that every file is there."""
    own = hub.mirror(root)
    if own is None:
        raise BenchError(
            f"no {folder}: set data.root or $BENCH_DATA to a folder with ogb/{folder} in it; the archives are at "
            f"{URL}, or make a synthetic one: python -m tasks.gcn_ogb.make DIR"
        )
    place = own / "ogb" / folder
    files = [*(f"raw/{name}.csv.gz" for name in raw), *(f"split/time/{name}.{split}" for name in SPLITS.values())]
    missing = [file for file in files if not (place / file).is_file()]
    if missing:
        raise BenchError(
            f"no {', '.join(missing)} in {place}: unpack the whole archive of {URL} there"
            + (", or make it: python -m tasks.gcn_ogb.make DIR" if folder.endswith("_like") else "")
        )
    return place


def _graph(place: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return features and edges, as many as the lists of numbers say: a truncated file would otherwise pass for a smaller
    graph."""
    features, edges = _numbers(place / "raw" / "node-feat.csv.gz", np.float32), _numbers(place / "raw" / "edge.csv.gz")
    for what, rows, file in (("nodes", len(features), "num-node-list"), ("edges", len(edges), "num-edge-list")):
        expected = int(_numbers(place / "raw" / f"{file}.csv.gz").sum())
        if rows != expected:
            raise BenchError(
                f"{place / 'raw'} lists {rows} {what}, but {file}.csv.gz says {expected}: get the files again from {URL}"
            )
    try:
        return features, _pairs(edges)
    except ValueError as error:
        raise BenchError(f"{place / 'raw' / 'edge.csv.gz'} holds {error}, not pairs of nodes: get it again from {URL}") from None


def _numbers(path: Path, kind: type = np.int64) -> np.ndarray:
    """Return a table without a header (rows, columns); an empty file is (0, 0)."""
    import pyarrow as pa
    from pyarrow import csv

    types = {np.int64: pa.int64(), np.float32: pa.float32(), np.float64: pa.float64()}
    try:
        table = csv.read_csv(path, csv.ReadOptions(autogenerate_column_names=True))
        columns = [column.cast(types[kind]).to_numpy() for column in table.columns]
        return np.stack(columns, axis=1) if columns else np.empty((0, 0), kind)
    except (OSError, ValueError, pa.ArrowException) as error:
        if "Empty CSV" in str(error):
            return np.empty((0, 0), kind)
        raise BenchError(f"{path} cannot be read ({first_line(error)}): get it again from {URL}") from None


def _pairs(value: object) -> np.ndarray:
    pairs = np.asarray(value)
    if pairs.size == 0:
        return np.empty((0, 2), np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"an array {pairs.shape} of {pairs.dtype}")
    return pairs.astype(np.int64)


def _dictionary(path: Path) -> dict[str, object]:
    """Return the arrays of a file that torch.save wrote from a dictionary; a file that names anything else is refused."""
    rebuild = np.empty(0).__reduce__()[0]
    arrays = [
        *((rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        np.ndarray,
        np.dtype,
        bytes,
        *(type(np.dtype(kind)) for kind in (np.int64, np.int32, np.float64, np.float32)),
    ]
    try:
        with torch.serialization.safe_globals(arrays):
            value = torch.load(path, weights_only=True)
    except (UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        unsafe = isinstance(error, UnpicklingError)  # whose message advises to load the file unsafely
        why = "it names something that has no place in a data file" if unsafe else first_line(error)
        raise BenchError(f"{path} cannot be read ({why}): get it again from {URL}") from None
    if not isinstance(value, dict):
        raise BenchError(f"{path} holds a {type(value).__name__}, not the edges of a split: get it again from {URL}")
    return value
