"""Records of every schema that ever existed can be read. Those in ``schemas`` are frozen: the code of their time wrote them."""

import json
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.storage.analysis_records import AnalysisRecord
from bench.storage.migrations import MIGRATIONS, SCHEMA
from bench.storage.records import Record, read_record, read_records, read_sealed, write_record

SCHEMAS = Path(__file__).parent / "schemas"


def test_every_schema_has_a_frozen_record_and_every_older_one_a_migration():
    versions = range(1, SCHEMA + 1)
    assert all((SCHEMAS / f"{version}.json").exists() for version in versions)
    assert list(MIGRATIONS) == list(versions)[:-1]
    assert len(list(read_records(SCHEMAS))) == 3


def test_the_current_schema_is_read_as_it_is():
    raw = json.loads((SCHEMAS / f"{SCHEMA}.json").read_text())
    assert read_record(SCHEMAS / f"{SCHEMA}.json").model_dump() == raw
    assert read_sealed(SCHEMAS / "2.analysis.json", AnalysisRecord).model_dump() == json.loads(
        (SCHEMAS / "2.analysis.json").read_text()
    )


def test_schema_1_gets_the_densities_requested_before_from_its_command(tmp_path):
    old, new = read_record(SCHEMAS / "1.json"), read_record(SCHEMAS / "2.json")
    assert old.identity.rounds == new.identity.rounds == [{"weights": 0.5}]
    assert old.result == new.result  # the same command, numbers unchanged
    assert (old.budgets, old.ticket.masks) == (new.budgets, new.ticket.masks)
    assert old.schema_version == SCHEMA
    path = write_record(old, tmp_path)  # published as a record of today
    assert path.stem == old.id != "f6bfec351664e5c6"
    assert read_record(path) == old


def test_the_first_records_had_no_digest_and_fewer_numbers():
    record = read_record(SCHEMAS / "1_without_digest.json")
    assert record.identity.rounds == []
    assert record.result.test["accuracy"] == 62.5
    assert record.result.untrained_test is None
    assert record.cost.search_at_sparse_rate is None


def changed(tmp_path: Path, change) -> Path:
    """A record of schema 1 after a change."""
    raw = json.loads((SCHEMAS / "1.json").read_text())
    change(raw)
    path = tmp_path / "record.json"
    path.write_text(json.dumps(raw))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["result"]["test"].update(accuracy=99.0), "the digest is not that of the record"),
        (lambda r: r["identity"].update(seed=7), "its id is not that of the identity block"),
        (lambda r: r.pop("identity"), "is not a valid record of schema version 1: 'identity'"),
        (lambda r: r.update(schema_version=3), "was made by a newer Ticket Bench (schema version 3, this is version 2): update"),
        (lambda r: r.update(schema_version=True), "has schema version True, which was never in use"),
    ],
)
def test_an_old_record_that_was_edited_is_refused_in_one_line(tmp_path, change, message):
    path = changed(tmp_path, change)
    with pytest.raises(BenchError) as error:
        read_record(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_rounds_that_no_command_gives_are_named_unknown(tmp_path):
    def default_densities(raw):
        raw["command"] = "bench run tests/toy method=imp"
        del raw["digest"]

    record: Record = read_record(changed(tmp_path, default_densities))
    assert record.identity.rounds == []
    assert record.ticket.notes["rounds"].startswith("unknown")
