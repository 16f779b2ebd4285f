"""Planetoid's raw files ``ind.<name>.*`` (Yang et al. 2016): found, downloaded, read.

They are pickles. Here only arrays, lists and dictionaries come out of one: a file that names anything else is refused,
so that reading a data set cannot run a program.
"""

from __future__ import annotations

import pickle
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from scipy import sparse

from bench.task import BenchError
from tasks import cache, hub

URL = "https://github.com/kimiyoung/planetoid/raw/master/data"
PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
TIMEOUT = 30  # seconds a file may keep us waiting


@dataclass(frozen=True)
class Raw:
    """A citation graph as published.

    features (N, F) CSR, edges (E, 2) int64 as listed (both directions, duplicates, self-loops), labels (N,) int64 with -1
    for a node without one, and the node numbers of the public split
    """

    features: sparse.csr_matrix
    edges: np.ndarray
    labels: np.ndarray
    public: dict[str, np.ndarray]


def read(title: str, root: str | None) -> Raw:
    """The data set in ``<root>/planetoid/<title>/raw`` (``root``: config, then $BENCH_DATA, then the cache, downloaded once).

    Raises BenchError, in one line, where a file is missing or is not what it should be.
    """
    folder = _folder(title, root)
    part = {name: _load(folder / f"ind.{title.lower()}.{name}") for name in PARTS if name != "test.index"}
    try:
        test = np.array((folder / f"ind.{title.lower()}.test.index").read_text().split(), dtype=np.int64)
        return _assemble(part, test)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise BenchError(f"the files in {folder} do not fit together ({error}): get them again from {URL}") from None


def _assemble(part: dict[str, Any], test: np.ndarray) -> Raw:
    """Rows of allx and ally are nodes 0, 1, ...; row k of tx and ty is node test[k]; nodes in neither are empty."""
    if not test.size:
        raise ValueError("test.index names no node: split test is empty")
    known, nodes = part["allx"].shape[0], max(part["allx"].shape[0], int(test.max()) + 1)
    if nodes > 2 * (known + test.size):
        raise ValueError(f"test.index names node {test.max()}, but there are {known} nodes and {test.size} more to test")
    row = np.concatenate([np.arange(known), test])
    if np.unique(row).size != row.size:
        raise ValueError("test.index repeats a node, or one of allx")
    features = sparse.vstack([part["allx"], part["tx"]]).tocoo()
    features = sparse.csr_matrix((features.data, (row[features.row], features.col)), (nodes, features.shape[1]))
    one_hot = np.concatenate([part["ally"], part["ty"]])
    labels = np.full(nodes, -1)
    labels[row] = np.where(one_hot.any(1), one_hot.argmax(1), -1)
    edges = np.array([(node, other) for node, others in part["graph"].items() for other in others], dtype=np.int64)
    edges = edges.reshape(-1, 2)
    _check_both_ways(edges)
    train = len(part["y"])
    return Raw(features, edges, labels,
               {"train": np.arange(train), "val": np.arange(train, min(train + 500, known)), "test": np.sort(test)})


def _check_both_ways(edges: np.ndarray) -> None:
    """A graph that lists an edge in one direction alone is directed, or was cut short; citations are undirected here."""
    code = np.unique(edges, axis=0)
    lone = set(map(tuple, code.tolist())) - set(map(tuple, code[:, ::-1].tolist()))
    if lone:
        raise ValueError(f"the graph is directed: edge {min(lone)} is listed in one direction only")


class _Csr:
    """Stands in for SciPy's matrix while a file is read, so that nothing trusts its numbers before they are checked."""

    def matrix(self) -> sparse.csr_matrix:
        """Raises ValueError unless rows and columns lie within the shape."""
        state = vars(self)
        shape = state["_shape"] if "_shape" in state else state["shape"]
        matrix = sparse.csr_matrix((state["data"], state["indices"], state["indptr"]), shape)
        matrix.check_format(full_check=True)
        return matrix


class _Unpickler(pickle.Unpickler):
    """Reads arrays, matrices, lists and dictionaries; refuses every other name."""

    names = {  # noqa: RUF012
        "_reconstruct": (np.empty(0).__reduce__()[0], ("numpy.core.multiarray", "numpy._core.multiarray")),
        "ndarray": (np.ndarray, ("numpy",)),
        "dtype": (np.dtype, ("numpy",)),
        "csr_matrix": (_Csr, ("scipy.sparse.csr", "scipy.sparse._csr")),
        "defaultdict": (dict, ("collections",)),  # called with the type of its values; see _dictionary
        "list": (list, ("__builtin__", "builtins")),
    }

    def find_class(self, module: str, name: str) -> Any:
        known, modules = self.names.get(name, (None, ()))
        if module not in modules:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which has no place in a data file")
        return _dictionary if known is dict else known


def _dictionary(values: type) -> dict:
    """What a defaultdict becomes: a dictionary that makes up no entries."""
    return {}


def _load(path: Path) -> Any:
    """One pickled file: a matrix, an array or the dictionary of neighbours."""
    try:
        with path.open("rb") as stream:
            value = _Unpickler(stream, encoding="latin1").load()
        return value.matrix() if isinstance(value, _Csr) else value
    except Exception as error:  # damaged bytes can raise anything
        raise BenchError(f"{path} cannot be read ({str(error) or type(error).__name__}): get it again from {URL}") from None


def _folder(title: str, root: str | None) -> Path:
    """The folder with all eight files."""
    own = hub.mirror(root)
    folder = (own or cache.home()) / "planetoid" / title / "raw"
    files = [f"ind.{title.lower()}.{part}" for part in PARTS]
    missing = [file for file in files if not (folder / file).is_file()]
    if missing and own:
        raise BenchError(f"no {', '.join(missing)} in {folder}: put the files of {URL} there, or unset data.root and "
                         "BENCH_DATA to download them")
    if missing:
        _download(folder, missing)
    return folder


def _download(folder: Path, files: list[str]) -> None:
    """Fetch ``files``; one gets its name when it is whole."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            for path in [folder / file for file in files]:
                if path.is_file():  # another process was faster
                    continue
                partial = path.with_name(f"{path.name}.partial")
                with urllib.request.urlopen(f"{URL}/{path.name}", timeout=TIMEOUT) as answer:
                    partial.write_bytes(answer.read())
                partial.replace(path)
    except OSError as error:
        title = folder.parent.name
        raise BenchError(f"no {title}: data.root and BENCH_DATA are unset, and {URL} could not be copied to {folder} ({error}); "
                         f"set one of them to a folder with planetoid/{title}/raw in it") from None
