"""The site as a whole: a pure function of records and claims, written to a folder that opens without a server."""

import re
from collections.abc import Iterable, Sequence
from html import unescape
from pathlib import Path, PurePosixPath
from posixpath import normpath
from urllib.parse import unquote

from bench.claims.judge import judge
from bench.claims.schema import Paper
from bench.claims.schema import read as read_claims
from bench.errors import BenchError
from bench.leaderboard import pages, svg
from bench.leaderboard.boards import boards as boards_of
from bench.site import boards, claims, front, methods, records
from bench.site import suites as suite_pages
from bench.storage.analysis_records import AnalysisRecord
from bench.storage.record_cache import without_collection
from bench.storage.records import Record
from bench.storage.reruns import Rerun, outcomes
from bench.suites.ranking import ranking
from bench.suites.schema import Suite

MARK = "site.css"
"""A folder that has it may be written over."""
ASSETS = Path(__file__).parent / "assets"
REFERENCE = re.compile(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"')


def render(
    of: Iterable[Record],
    papers: Iterable[Paper] = (),
    analyses: Iterable[AnalysisRecord] = (),
    suites: Iterable[Suite] = (),
    reruns: Sequence[Rerun] = (),
) -> dict[str, str]:
    """Address -> text of every file of the site. The order of the records changes nothing."""
    of = list(of)
    grouped = boards_of(of, reruns)
    verdicts = judge(papers, grouped, analyses)
    rankings = [ranking(suite, grouped) for suite in suites]
    made = [front.page(rankings, grouped, verdicts), *suite_pages.pages(rankings, grouped), *map(boards.board_page, grouped)]
    made += [*methods.pages(grouped, verdicts), claims.page(verdicts)]
    files = {page.address: str(page) for page in made} | dict(records.pages(of, outcomes(reruns, {r.id: r.digest for r in of})))
    styles = (ASSETS / "site.css").read_text(encoding="utf-8") + svg.STYLE
    return files | {"site.css": styles, "site.js": (ASSETS / "site.js").read_text(encoding="utf-8")}


@without_collection()
def write(root: Path, to: Path) -> list[Path]:
    """Write the site of the leaderboards in ``root`` to a folder, and remove the pages there that are no longer of it."""
    if to.exists() and (not to.is_dir() or (any(to.iterdir()) and not (to / MARK).is_file())):
        raise BenchError(f"{to} is not empty and no site: name a folder that may be written over with --to")
    files = render(*_found(root))
    for path in [*to.rglob("*.html"), *to.rglob("*.js")]:
        if path.relative_to(to).as_posix() not in files:
            path.unlink()
    for address, text in files.items():
        path = to / address
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return [to / address for address in files]


@without_collection()
def check(root: Path) -> list[str]:
    """What is wrong with the site of ``root``, as lines to print: pages that the order of the records changes, and links that
    lead nowhere. Nothing is written."""
    records, papers, analyses, suites, reruns = _found(root)
    files, again = (render(of, papers, analyses, suites, reruns) for of in (records, reversed(records)))
    lines = [f"not the same when it is made again: {address}" for address in files if files[address] != again.get(address)]
    for address, text in files.items():
        if address.endswith(".html"):
            folder = PurePosixPath(address).parent
            for target in sorted(set(REFERENCE.findall(text))):
                if normpath((folder / unquote(unescape(target))).as_posix()) not in files:
                    lines.append(f"{address} has a link to {target}, where nothing is")
    return lines


def _found(root: Path) -> tuple[list[Record], list[Paper], list[AnalysisRecord], list[Suite], list[Rerun]]:
    """What the site of ``root`` is made of: records, claims, where there are any, analyses, suites and re-runs."""
    records, analyses, suites, reruns = pages.read(root)
    papers = read_claims(root / "claims") if (root / "claims").is_dir() else []
    return records, papers, analyses, suites, reruns
