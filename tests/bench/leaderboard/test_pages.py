"""Files of the leaderboards: golden pages, and what ``check`` notices.

After an intended change: ``python -m tests.bench.leaderboard.test_pages`` writes the golden pages again; read their diff.
"""

import random
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.leaderboard import pages
from bench.storage.records import write_record
from tests.bench.leaderboard.records import WEIGHTS, golden_records, record, several

GOLDEN = Path(__file__).parents[2] / "golden"


def markdown(records):
    """The Markdown files alone."""
    return {path: text for path, text in pages.render(records).items() if path.endswith(".md")}


def test_golden_pages():
    made = markdown(golden_records())
    assert sorted(made) == sorted(path.name for path in GOLDEN.glob("*.md"))
    for path, text in made.items():
        assert text == (GOLDEN / path).read_text(encoding="utf-8"), path


def test_order_of_records_changes_nothing_and_plots_repeat_to_the_byte():
    records = golden_records()
    first = pages.render(records)
    random.Random(0).shuffle(records)
    assert pages.render(records) == first
    assert any(path.endswith(".svg") for path in first)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record(0, 1.0), record(0, 2.0)], "two records have id"),
        ([record(0, 1.0, densities=WEIGHTS), record(1, 1.0, densities=WEIGHTS, metric="loss")], "different metrics"),
        ([record(0, 1.0, task="RULES")], "would overwrite RULES.md"),
    ],
)
def test_what_cannot_be_a_board_is_one_line(records, message):
    with pytest.raises(BenchError, match=message) as error:
        pages.render(records)
    assert "\n" not in str(error.value)


def test_check_notices_every_difference(tmp_path):
    rules = tmp_path / "RULES.md"
    rules.write_text("by hand")
    for r in several([80.0, 81.0, 82.0], densities=WEIGHTS):
        write_record(r, tmp_path / "records")
    pages.write(tmp_path)
    assert pages.check(tmp_path) == []

    page, plot = tmp_path / "toy.md", next((tmp_path / "plots").rglob("density-weights.svg"))
    page.write_text(page.read_text(encoding="utf-8").replace("81.00", "99.00"), encoding="utf-8")
    assert any(line.startswith("-") and "99.00" in line for line in pages.check(tmp_path))
    pages.write(tmp_path)
    page.write_text(page.read_text(encoding="utf-8").rstrip("\n"), encoding="utf-8")
    assert pages.check(tmp_path)
    pages.write(tmp_path)
    plot.write_text(plot.read_text(encoding="utf-8").replace("accuracy", "ACCURACY"), encoding="utf-8")
    assert pages.check(tmp_path) == [f"not drawn from these records, or edited: {plot.relative_to(tmp_path).as_posix()}"]
    plot.unlink()
    assert pages.check(tmp_path) == [f"missing: {plot.relative_to(tmp_path).as_posix()}"]
    pages.write(tmp_path)
    (tmp_path / "gone_task.md").write_text("old")
    assert pages.check(tmp_path) == ["stale, no record asks for it: gone_task.md"]
    pages.write(tmp_path)
    assert pages.check(tmp_path) == []

    added = write_record(record(3, 83.0, densities=WEIGHTS), tmp_path / "records")
    report = "\n".join(pages.check(tmp_path))
    assert "+++ toy.md" in report
    assert plot.name in report
    added.unlink()
    assert pages.check(tmp_path) == []

    for path in (tmp_path / "records").rglob("*.json"):
        path.unlink()
    pages.write(tmp_path)
    assert not page.exists()
    assert not list((tmp_path / "plots").iterdir())
    assert rules.read_text() == "by hand"
    assert "No records yet." in (tmp_path / "README.md").read_text(encoding="utf-8")


RESULTS = """<!-- results: `bench leaderboard` fills this in
- {board: toy-v1-digits-mlp-desk, title: Toy, section: Density of weights, densities: [0.5, 0.1], rows: ROWS}
-->
<!-- /results -->
Below."""


def repository(tmp_path, rows, folder="leaderboards"):
    """The folder of leaderboards of a repository whose README.md shows results."""
    readme = tmp_path / "README.md"
    readme.write_text(RESULTS.replace("ROWS", rows), encoding="utf-8")
    records = [
        *several([80.0, 81.0, 82.0], densities=WEIGHTS),
        *several([70.0, 71.0], densities=WEIGHTS, control="random"),
        *several([60.0], densities={"weights": 0.1}, rounds=[WEIGHTS]),
    ]
    for r in records:
        write_record(r, tmp_path / folder / "records")
    return tmp_path / folder, readme


def test_the_front_page_shows_the_results_of_the_records_and_check_notices_an_edit(tmp_path):
    root, readme = repository(tmp_path, "{imp: IMP, imp ↳ random: random masks}")
    assert readme in pages.write(root)
    text = readme.read_text(encoding="utf-8")
    assert "Toy: test accuracy; the whole network has 91.00 ± 2.48 (3)." in text
    assert [line for line in text.splitlines() if line.startswith(("| IMP", "| random"))] == [
        "| IMP          | 81.00 ± 2.48 (3) | 60.00 (1) |",
        "| random masks | 70.50 ± 6.35 (2) |           |",
    ]
    assert text.endswith("<!-- /results -->\nBelow.")
    assert pages.check(root) == []
    readme.write_text(text.replace("81.00", "99.00"), encoding="utf-8")
    assert any(line.startswith("-") and "99.00" in line for line in pages.check(root))
    pages.write(root)
    assert readme.read_text(encoding="utf-8") == text


def test_a_leaderboard_elsewhere_leaves_the_front_page_alone(tmp_path):
    root, readme = repository(tmp_path, "{no: such row}", "demo")
    pages.write(root)
    assert pages.check(root) == []
    assert readme.read_text(encoding="utf-8") == RESULTS.replace("ROWS", "{no: such row}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("imp:", "imq:", "unknown row of .* 'imq'; did you mean imp"),
        ("0.1]", "0.2]", "unknown density of .* '0.2'"),
        ("toy-v1", "toy-v2", "unknown board 'toy-v2"),
        ("of weights", "of edges", "unknown section of"),
        ("title: Toy, ", "", "no list of tables"),
        ("densities: [0.5, 0.1]", "densities: 0.5", "no list of tables"),
        ("- {board", "{{board", "no list of tables"),
    ],
)
def test_results_that_the_records_lack_are_one_line_before_anything_is_written(tmp_path, old, new, message):
    root, readme = repository(tmp_path, "{imp: IMP}")
    readme.write_text(readme.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(BenchError, match=message) as error:
        pages.write(root)
    assert "\n" not in str(error.value)
    assert not (root / "README.md").exists()


if __name__ == "__main__":
    for name, text in markdown(golden_records()).items():
        (GOLDEN / name).write_text(text, encoding="utf-8", newline="\n")
