"""Planetoid's raw files ``ind.<name>.*`` (Yang et al. 2016): found, downloaded, read. They are pickles, written by any version of
NumPy and SciPy. This reader accepts only numbers, arrays, matrices, lists, sets and dictionaries, all of which it builds itself:
a file that names anything else is refused, so that reading a data set cannot run a program."""

import pickle
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from bench.task import BenchError, first_line
from tasks import cache, hub
from tasks.graph.data import NodeGraph

URL = "https://github.com/kimiyoung/planetoid/raw/master/data"
PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
LARGEST = 10**7  # rows or columns of a matrix: far more than any of these graphs has


def read(title: str, root: str | None) -> NodeGraph:
    """Return the data set in ``<root>/planetoid/<title>/raw`` (``root``: config, then $BENCH_DATA, then the cache, downloaded
    once) as published, with its public split: edges are listed in both directions, with duplicates and self-loops. BenchError, in
    one line, where a file is missing or malformed."""
    folder = _folder(title, root)
    part = {name: _load(folder / f"ind.{title.lower()}.{name}") for name in PARTS if name != "test.index"}
    try:
        test = np.array((folder / f"ind.{title.lower()}.test.index").read_text().split(), dtype=np.int64)
        return _assemble(part, test)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError, OverflowError) as error:
        raise BenchError(f"the files in {folder} do not fit together ({error}): get them again from {URL}") from None


def _assemble(part: dict[str, Any], test: np.ndarray) -> NodeGraph:
    """Return the whole graph: rows of allx and ally are nodes 0, 1, ...; row k of tx and ty is node test[k]; nodes in neither are
    empty."""
    if not test.size:
        raise ValueError("test.index names no node: split test is empty")
    known, nodes = part["allx"].shape[0], max(part["allx"].shape[0], int(test.max()) + 1)
    if nodes > 2 * (known + test.size):
        raise ValueError(f"test.index names node {test.max()}, but there are {known} nodes and {test.size} more to test")
    row = np.concatenate([np.arange(known), test])
    if np.unique(row).size != row.size:
        raise ValueError("test.index repeats a node, or one of allx")
    features = sparse.vstack([sparse.csr_matrix(part["allx"]), sparse.csr_matrix(part["tx"])]).tocoo()
    features = sparse.csr_matrix((features.data, (row[features.row], features.col)), (nodes, features.shape[1]))
    one_hot = np.concatenate([part["ally"], part["ty"]])
    labels = np.full(nodes, -1)
    labels[row] = np.where(one_hot.any(1), one_hot.argmax(1), -1)
    edges = np.array([(index(node), index(other)) for node, others in part["graph"].items() for other in others], dtype=np.int64)
    edges = edges.reshape(-1, 2)
    _check_both_ways(edges)
    train = len(part["y"])
    public = {"train": np.arange(train), "val": np.arange(train, min(train + 500, known)), "test": np.sort(test)}
    return NodeGraph(features, edges, labels, public)


def _check_both_ways(edges: np.ndarray) -> None:
    """A graph that lists an edge in one direction alone is directed, or was cut short; citations are undirected here."""
    code = np.unique(edges, axis=0)
    lone = set(map(tuple, code.tolist())) - set(map(tuple, code[:, ::-1].tolist()))
    if lone:
        raise ValueError(f"the graph is directed: edge {min(lone)} is listed in one direction only")


class _Dtype:
    """Stands in for NumPy's data type while a file is read, so that a file cannot say that numbers are pointers."""

    def __init__(self, code: str, *_: bool):
        self.made = np.dtype(code)
        if self.made.kind not in "biufO":
            raise ValueError(f"it has entries of type {code!r}")

    def __setstate__(self, state: tuple) -> None:
        self.made = self.made.newbyteorder(state[1])


def _array(raw: Any, dtype: _Dtype, shape: tuple[int, ...], order: str = "C", *_: Any) -> np.ndarray:
    """Return numbers of ``dtype`` out of bytes, or a list as an array of objects. ValueError where they do not fill ``shape``."""
    if isinstance(raw, list):
        flat = np.fromiter(raw, object, len(raw))
    else:
        content = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
        flat = np.frombuffer(content, dtype.made) if content else np.zeros(0, dtype.made)
        flat = flat.astype(dtype.made.newbyteorder("="))
    return flat.reshape(shape, order=order)


class _Array:
    """Stands in for NumPy's array while a file is read."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        self.made = _array(raw, dtype, shape, "F" if fortran else "C")


class _Sparse:
    """Stands in for SciPy's matrices while a file is read, so that nothing trusts their numbers before they are checked."""

    kind: str

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    @property
    def made(self) -> sparse.csr_matrix:
        """Return the matrix. ValueError unless rows and columns lie within the shape."""
        state = {key: _made(value) for key, value in self.state.items()}
        shape, data = state.get("_shape", state.get("shape")), state["data"]
        if max(shape) > LARGEST:
            raise ValueError(f"it has {shape[0]} rows of {shape[1]} entries")
        if self.kind == "coo":
            rows, columns = map(_made, state.get("coords") or (state["row"], state["col"]))
            return sparse.coo_matrix((data, (rows, columns)), shape).tocsr()
        if self.kind == "dia":
            return sparse.dia_matrix((data, state["offsets"]), shape).tocsr()
        if self.kind == "lil":  # every row a list
            ends = np.cumsum([0, *map(len, state["rows"])])
            matrix = sparse.csr_matrix((np.concatenate(data), np.concatenate(state["rows"]).astype(np.int64), ends), shape)
        else:
            made = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[self.kind]
            matrix = made((data, state["indices"], state["indptr"]), shape)
        matrix.check_format(full_check=True)
        return matrix.tocsr()


def _made(value: Any) -> Any:
    """Return the object that a stand-in represents; any other value is returned unchanged."""
    return value.made if isinstance(value, (_Array, _Sparse)) else value


CORE = tuple(f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric"))
BUILTINS = ("__builtin__", "builtins")


class _Unpickler(pickle._Unpickler):  # in Python: the one in C clears as many places as a file says it will remember
    """Reads arrays, matrices, lists, sets and dictionaries; refuses every other name."""

    names = {
        "_reconstruct": (lambda *_: _Array(), CORE),
        "_frombuffer": (_array, CORE),
        "scalar": (lambda dtype, raw: _array(raw, dtype, ())[()], CORE),
        "ndarray": (_Array, ("numpy",)),
        "dtype": (_Dtype, ("numpy",)),
        "defaultdict": (lambda *_: {}, ("collections",)),  # a dictionary that makes up no entries
        "encode": (lambda text, encoding: text.encode("latin1"), ("_codecs",)),  # bytes as early protocols write them
        "bytes": (bytes, BUILTINS),
        "list": (list, BUILTINS),
        "set": (set, BUILTINS),
    } | {
        f"{kind}_{what}": (type(f"_{kind}", (_Sparse,), {"kind": kind}), (f"scipy.sparse.{kind}", f"scipy.sparse._{kind}"))
        for kind in ("csr", "csc", "coo", "dia", "lil")
        for what in ("matrix", "array")
    }

    def find_class(self, module: str, name: str) -> Any:
        known, modules = self.names.get(name, (None, ()))
        if module not in modules:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which has no place in a data file")
        return known


def _load(path: Path) -> Any:
    """Return the content of one pickled file: a matrix, an array or the dictionary of neighbours."""
    try:
        with path.open("rb") as stream:
            value = _made(_Unpickler(stream, encoding="latin1").load())
        return {node: _made(others) for node, others in value.items()} if isinstance(value, dict) else value
    except Exception as error:  # damaged bytes can raise anything
        raise BenchError(f"{path} cannot be read ({first_line(error)}): get it again from {URL}") from None


def _folder(title: str, root: str | None) -> Path:
    """Return the folder with all eight files."""
    own = hub.mirror(root)
    folder = (own or cache.home()) / "planetoid" / title / "raw"
    files = [f"ind.{title.lower()}.{part}" for part in PARTS]
    missing = [file for file in files if not (folder / file).is_file()]
    if missing and own:
        raise BenchError(
            f"no {', '.join(missing)} in {folder}: put the files of {URL} there, or unset data.root and "
            "BENCH_DATA to download them"
        )
    try:
        for file in missing:
            hub.download(f"{URL}/{file}", folder / file)
    except OSError as error:
        raise BenchError(
            f"no {title}: data.root and BENCH_DATA are unset, and {URL} could not be copied to {folder} ({error}); "
            f"set one of them to a folder with planetoid/{title}/raw in it"
        ) from None
    return folder
