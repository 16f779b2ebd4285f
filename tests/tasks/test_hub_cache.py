"""What tasks share: files of the hub's layout, and the cache of what can be made again."""

from pathlib import Path
from unittest.mock import MagicMock

import pyarrow
import pytest
import torch
from pyarrow import parquet

from bench.task import BenchError
from tasks import cache, hub


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """No user's data or cache, and a hub that refuses at once."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCH_DATA", raising=False)


def write(folder: Path, **files: list[int]) -> Path:
    """Parquet files of the columns x and y = -x."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        table = pyarrow.table({"x": rows, "y": [-x for x in rows]})
        parquet.write_table(table, folder / f"{name.replace('_', '-')}.parquet")
    return folder


def test_root_then_variable_then_hub(tmp_path, monkeypatch):
    here, there = (write(tmp_path / root / "some" / "set" / "part", train_0=[1]) for root in ("here", "there"))
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "there"))
    assert hub.dataset("some/set", "part", ("train",), str(tmp_path / "here")) == here
    assert hub.dataset("some/set", "part", ("train",), None) == there
    with pytest.raises(BenchError, match=r"no data set at .*there/some/set/other: put the files of https.*/set there"):
        hub.dataset("some/set", "other", ("train",), None)
    monkeypatch.delenv("BENCH_DATA")
    with pytest.raises(BenchError, match=r"dataset some/set \(part/\*.parquet\) is not in the hub's cache") as caught:
        hub.dataset("some/set", "part", ("train",), None)
    assert "\n" not in str(caught.value)


def test_a_download_cut_short_is_not_taken_for_whole(tmp_path, monkeypatch):
    asked = []

    def download(name, repo_type, allow_patterns, local_files_only):
        asked.append(local_files_only)
        write(tmp_path / "part", **({"train_0": [1]} if local_files_only else {"test_0": [2]}))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.utils.get_session", MagicMock())
    assert hub.dataset("some/set", "part", ("train", "test"), None) == tmp_path / "part"
    assert asked == [True, False]
    with pytest.raises(BenchError, match=r"the hub did not give it \(it has no part/val-\*.parquet\)"):
        hub.dataset("some/set", "part", ("train", "val"), None)


def test_parquet_files_of_a_split_are_read_in_order(tmp_path):
    folder = write(tmp_path / "x=7", train_00001=[3], train_00000=[1, 2], training_0=[9], test_0=[4])
    assert hub.read(folder, "train", ["x"]).to_pydict() == {"x": [1, 2, 3]}
    assert hub.read(folder, "test", ["y", "x"]).to_pydict() == {"y": [-4], "x": [4]}
    other = write(tmp_path / "y" / "x=7", train_00000=[5])
    assert hub.read(other, "train", ["x"])["x"].to_pylist() == [5]
    with pytest.raises(BenchError, match=r"no val-\*.parquet in .*x=7"):
        hub.read(folder, "val", ["x"])
    with pytest.raises(BenchError, match=r"test in .* cannot be read with columns x, z"):
        hub.read(folder, "test", ["x", "z"])
    (folder / "test-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(BenchError, match=r"test in .* cannot be read") as caught:
        hub.read(folder, "test", ["x"])
    assert "\n" not in str(caught.value)


def test_kept_is_made_once_and_again_when_damaged(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"a": torch.arange(6).view(2, 3), "b": torch.tensor([True])}, {"colour": "red"}

    first, facts = cache.kept("things/one", make)
    again, same = cache.kept("things/one", make)
    assert len(made) == 1
    assert again["a"].tolist() == first["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert again["b"].tolist() == [True]
    assert same == facts == {"colour": "red", "sha256": cache.digest(first)}
    path = tmp_path / "cache" / "things" / "one.safetensors"
    good = path.read_bytes()
    for bad in (good[:-1], good[:-1] + bytes([good[-1] ^ 1]), good[:5], b""):
        path.write_bytes(bad)
        for _ in range(2):  # the second finds what the first has mended
            assert cache.kept("things/one", make)[0]["a"].equal(first["a"])
    assert len(made) == 5
    assert not list(path.parent.glob("*.partial"))


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(BenchError, match=r"cannot keep .*cache/one.safetensors \(.*\): set BENCH_CACHE") as caught:
        cache.kept("one", lambda: ({"a": torch.zeros(1)}, {}))
    assert "\n" not in str(caught.value)


def test_digest_sees_names_shapes_types_and_content():
    tensors = [
        {"a": torch.zeros(2)},
        {"b": torch.zeros(2)},
        {"a": torch.zeros(1, 2)},
        {"a": torch.ones(2)},
        {"a": torch.zeros(2, dtype=torch.int32)},
    ]
    assert len({cache.digest(t) for t in tensors}) == 5
    a, b = torch.zeros(2), torch.ones(1)
    assert cache.digest({"a": a, "b": b}) == cache.digest({"b": b, "a": a})
