"""The files of a city: read by name, and refused in one line where they are damaged."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from bench.task import BenchError
from tasks.tour_flickr import data, reader

from .city import TRIPS, osaka, write


@pytest.mark.parametrize("swapped", [False, True])
def test_files_are_read_by_name_and_put_in_order_of_time(tmp_path, swapped):
    write(tmp_path, swapped=swapped)
    city = reader.read("osaka", str(tmp_path))
    assert city.ids == ("4", "5", "7", "9", "2")
    assert city.category_names == ("Museum", "Park", "Shop")
    assert city.categories.tolist() == [1, 0, 1, 2, 2]
    assert city.coordinates[:, 0].tolist() == [0, 0.1, 0.2, 0.3, 0.4]
    assert [[city.ids[poi] for poi in trip] for trip in city.trips] == [list(map(str, trip)) for trip in TRIPS.values()]
    assert city.hours[0] == [8, 9, 10, 11]
    tours = osaka(tmp_path)
    assert tours.short.tolist() == [2, 3]
    assert tours.distances[0, 1] == pytest.approx(6371.0088 * np.pi / 1800)


def _edit(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / "tours" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("traj-Osak.csv", "u1,1,9,", "u1,1,77,", "trip 1 visits POI 77, which poi-Osak.csv does not list"),
        ("traj-Osak.csv", "u1,1,4,", "u1,1,2,", "trip 1 visits POI 2 twice"),
        ("traj-Osak.csv", "u1,1,9,28800,28860", "u1,1,9,28800,28700", "leaves POI 9 before it arrives"),
        ("traj-Osak.csv", "u1,1,9,28800", "u1,1,9,noon", "startTime is 'noon' where a number is due"),
        ("traj-Osak.csv", "u1,1,9,28800,28860,1,4,60\n", "", "trip 1 has 3 of its 4 visits: it was cut short"),
        ("traj-Osak.csv", "u1,1,9,28800,28860,1,4,60", "u1,1,9,288", "has 4 of 8 values: it was cut short"),
        ("traj-Osak.csv", "u1,1,9,", "u2,1,9,", "trip 1 is of two users"),
        ("poi-Osak.csv", "4,Park,", "4,,", "POI 4 has no category"),
        ("poi-Osak.csv", "poiCat", "kind", "names no column poiCat"),
        ("poi-Osak.csv", "5,Museum", "4,Museum", "a POI is listed twice"),
        ("poi-Osak.csv", "Park,0.0,0.0", "Park,0.0,95", "is no longitude or latitude"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, name, old, new, said):
    _edit(write(tmp_path), name, old, new)
    with pytest.raises(BenchError) as error:
        osaka(tmp_path)
    assert said in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_cut_within_its_last_number_is_noticed(tmp_path):
    path = write(tmp_path) / "tours" / "traj-Osak.csv"
    path.write_text(path.read_text()[:-2])
    with pytest.raises(BenchError, match="its last line does not end: it was cut short"):
        osaka(tmp_path)


def test_only_short_trips_are_one_line(tmp_path):
    write(tmp_path, {1: (4, 5), 2: (7,)})
    with pytest.raises(BenchError, match="no trip has 3 or more visits"):
        osaka(tmp_path)


def test_missing_files_say_where_they_belong(tmp_path, alone):
    with pytest.raises(BenchError, match=r"no poi-Osak.csv in .*put the files of"):
        osaka(tmp_path)


def test_a_download_is_checked_and_kept(tmp_path, alone, monkeypatch):
    source = write(tmp_path / "source") / "tours"
    monkeypatch.setattr(reader, "URL", source.as_uri())
    with pytest.raises(BenchError, match="its sha256 differs"):
        data.load({"name": "osaka", "root": None, "folds": 3, "val": 0.2, "split_seed": 0})
    sums = {p.stem: hashlib.sha256(p.read_bytes()).hexdigest() for p in source.glob("*.csv")}
    monkeypatch.setattr(reader, "SHA256", sums)
    options = {"name": "osaka", "root": None, "folds": 3, "val": 0.2, "split_seed": 0}
    whole = data.load(options).fingerprint
    monkeypatch.setattr(reader, "URL", (tmp_path / "gone").as_uri())
    assert data.load(options).fingerprint == whole
    (tmp_path / "cache" / "tours" / "poi-Osak.csv").write_text("damaged")
    with pytest.raises(BenchError, match="cannot download"):
        data.load(options)
