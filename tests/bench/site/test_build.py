"""The site as files: the same however it is made, links that lead somewhere, hostile text as text, folders left alone."""

import json
import random
import re
from html import unescape
from pathlib import Path

import pytest

from bench.leaderboard.markup import Markup, element
from bench.site import build
from bench.site import records as records_of
from bench.storage.records import write_record
from tests.bench.leaderboard.records import WEIGHTS, golden_records, record, several

HOSTILE = "<img src=x onerror=\"document.title='owned'\">'&</script>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of leaderboards with records."""
    for r in golden_records():
        write_record(r, tmp_path / "leaderboards" / "records")
    return tmp_path / "leaderboards"


def test_every_board_method_and_record_has_its_place(root):
    files = build.render(golden_records())
    board = files["boards/toy-v1-digits-mlp-desk.html"]
    assert "imp ↳ shuffle" in board
    assert "provisional" in board
    assert "1 of 2" in files["methods/imp.html"]
    assert "train, prune, rewind, repeat" in files["methods/imp.html"]
    mine = record(0, 89.8, densities=WEIGHTS, speedup=1.25)
    assert f'id="{mine.id}"' in files["records/toy/digits-mlp-desk/imp.html"]
    assert mine.command in files["records/toy/digits-mlp-desk/imp.html"]
    assert f"records/toy/digits-mlp-desk/imp.html#{mine.id}" in files["records.html"]


def test_the_order_of_records_changes_nothing():
    records = golden_records()
    first = build.render(records)
    random.Random(1).shuffle(records)
    assert build.render(records) == first


def test_more_than_a_thousand_records_are_a_table_a_script_and_a_list_of_folders():
    records = [r for i in range(335) for r in several([1.0, 2.0, 3.0], densities=WEIGHTS, label=f"m{i}", method=f"m{i}")]
    files = dict(records_of.pages(records, {}))
    whole = files["records.html"]
    assert whole.count("<tr") == 1001
    assert 'src="records.js"' in whole
    assert whole.count("<li><a href=") == 335
    assert sum(text.count("<tr") - 1 for address, text in files.items() if address.startswith("records/")) == 1005
    said = re.fullmatch(r'window.moreRows = {table: "records", count: 5, columns: JSON.parse\((.*)\)};\n', files["records.js"])
    pages, ids, tasks, *_ = json.loads(json.loads(said[1]))
    assert pages == [[f"records/toy/digits-mlp-desk/m{n}.html" for n in (98, 99)], [0, 0, 1, 1, 1]]
    assert set(ids) < {r.id for r in records}
    assert tasks == [["toy"], [0, 0, 0, 0, 0]]


def test_controls_can_be_hidden_on_every_page_of_records():
    records = several([1.0], densities=WEIGHTS) + several([1.0], densities=WEIGHTS, control="random")
    for address, text in records_of.pages(records, {}):
        assert text.count("data-control") == 1, address


def test_what_a_record_says_is_never_markup():
    files = build.render(several([80.0, 81.0, 82.0], densities=WEIGHTS, label=HOSTILE, method=HOSTILE, task=HOSTILE))
    for address, text in files.items():
        assert "<img" not in text or address.endswith(".js"), address
        assert "<" not in address
    assert any(HOSTILE in unescape(text) for text in files.values())


def test_the_command_writes_checks_and_leaves_other_folders_alone(root, bench, tmp_path):
    to = tmp_path / "site"
    assert bench("site", "--root", str(root), "--to", str(to)) == 0
    old = to / "boards" / "gone.html"
    old.write_text("old")
    assert bench("site", "--root", str(root), "--to", str(to)) == 0
    assert not old.exists()
    assert bench("site", "--root", str(root), "--check") == 0
    assert bench("site", "--root", str(root), "--to", str(root)) == 1
    assert "name a folder that may be written over" in bench.err
    assert bench("site", "--root", str(tmp_path / "none"), "--to", str(to)) == 1
    assert "no folder" in bench.err


def test_an_element_escapes_texts_and_attributes():
    inner = element("b", "<&>")
    assert inner == "<b>&lt;&amp;&gt;</b>"
    assert element("a", inner, Markup("<br/>"), "\x00", None, href='"x"', class_="c", aria_label=None) == (
        '<a href="&quot;x&quot;" class="c"><b>&lt;&amp;&gt;</b><br/>\ufffd</a>'
    )


def test_every_table_has_a_header_for_every_cell():
    for address, text in build.render(golden_records()).items():
        for table in re.findall(r"<table.*?</table>", text, re.S):
            head, *rows = (row.count("<th") + row.count("<td") for row in re.findall(r"<tr.*?</tr>", table, re.S))
            assert set(rows) <= {head}, address
