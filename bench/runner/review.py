"""A change of the records, reviewed: what the rules refuse, and what a reader should look at twice."""

import math
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bench import registry
from bench.errors import BenchError
from bench.leaderboard import format
from bench.leaderboard.embedded import by_hand
from bench.leaderboard.sections import Cell, as_column, is_dense, result_of, row_name
from bench.leaderboard.statistics import MIN_SEEDS, estimate
from bench.leaderboard.table_types import Column
from bench.runner.publish import setting_and_seed
from bench.storage import reruns
from bench.storage.analysis_records import AnalysisRecord, read_any
from bench.storage.cost import Cost
from bench.storage.files import canonical, text_sum
from bench.storage.records import ANALYSIS, Record, read_record, read_records

CHEAP_SECONDS = 300
"""A record that took no longer, with the dense network of its seed, may be run again by CI."""
NARROW = 0.05
"""A spread over seeds of less than this share of the dense network's is too small to be believed at once."""
FAST = 20
"""A training step that is so many times as fast as the dense network's on the same machine, likewise."""
BASELINES = ("random_ticket",)
"""Methods whose tickets claim nothing, so that they need no random control beside them."""
FAR = 5
"""A dense network so many standard deviations from the others of its setting, likewise."""


@dataclass(frozen=True)
class Review:
    """``added``: files of new records; ``refused``: what breaks a rule, one line each; ``smells``: what is odd."""

    added: list[Path]
    refused: list[str]
    smells: list[str]


def review(base: str, root: Path) -> Review:
    """Review what the commits since ``base`` do to the leaderboards in ``root``. BenchError where git does not know the base."""
    top = Path(_git(root, "rev-parse", "--show-toplevel"))
    added, faults, other = _changes(base, root, top)
    refused: list[str] = []
    if added and other:
        refused.append(f"records come without other changes, and {other[0]} changes too: make two pull requests of it")
    records: list[Record] = []
    unread: list[str] = []
    for file in added:
        try:
            found = _read(file, root)
        except BenchError as error:
            unread.append(str(error))
            continue
        if isinstance(found, Record):
            records.append(found)
        for why in _faults(found, top):
            faults[why].append(str(file.relative_to(top)))
    refused += [f"{of[0]}{f' and {len(of) - 1} more' if len(of) > 1 else ''}: {why}" for why, of in faults.items()]
    if unread:
        return Review([], sorted({*refused, *unread}), [])
    everything = list(_beside(records, root))
    cells = _cells(everything)
    new = {r.id for r in records}
    touched = [cell for cell in cells.values() if any(r.id in new for r in cell.records)]
    dense = {setting_and_seed(r) for r in everything if is_dense(r)}
    refused += _joined((cell.records[0], why) for cell in touched for why in _gaps(cell, cells, dense))
    return Review([p for p in added if "/records/" in p.as_posix()], sorted(set(refused)), _joined(_smells(touched, everything)))


def _changes(base: str, root: Path, top: Path) -> tuple[list[Path], dict[str, list[str]], list[str]]:
    """The files of records that are new since ``base``, those that are not as they were by what is wrong with that, and other
    files that changed, but for pages that change with the records."""
    below = root.resolve().relative_to(top.resolve()).as_posix()
    inside = "" if below == "." else f"{below}/"
    start = _git(top, "merge-base", base, "HEAD")
    words = _git(top, "diff", "-z", "--name-status", "--no-renames", start, "HEAD").split("\0")  # -z: names as they are
    added: list[Path] = []
    faults: dict[str, list[str]] = defaultdict(list)
    other: list[str] = []
    for kind, path in zip(words[::2], words[1::2], strict=False):
        if path.startswith((f"{inside}records/", f"{inside}{reruns.FOLDER}/")):
            if kind == "A":
                added.append(top / path)
            else:
                faults[f"{'removed' if kind == 'D' else 'edited'}: a record is removed by a change that says why"].append(path)
        elif not (path.startswith(inside) and _is_page(path.removeprefix(inside))) and not _is_filled_in(kind, path, start, top):
            other.append(path)
    return added, faults, other


def _is_page(path: str) -> bool:
    """Whether a file of the leaderboards is made from records, so that it changes with them."""
    return path.startswith("plots/") or ("/" not in path and path.endswith(".md") and path != "RULES.md")


def _is_filled_in(kind: str, path: str, start: str, top: Path) -> bool:
    """Whether nothing of a page has changed since the commit ``start`` but its tables from the records."""
    if kind != "M" or not path.endswith(".md"):
        return False
    before, after = (by_hand(_git(top, "show", f"{commit}:{path}")) for commit in (start, "HEAD"))
    return before == after


def drawn(added: Iterable[Path], root: Path, count: int) -> list[Path]:
    """The new records that are to be run again: of the cheap ones those that the commit's hash picks, so that nobody chooses."""
    head = _git(root, "rev-parse", "HEAD")
    cheap = []
    for path in added:
        if not path.name.endswith(ANALYSIS):
            record = read_record(path)
            if record.cost and _seconds(record.cost, is_dense(record)) <= CHEAP_SECONDS:
                cheap.append(path)
    return sorted(cheap, key=lambda path: text_sum(head + path.stem))[:count]


def _seconds(cost: Cost, dense: bool) -> float:
    """What a record takes to be made again, with the dense network that it is compared with, unless it is that network."""
    each = cost.train_seconds / cost.train_dense_trainings if cost.train_dense_trainings else math.inf
    return cost.search_seconds + cost.train_seconds + (0 if dense else each)


def _read(path: Path, root: Path) -> Record | AnalysisRecord | reruns.Rerun:
    """A new file, valid and at its own place."""
    top = root.resolve()
    is_rerun = path.relative_to(top).parts[0] == reruns.FOLDER
    found = reruns.read(path) if is_rerun else read_any(path)
    place = found.path(top if is_rerun else top / "records")
    if place != path:
        raise BenchError(f"{path} is not at its own place, which is {place}: use bench publish")
    return found


def _faults(record: Record | AnalysisRecord | reruns.Rerun, top: Path) -> Iterator[str]:
    """What one record or re-run says of itself that the rules refuse."""
    if isinstance(record, reruns.Rerun):
        if record.environment.get("git_dirty"):
            yield "a re-run by code with uncommitted changes"
        return
    identity, commit = record.identity, record.environment.get("git_commit")
    if identity.protocol == "smoke":
        yield "the protocol smoke only shows that the code runs"
    if record.environment.get("git_dirty") or not commit:
        yield "made by code with uncommitted changes, or outside a checkout"
    elif not _known(str(commit), top):
        yield f"made by commit {commit!s:.12}, which the history of this branch does not have"
    version = _task_version(identity.task)
    if version is None:
        yield f"task {identity.task} is not of this repository: a task comes before its records"
    elif version != identity.task_version:
        yield f"task version {identity.task_version}, and the task has {version}"
    if isinstance(record, Record):
        if record.identity.method not in registry.METHODS:
            yield f"method {record.identity.method} is not of this repository: a method comes before its records"
        if record.status == "failed":
            yield f"it failed ({record.reason})"


def _beside(records: Sequence[Record], root: Path) -> Iterator[Record]:
    """All records in the folders of the settings that the new ones are of."""
    for folder in sorted({r.path(root / "records").parents[1] for r in records}):
        yield from read_records(folder)


def _cells(records: Iterable[Record]) -> dict[str, Cell]:
    """The records that differ in their seeds alone, together."""
    found: dict[str, list[Record]] = defaultdict(list)
    for r in records:
        found[cell_key(r)].append(r)
    return {key: Cell(tuple(sorted(of, key=lambda r: r.identity.seed))) for key, of in found.items()}


def cell_key(record: Record, **changed: Any) -> str:
    """Equal for records that differ in nothing but their seeds and in what is ``changed``."""
    return canonical(record.identity.model_dump(exclude={"seed"}) | changed)


def _gaps(cell: Cell, cells: dict[str, Cell], dense: Collection[tuple[Any, ...]]) -> Iterator[str]:
    """Seeds, dense networks and controls that a cell lacks. ``dense``: the settings that have a dense network."""
    first, seeds = cell.records[0], [r.identity.seed for r in cell.records]
    if seeds != list(range(len(seeds))):
        yield f"seeds {seeds} are not 0, 1, 2, ... without gaps"
    for r in cell.records:
        if setting_and_seed(r) not in dense:
            yield f"no dense network of seed {r.identity.seed} beside it"
    if first.identity.control is None and not is_dense(first) and first.identity.method not in BASELINES:
        control = cells.get(cell_key(first, control="random"))
        if control is None or [r.identity.seed for r in control.records] != seeds:
            yield "no control random of the same seeds beside it: run it with controls=[random]"


@dataclass
class _Setting:
    """What all records of a setting say of its dense networks. ``dense``: the test metric by seed; ``rates``: the fewest seconds
    of a step of training by device."""

    dense: dict[int, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)


def _settings(records: Iterable[Record]) -> dict[tuple[Any, ...], _Setting]:
    """The settings by what their records share but for the seed."""
    found: dict[tuple[Any, ...], _Setting] = defaultdict(_Setting)
    for r in records:
        setting = found[setting_and_seed(r)[:-1]]
        if r.status == "ok":
            setting.dense[r.identity.seed] = result_of(r).dense_test[result_of(r).metric]
        if is_dense(r) and r.cost and r.cost.train_steps:
            device, rate = str(r.environment.get("device")), r.cost.train_seconds / r.cost.train_steps
            setting.rates[device] = min(rate, setting.rates.get(device, rate))
    return found


def _smells(cells: Sequence[Cell], everything: Sequence[Record]) -> Iterator[tuple[Record, str]]:
    """What is possible and odd, each with a record that it is said of."""
    settings, dense = _settings(everything), dict[tuple[Any, ...], Record]()
    for cell in cells:
        first = cell.records[0]
        setting = settings[names := setting_and_seed(first)[:-1]]
        for why in (*_odd_values(cell), *_odd_costs(cell, setting)):
            yield first, why
        for why in _odd_dense(cell, setting):  # all tickets of a seed have the same, so it is said once
            dense.setdefault((names, why), first)
    for (_, why), first in dense.items():
        yield first, why


def _joined(found: Iterable[tuple[Record, str]]) -> list[str]:
    """A line for every row of a board and what is said of it, with the densities at which it is."""
    columns: dict[tuple[str, str], set[Column]] = defaultdict(set)
    for record, why in found:
        identity = record.identity
        name = f"{' · '.join(identity.names)}: {row_name(record.label, identity.control)}"
        columns[name, why].add(as_column(identity.densities))
    return [
        f"{name}, {'; '.join(format.densities(column, named=True) for column in sorted(of, reverse=True))}: {why}"
        for (name, why), of in sorted(columns.items())
    ]


def _odd_values(cell: Cell) -> Iterator[str]:
    values = list(cell.values.values())
    if all(r.ticket and "collapsed" in r.ticket.notes for r in cell.done):
        return  # cut through, so that it answers the same whatever it is asked
    if len(values) > 1 and len(set(values)) == 1:
        yield f"all {len(values)} seeds have {values[0]:g}"
    elif len(values) >= MIN_SEEDS and not is_dense(cell.records[0]):
        ours, theirs = estimate(values).std or 0.0, estimate(cell.dense.values()).std or 0.0
        if ours < NARROW * theirs:
            yield f"a spread over seeds of {ours:.3g}, where the dense network has {theirs:.3g}"


def _odd_costs(cell: Cell, setting: _Setting) -> Iterator[str]:
    for r in cell.done:
        assert r.cost
        if r.cost.search_steps > 0 and r.cost.search_dense_trainings <= 0:
            yield f"seed {r.identity.seed} searched {r.cost.search_steps} steps at no cost"
        if r.cost.inference_macs > r.cost.inference_macs_dense:
            yield f"seed {r.identity.seed} takes more MACs than the dense network"
        rate = setting.rates.get(str(r.environment.get("device")))
        if rate and r.cost.train_steps and r.cost.train_seconds / r.cost.train_steps < rate / FAST:
            yield f"seed {r.identity.seed} trained {r.cost.train_steps} steps in {r.cost.train_seconds:.3g} s, too fast"


def _odd_dense(cell: Cell, setting: _Setting) -> Iterator[str]:
    for r in cell.done:
        value = result_of(r).dense_test[result_of(r).metric]
        others = [found for seed, found in setting.dense.items() if seed != r.identity.seed]
        board = estimate(others) if len(others) >= MIN_SEEDS else None
        if board and board.std and abs(value - board.mean) > FAR * board.std:
            yield f"seed {r.identity.seed} has a dense network of {value:g}, where others have {board.mean:.4g} ± {board.std:.2g}"


@cache
def _task_version(name: str) -> int | None:
    """The version of a task of this repository; None if it is none."""
    if name not in registry.names("tasks"):
        return None
    config = yaml.safe_load((registry.task_folder(name) / "config.yaml").read_text(encoding="utf-8"))
    return int(config["task"]["version"])


@cache
def _known(commit: str, top: Path) -> bool:
    """Whether a commit is one of the history of this branch."""
    words = ["git", "-C", str(top), "merge-base", "--is-ancestor", "--end-of-options", commit, "HEAD"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _git(at: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(at), *words], capture_output=True, encoding="utf-8", check=False)
    except FileNotFoundError:
        raise BenchError("bench review needs git, which is not installed") from None
    if done.returncode:
        raise BenchError(f"git {' '.join(words)}: {done.stderr.strip() or 'failed'}: name a commit of this repository as BASE")
    return done.stdout.strip()
