"""The columnar copy of a folder's records: the same records, and whatever is wrong with it."""

import json
import os

import pytest

from bench.errors import BenchError
from bench.storage import record_cache
from bench.storage.record_cache import NAME, load_records
from bench.storage.records import read_records, write_record
from tests.bench.leaderboard.records import golden_records


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of records, which is copied however few they are."""
    monkeypatch.setattr(record_cache, "FEWEST", 0)
    for record in golden_records():
        write_record(record, tmp_path / "records")
    return tmp_path / "records"


def said(records):
    """All that the records say but for their tensors."""
    return [record.model_dump(exclude={"tensors"}) for record in records]


def reads(monkeypatch):
    """The files that are read one by one, from now on."""
    read: list = []
    one = record_cache.read_record
    monkeypatch.setattr(record_cache, "read_record", lambda path: read.append(path.name) or one(path))
    return read


def test_the_copy_says_what_the_files_say(folder, monkeypatch):
    whole = said(read_records(folder))
    read = reads(monkeypatch)
    assert said(load_records(folder)) == whole
    assert len(read) == len(whole)
    assert said(load_records(folder)) == whole
    assert len(read) == len(whole)
    shared = {id(record.identity.config) for record in load_records(folder)}
    assert len(shared) < len(whole)


def test_only_files_that_changed_are_read(folder, monkeypatch):
    load_records(folder)
    paths = sorted(folder.rglob("*.json"))
    gone, touched = paths[0], paths[1]
    gone.unlink()
    os.utime(touched, ns=(1, 1))
    read = reads(monkeypatch)
    assert said(load_records(folder)) == said(read_records(folder))
    assert read == [touched.name]


def test_an_edited_file_is_refused_as_ever(folder):
    load_records(folder)
    path = sorted(folder.rglob("*.json"))[3]
    content = json.loads(path.read_text())
    content["label"] = "better"
    path.write_text(json.dumps(content))
    with pytest.raises(BenchError, match="the digest is not that of the record"):
        load_records(folder)


@pytest.mark.parametrize(
    "damage", [lambda t: t[: len(t) // 2], lambda t: t.replace("imp", "imq"), lambda t: "", lambda t: "[]", lambda t: t[::-1]]
)
def test_a_damaged_copy_is_made_again(folder, damage):
    whole = said(load_records(folder))
    sound = (folder / NAME).read_text()
    (folder / NAME).write_text(damage(sound))
    assert said(load_records(folder)) == whole
    assert (folder / NAME).read_text() == sound


def test_a_copy_of_another_version_is_made_again(folder, monkeypatch):
    monkeypatch.setattr(record_cache, "VERSION", "older")
    load_records(folder)
    monkeypatch.undo()
    monkeypatch.setattr(record_cache, "FEWEST", 0)
    read = reads(monkeypatch)
    assert said(load_records(folder)) == said(read_records(folder))
    assert len(read) == len(golden_records())


def test_a_folder_that_cannot_be_written_to_is_read(folder, monkeypatch):
    def refuse(path, text):
        raise PermissionError(path)

    monkeypatch.setattr(record_cache, "write_atomic", refuse)
    assert said(load_records(folder)) == said(read_records(folder))
    assert not (folder / NAME).exists()


def test_small_folders_have_no_copy(tmp_path):
    for record in golden_records():
        write_record(record, tmp_path)
    assert said(load_records(tmp_path)) == said(read_records(tmp_path))
    assert not (tmp_path / NAME).exists()
    assert load_records(tmp_path / "none") == []
