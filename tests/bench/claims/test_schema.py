"""Entries that are refused in one line."""

import pytest
import yaml

from bench.claims import schema as claims
from bench.errors import UsageError
from tests.bench.claims.toy_claims import CLAIM, SPREADS, TOY, measured, reading


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"statment": "x"}, "claims.0.statment: Extra inputs are not permitted"),
        ({"expect": "beter"}, "unknown predicate 'beter'; did you mean better?"),
        (
            {"needs": {**CLAIM["needs"], "random": {"method": "imp", "control": "randm"}}},
            "unknown control 'randm'; did you mean random",
        ),
        ({"of": ["ticket", "rnd"]}, "unknown selection 'rnd'; did you mean random?"),
        ({"of": ["ticket", "dense"]}, "selection random is not compared"),
        ({"min_seeds": 2}, "claims.0.min_seeds: Input should be greater than or equal to 3"),
        ({"expect": "matches", "margin": 1.0}, "matches takes no margin"),
        ({"expect": "gap_grows"}, "gap_grows needs two densities"),
        ({"places": []}, "claims.0.places: List should have at least 1 item"),
    ],
)
def test_a_flaw_in_an_entry_is_one_line_that_names_the_file(tmp_path, changes, says):
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump({"paper": "P", "claims": [{**CLAIM, **changes}]}))
    with pytest.raises(UsageError) as error:
        claims.read(tmp_path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert "\n" not in message


def test_no_claims_damaged_yaml_and_ids_given_twice_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no claims"):
        claims.read(tmp_path)
    (tmp_path / "a.yaml").write_text("paper: [")
    with pytest.raises(UsageError, match=r"a\.yaml is not readable YAML"):
        claims.read(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"paper": "P", "claims": [CLAIM]}))
    with pytest.raises(UsageError, match=r"two claims below .* have id ticket-beats-random"):
        claims.read(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"paper: [", b"paper: \xff\xfe", b"[" * 5000, b"a: \x00", b"paper: 2026-13-01", b"paper: !!bool no?", None],
    ids=["open", "not UTF-8", "deep", "control character", "no date", "no truth", "folder"],
)
def test_a_file_that_cannot_be_read_is_one_line_that_names_it(tmp_path, content):
    path = tmp_path / "a.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        claims.read(tmp_path)
    assert str(error.value).startswith(f"{path} is not readable YAML: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("needs", "changes", "says"),
    [
        ({"a": "0it", "dense": "1ep"}, {}, "must not redefine dense"),
        (
            {"a": "0it", "b": "1ep"},
            {"places": [{"task": TOY, "data": "points", "protocol": "smoke", "densities": [0.5]}]},
            "at no densities",
        ),
        ({"a": {"number": 1}, "b": {"number": 2}}, {}, "one number with another says nothing"),
        ({"a": {"method": "imp", "value": "training"}, "b": {"method": "imp"}}, {}, "the same cost"),
        ({"a": {"method": "imp", "value": "training"}}, {"of": ["a", "dense"]}, "the same cost"),
        ({"a": {"method": "imp"}, "b": {"method": "imp", "control": "random"}}, {}, "names the densities"),
        ({"a": "0it", "b": {"method": "imp"}}, {}, "a value of an analysis is compared"),
    ],
)
def test_sides_that_cannot_be_compared_are_refused(tmp_path, capsys, needs, changes, says):
    path = tmp_path / "mine.py"
    path.write_text(SPREADS)
    sides = {name: reading(path, side) if isinstance(side, str) else side for name, side in needs.items()}
    with pytest.raises(ValueError, match=says):
        measured(tmp_path, capsys, None, sides, **changes)
