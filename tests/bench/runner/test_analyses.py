"""Analyses: run, seal, publish, pages, plots, verify; bad ones are one clear line."""

import json
from pathlib import Path

import pytest

from bench.cli import main
from bench.leaderboard.analysis_tables import groups
from bench.runner.analyses import requested
from bench.storage.analysis_records import read_analyses
from tests.conftest import TOY

SIZES = '''
from pruning.metadata import analysis


@analysis(keys=("tensor", "density"), plots=("entries",))
def sizes(lab, densities, factor=2.0, parts=("first.weight", "last.weight"), empty=False):
    """Entries of tensors, times a factor.

    And more.
    """
    state = lab.start("end")
    for density in densities:
        for part in () if empty else parts:
            weight = dict(lab.load(state).named_parameters())[part]
            yield {"tensor": part, "density": density["weights"], "entries": factor * weight.numel(),
                   "seed": float(lab.seed), "nothing": None}
'''


@pytest.fixture
def analyse(bench, tmp_path):
    """``bench analyse`` of the toy task."""
    path = tmp_path / "mine.py"
    path.write_text(SIZES)

    def run(*words: str, name: str = f"{path}:sizes") -> int:
        return bench(
            "analyse", name, TOY, "threads=1", "jobs=1", f"store={tmp_path / 'store'}", f"runs={tmp_path / 'runs'}", *words
        )

    return run


def test_an_analysis_makes_one_file_a_seed_and_a_table_of_means(analyse, bench, trainings):
    assert analyse("seeds=[0,1,2]", "analysis.factor=3", "analysis.parts=[last.weight]") == 0
    records = list(read_analyses(bench.folder / "runs"))
    assert [r.identity.seed for r in sorted(records, key=lambda r: r.identity.seed)] == [0, 1, 2]
    first = records[0]
    assert first.label == "sizes(factor=3, parts=['last.weight'])"
    assert first.about == "Entries of tensors, times a factor."
    assert (first.steps, len(first.stages)) == (24, 1)
    assert first.rows[0] == {"tensor": "last.weight", "density": 0.5, "entries": 96, "seed": first.identity.seed, "nothing": None}
    ((group,),) = groups(records).values()
    found = group.table()["last.weight", 0.2]
    assert (found["entries"].mean, found["entries"].n, found["seed"].mean, found["seed"].std) == (96, 3, 1, 1)
    assert "nothing" not in found
    assert "1 ± 2.5 (3)" in bench.out  # t(2) = 4.303 over the root of 3
    (plot,) = group.figures().values()
    assert (plot.x_label, plot.y_label) == ("density", "entries")
    assert [(s.label, s.x, s.y) for s in plot.panels[0].series] == [("last.weight", (0.5, 0.2), (96, 96))]
    assert len(trainings) == 3
    assert analyse("seeds=[0,1,2]", "analysis.factor=3", "analysis.parts=[last.weight]") == 0
    assert len(trainings) == 3


def test_published_analyses_have_pages_plots_and_a_check(analyse, bench):
    root = bench.folder / "leaderboards"
    assert analyse("seeds=[0]") == 0
    for path in (bench.folder / "runs").rglob("*.json"):  # as if made from a clean checkout
        raw = json.loads(path.read_text())
        raw["environment"].pop("git_dirty", None)
        record = next(read_analyses(bench.folder / "runs"))
        sealed = type(record).make(
            record.identity,
            **{
                **{n: getattr(record, n) for n in type(record).model_fields if n not in ("id", "digest", "identity")},
                "environment": raw["environment"],
            },
        )
        path.write_text(json.dumps(sealed.model_dump()))
    assert bench("publish", str(bench.folder / "runs"), "--root", str(root)) == 0
    assert bench("leaderboard", "--root", str(root)) == 0
    page = (root / "analysis_sizes.md").read_text()
    assert "| first.weight | 0.5" in page
    assert "[" in (root / "README.md").read_text().split("## Analyses")[1]
    assert len(list((root / "plots").rglob("*.svg"))) == 1
    assert bench("leaderboard", "--check", "--root", str(root)) == 0
    (root / "analysis_sizes.md").write_text(page.replace("0.5", "0.6"))
    assert bench("leaderboard", "--check", "--root", str(root)) == 1


def test_an_analysis_is_verified_by_running_it_again(analyse, bench):
    assert analyse("analysis.factor=1.5", "densities=[0.4]") == 0
    (path,) = (bench.folder / "runs").rglob("*.analysis.json")
    assert main(["verify", "--trust", str(path)]) == 0


def test_a_dry_run_counts_what_is_not_stored(analyse, bench, trainings):
    assert analyse("seeds=[0,1]", "--dry-run", "--json") == 0
    assert [row["to_train"] for row in json.loads(bench.out)] == [1, 1]
    assert trainings == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["analysis.factr=1"], "unknown option of analysis"),
        (["method=imp"], "an analysis runs no method"),
        (["analysis.empty=true"], "gave no rows"),
        (["analysis.factor=2e400"], "analysis.factor must be a finite number"),
        (["analysis.factor=1e308"], "measured entries as inf at tensor=first.weight"),
        (["analysis.parts=[a"], "cannot read"),
        (["analysis.parts=null"], "analysis.parts must be a list of text, such as [first.weight,last.weight]"),
        (["analysis.parts=[last.weight,last.weight]"], "two rows have the same tensor, density"),
        (["analysis.parts=[lst.weight]"], "KeyError"),
    ],
)
def test_bad_input_is_one_line(analyse, bench, words, message):
    assert analyse(*words) in (1, 2)
    assert message in bench.err
    assert not list((bench.folder / "runs").rglob("*.json"))


def test_an_analysis_of_several_rows_needs_keys(analyse, bench, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def plain(lab, densities):\n    yield from [{'far': 1.0}, {'far': 2.0}]\n    raise ValueError"
    )
    assert analyse(name=f"{tmp_path / 'mine.py'}:plain") == 1
    assert "mine.py:plain gave a second row: name the columns that identify it by @analysis(keys=(...))" in bench.err


def test_unknown_analyses_name_the_nearest(analyse, bench):
    assert analyse(name="sizs") == 2
    assert "unknown analysis 'sizs'" in bench.err


def test_tampered_rows_are_refused(analyse, bench):
    assert analyse() == 0
    (path,) = (bench.folder / "runs").rglob("*.analysis.json")
    path.write_text(path.read_text().replace("256.0", "257.0"))
    assert bench("publish", str(bench.folder / "runs"), "--root", str(bench.folder / "boards")) == 1
    assert "the digest is not that of the record" in bench.err


def test_options_are_read_as_hydra_reads_values(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SIZES)
    analysis, rest = requested(f"{path}:sizes", ["analysis.factor=1e-3", "seeds=[1]", "analysis.empty=true"])
    assert analysis.options == {"factor": 0.001, "parts": ["first.weight", "last.weight"], "empty": True}
    assert rest == ["seeds=[1]"]
    assert Path(path).name in analysis.name
