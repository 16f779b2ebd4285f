"""The stage store: checksums, what a kill leaves behind."""

import errno
import hashlib
import json

import pytest
import torch

from bench.errors import BenchError, Held
from bench.storage.stages import Store

STATE = {"model/w": torch.arange(6.0).reshape(2, 3)}


def info(checkpoint=False):
    """The least a stage says."""
    return {"checkpoint": checkpoint, "progress": {}}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_put_and_get(store):
    assert store.get("k", 5) is None
    assert store.latest("k", 5) is None
    stage = store.put("k", 5, STATE, info())
    assert store.get("k", 5).info == info()
    assert torch.equal(store.get("k", 5).tensors()["model/w"], STATE["model/w"])
    assert store.latest("k", 9).step == 5
    assert store.latest("k", 4) is None
    assert sorted(p.name for p in stage.folder.iterdir()) == ["done", "stage.json", "state.safetensors"]


def test_later_steps_drop_checkpoints_only(store):
    store.put("k", 2, STATE, info())
    store.put("k", 4, STATE, info(checkpoint=True))
    store.put("k", 6, STATE, info())
    assert sorted(p.name for p in (store.root / "stages" / "k").iterdir()) == ["2", "6"]


def test_half_a_stage_is_none(store):
    home = store.root / "stages" / "k"
    (home / "7").mkdir(parents=True)
    (home / "7" / "state.safetensors").write_bytes(b"half")
    (home / "9.123.partial").mkdir()
    (home / "9.123.partial" / "done").write_text("{}")
    assert store.get("k", 7) is None
    assert store.latest("k", 10) is None
    store.put("k", 7, STATE, info())
    assert [p.name for p in home.iterdir()] == ["7"]
    assert store.get("k", 7) is not None


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
@pytest.mark.parametrize("name", ["state.safetensors", "stage.json", "done"])
def test_damage_is_noticed(store, name, damage):
    path = store.put("k", 5, STATE, info()).folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BenchError, match=r"stages/k/5 is damaged.*delete that folder and run again"):
        store.get("k", 5).tensors()


def test_evaluations(store):
    stage = store.put("k", 5, STATE, info())
    assert stage.evaluations() == {}
    stage.add_evaluation("val", {"accuracy": 70.1})
    stage.add_evaluation("test", {"accuracy": 70.3})
    assert stage.evaluations() == {"val": {"accuracy": 70.1}, "test": {"accuracy": 70.3}}
    path = stage.folder / "evals.test.json"
    for text in (path.read_text().replace("70.3", "90.3"), path.read_text()[:-9], "[]", json.dumps({"test": {"accuracy": 99}})):
        path.write_text(text)
        with pytest.raises(BenchError, match=r"evals.test.json is damaged .*delete it and run again"):
            stage.evaluations()


def test_evaluations_of_older_stages_are_read(store):
    """They had one file for all splits."""
    stage = store.put("k", 5, STATE, info())
    splits = {"val": {"accuracy": 70.1}}
    total = hashlib.sha256(b'{"val":{"accuracy":70.1}}').hexdigest()
    (stage.folder / "evals.json").write_text(json.dumps({"splits": splits, "sum": total}))
    stage.add_evaluation("test", {"accuracy": 70.3})
    assert stage.evaluations() == {"val": {"accuracy": 70.1}, "test": {"accuracy": 70.3}}


def test_no_space(store, monkeypatch):
    store.put("k", 5, STATE, info())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bench.storage.stages.save_file", full)
    with pytest.raises(BenchError, match=r"no space left below .*another store=DIR.*finished stages are kept"):
        store.put("k", 9, STATE, info())
    assert [p.name for p in (store.root / "stages" / "k").iterdir()] == ["5"]
    assert store.get("k", 5).tensors()


def test_a_key_is_one_process_s_at_a_time(store):
    other = Store(store.root)
    assert not other.held("k")
    with store.lock("k"):
        assert other.held("k")
        with pytest.raises(Held, match="another process trains stage k"), other.lock("k", wait=False):
            pass
        with other.lock("l", wait=False):
            pass
    with other.lock("k", wait=False):
        pass
    assert not other.held("k")
