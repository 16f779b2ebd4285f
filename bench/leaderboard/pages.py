"""The files of the leaderboards: a pure function of the records. Nobody edits them; ``check`` compares."""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.leaderboard import embedded, markdown, svg
from bench.leaderboard.analysis_tables import groups, page_path
from bench.leaderboard.boards import Board, boards
from bench.leaderboard.markdown import INDEX
from bench.leaderboard.plots import plots
from bench.storage.analysis_records import AnalysisRecord, read_analyses
from bench.storage.files import safe_name
from bench.storage.record_cache import load_records, without_collection
from bench.storage.records import Record
from bench.storage.reruns import Rerun
from bench.storage.reruns import read_all as read_reruns
from bench.suites import page as suite_page
from bench.suites.ranking import Ranking, ranking
from bench.suites.schema import Suite
from bench.suites.schema import read_all as read_suites

BY_HAND = ("RULES.md", "claims.md")
"""Pages in the same folder that this module neither writes nor removes."""


def render(records: Iterable[Record], analyses: Iterable[AnalysisRecord] = (), suites: Iterable[Suite] = ()) -> dict[str, str]:
    """Path relative to the leaderboards folder -> text: a page for each suite, task and analysis, the index, and the plots."""
    grouped = boards(records)
    return _contents(grouped, analyses, [ranking(suite, grouped) for suite in suites])


def read(root: Path) -> tuple[list[Record], list[AnalysisRecord], list[Suite], list[Rerun]]:
    """Read what the pages of ``root`` are made of: records, analyses, suites and re-runs. BenchError if it has no records."""
    if not (root / "records").is_dir():
        raise BenchError(f"no folder {root / 'records'}: `bench publish RUN` makes it; or run this in the repository")
    return load_records(root / "records"), list(read_analyses(root / "records")), read_suites(root), read_reruns(root)


@without_collection()
def write(root: Path) -> list[Path]:
    """Write all files that ``root``/records give, remove generated ones that they no longer give; returns the paths written."""
    files, by_hand = _wanted(root)
    for path in _generated(root) - files.keys():
        (root / path).unlink()
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8", newline="\n")
    for folder in sorted((root / "plots").glob("*/")):
        if not any(folder.iterdir()):
            folder.rmdir()
    for page, text in by_hand.items():
        page.write_text(text, encoding="utf-8", newline="\n")
    return [*(root / path for path in files), *by_hand]


@without_collection()
def check(root: Path) -> list[str]:
    """The differences between the files in ``root`` and what its records give, as lines to print; empty if there are none."""
    contents, by_hand = _wanted(root)
    there = _generated(root)
    lines = [f"stale, no record asks for it: {path}" for path in sorted(there - contents.keys())]
    for path, wanted in contents.items():
        if path not in there:
            lines.append(f"missing: {path}")
        elif path.endswith(".md"):
            lines += differences(root / path, wanted, path)
        elif (root / path).read_bytes() != wanted.encode():
            lines.append(f"not drawn from these records, or edited: {path}")
    for page, wanted in by_hand.items():
        lines += differences(page, wanted, page.relative_to(root.resolve().parent).as_posix())
    return lines


def differences(path: Path, wanted: str, name: str) -> list[str]:
    """A unified diff of a file, empty if there is none, and of the text that records give. Line ends count."""
    text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
    diff = difflib.unified_diff(text.splitlines(keepends=True), wanted.splitlines(keepends=True), name, f"{name} from records")
    return [line.rstrip() for line in diff]


def _wanted(root: Path) -> tuple[dict[str, str], dict[Path, str]]:
    """The files that the records in ``root`` give, and the pages written by hand that have tables of them."""
    records, analyses, suites, reruns = read(root)
    grouped = boards(records, reruns)
    rankings = [ranking(suite, grouped) for suite in suites]
    return _contents(grouped, analyses, rankings), embedded.pages(root, grouped, rankings, analyses)


def _contents(grouped: Sequence[Board], analyses: Iterable[AnalysisRecord], rankings: Sequence[Ranking]) -> dict[str, str]:
    """What ``render`` returns."""
    of_suites = suite_page.pages(rankings, grouped)
    by_task: dict[str, list[Board]] = defaultdict(list)
    for board in grouped:
        task = board.records[0].identity.task
        path = f"{safe_name(task)}.md"
        if path in (INDEX, *BY_HAND, *of_suites):
            raise BenchError(f"a task named {task!r} would overwrite {path}; rename the task")
        by_task[path].append(board)
    by_analysis = {page_path(name): of_name for name, of_name in groups(analyses).items()}
    index = markdown.index_page(by_task, by_analysis, [suite_page.section(ranking) for ranking in rankings])
    contents = {INDEX: index, **of_suites} | {path: svg.file(plot) for path, plot in suite_page.plots(rankings).items()}
    for path, of_name in by_analysis.items():
        contents[path] = markdown.analysis_page(of_name)
        for group in of_name:
            contents |= {path: svg.file(plot) for path, plot in group.figures().items()}
    for path, of_task in by_task.items():
        contents[path] = markdown.task_page(of_task, by_analysis)
        for board in of_task:
            contents |= {path: svg.file(plot) for path, plot in plots(board).items()}
    return contents


def _generated(root: Path) -> set[str]:
    """Paths of the files in ``root`` that only this module writes."""
    files = [path for path in root.glob("*.md") if path.name not in BY_HAND] + list((root / "plots").rglob("*.svg"))
    return {path.relative_to(root).as_posix() for path in files}
