"""The files of the leaderboards: a pure function of the records. Nobody edits them; ``check`` compares."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError, unknown
from bench.leaderboard import markdown, tables
from bench.leaderboard.analysis_tables import groups, page_path
from bench.leaderboard.boards import Board, boards
from bench.leaderboard.markdown import INDEX
from bench.leaderboard.plots import HeatMap, Plot, draw, plots, sealed
from bench.storage.analysis_records import AnalysisRecord, read_analyses
from bench.storage.records import Record, read_records, safe_name

BY_HAND = ("RULES.md", "claims.md")
"""Pages in the same folder that this module neither writes nor removes."""
RESULTS = re.compile(r"(<!-- results\b[^\n]*\n(.*?)-->\n).*?(<!-- /results -->)", re.S)
"""A part of the repository's README.md that is filled in: the comment says in YAML what it shows, see ``readme``."""


def render(records: Iterable[Record], analyses: Iterable[AnalysisRecord] = ()) -> dict[str, str]:
    """Path relative to the leaderboards folder -> text: a page for each task and analysis, the index, and the plots."""
    return _drawn(_contents(boards(records), analyses))


def write(root: Path) -> list[Path]:
    """Write all files that ``root``/records give, remove generated ones that they no longer give; returns the paths written."""
    if not (root / "records").is_dir():
        raise BenchError(f"no folder {root / 'records'}: `bench publish RUN` makes it; or run this in the repository")
    grouped = boards(read_records(root / "records"))
    files = _drawn(_contents(grouped, read_analyses(root / "records")))
    front = readme(root, grouped)
    for path in _generated(root) - files.keys():
        (root / path).unlink()
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8", newline="\n")
    for folder in sorted((root / "plots").glob("*/")):
        if not any(folder.iterdir()):
            folder.rmdir()
    for page, text in front.items():
        page.write_text(text, encoding="utf-8", newline="\n")
    return [*(root / path for path in files), *front]


def check(root: Path) -> list[str]:
    """The differences between the files in ``root`` and what its records give, as lines to print; empty if there are none."""
    grouped = boards(read_records(root / "records"))
    contents = _contents(grouped, read_analyses(root / "records"))
    there = _generated(root)
    lines = [f"stale, no record asks for it: {path}" for path in sorted(there - contents.keys())]
    for path, wanted in contents.items():
        if path not in there:
            lines.append(f"missing: {path}")
        elif isinstance(wanted, str):
            lines += differences(root / path, wanted, path)
        elif not sealed((root / path).read_bytes().decode("utf-8", "replace"), wanted):
            lines.append(f"not drawn from these records, or edited: {path}")
    for front, wanted in readme(root, grouped).items():
        lines += differences(front, wanted, f"../{front.name}")
    return lines


def readme(root: Path, grouped: Iterable[Board]) -> dict[Path, str]:
    """The README.md next to the repository's folder ``leaderboards`` -> its text with the results that the boards give; empty
    for another folder, and without the comment.

    The comment is a list of tables, each with ``board`` (the name of its folder of plots), ``section`` (a heading below the
    board), ``densities`` (columns), ``rows`` (name of a row -> how the table calls it) and ``title``.
    """
    path = root.resolve().parent / "README.md"
    text = path.read_text(encoding="utf-8") if root.resolve().name == "leaderboards" and path.exists() else ""
    if not RESULTS.search(text):
        return {}
    by_slug = {board.slug: board for board in grouped}

    def part(table: Mapping[str, Any]) -> str:
        if table["board"] not in by_slug:
            raise unknown("board", table["board"], by_slug)
        board = by_slug[table["board"]]
        sections = {section.title: section for section in board.sections}
        if table["section"] not in sections:
            raise unknown(f"section of {board.slug}", table["section"], sections)
        shown = tables.selected(sections[table["section"]], table["rows"], [str(d) for d in table["densities"]], "Density")
        return (
            f"{table['title']}: test {board.metric[0]}; the whole network has {tables.dense_result(board)}.\n\n"
            f"{markdown.table(shown)}\n\n"
        )

    def filled(match: re.Match[str]) -> str:
        try:
            return f"{match[1]}\n{''.join(map(part, yaml.safe_load(match[2])))}{match[3]}"
        except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise BenchError(
                f"{path}: the comment `results` is no list of tables with board, section, title, densities and "
                f"rows: {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error

    return {path: RESULTS.sub(filled, text)}


def differences(path: Path, wanted: str, name: str) -> list[str]:
    """A unified diff of a file, empty if there is none, and of the text that records give. Line ends count."""
    text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
    diff = difflib.unified_diff(text.splitlines(keepends=True), wanted.splitlines(keepends=True), name, f"{name} from records")
    return [line.rstrip() for line in diff]


def _drawn(contents: Mapping[str, str | Plot | HeatMap]) -> dict[str, str]:
    """The same with every plot drawn."""
    return {path: content if isinstance(content, str) else draw(content) for path, content in contents.items()}


def _contents(grouped: Iterable[Board], analyses: Iterable[AnalysisRecord]) -> dict[str, str | Plot | HeatMap]:
    """What ``render`` returns, with plots that are not drawn yet."""
    by_task: dict[str, list[Board]] = defaultdict(list)
    for board in grouped:
        task = board.records[0].identity.task
        path = f"{safe_name(task)}.md"
        if path in (INDEX, *BY_HAND):
            raise BenchError(f"a task named {task!r} would overwrite {path}; rename the task")
        by_task[path].append(board)
    by_analysis = {page_path(name): of_name for name, of_name in groups(analyses).items()}
    contents: dict[str, str | Plot | HeatMap] = {INDEX: markdown.index_page(by_task, by_analysis)}
    for path, of_name in by_analysis.items():
        contents[path] = markdown.analysis_page(of_name)
        for group in of_name:
            contents.update(group.figures())
    for path, of_task in by_task.items():
        contents[path] = markdown.task_page(of_task, by_analysis)
        for board in of_task:
            contents.update(plots(board))
    return contents


def _generated(root: Path) -> set[str]:
    """Paths of the files in ``root`` that only this module writes."""
    files = [path for path in root.glob("*.md") if path.name not in BY_HAND] + list((root / "plots").rglob("*.svg"))
    return {path.relative_to(root).as_posix() for path in files}
