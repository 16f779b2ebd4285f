"""Every command that a page shows can be given, its configuration composes, its Python runs, and its links lead somewhere."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from bench import cli, registry
from bench.config import settings
from bench.runner.analyses import requested

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "tasks").glob("*/README.md"))]
COMMAND = re.compile(r"^ {4}(bench [^\n]*)|`(bench (?:run|analyse) [^`]*)`|`(method=[^`]*)`", re.M)
"""Whole; or what is said to ``bench run`` of the page's task."""
PLACEHOLDER = re.compile(r"\.\.\.|\bmy_|\bmine\b|path/to|\b[A-Z]\b|[A-Z]{2,}")


def commands() -> list:
    """The words of every command that names no file of the reader's, and the page it stands on."""
    found = {}
    for page in PAGES:
        for match in COMMAND.finditer(page.read_text(encoding="utf-8").replace("\\\n", " ")):
            if match[3] and page.parent.parent.name != "tasks":
                continue
            for part in (match[1] or match[2] or f"bench run tasks/{page.parent.name} {match[3]}").split(" #")[0].split("&&"):
                if not PLACEHOLDER.search(part):
                    found[" ".join(part.split())] = page.parent.name
    return [pytest.param(shlex.split(text)[1:], id=f"{page}: {text}") for text, page in found.items()]


@pytest.mark.parametrize("words", commands())
def test_a_command_on_a_page_can_be_given(words):
    given = cli.parser().parse_args(words)
    if given.name in ("run", "analyse"):
        _, overrides = requested(given.analysis, given.overrides) if given.name == "analyse" else (None, given.overrides)
        for setting in settings(given.task, overrides):
            assert registry.method(setting.config["method"]["name"])


@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text(encoding="utf-8")], ids=lambda p: p.name)
def test_the_python_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what they write
    (tmp_path / "leaderboards").symlink_to(ROOT / "leaderboards")  # what they read
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("*.md"))], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Those of docs/ to other pages of docs/ alone, which is a site of its own."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    files = [page.parent / link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if ":" not in link]
    assert not [file for file in files if not file.exists()]
    assert page.parent.name != "docs" or all(file.resolve().is_relative_to(ROOT / "docs") for file in files)


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert re.search(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1] == version
