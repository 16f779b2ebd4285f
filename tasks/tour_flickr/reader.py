"""The ten CSV files of five cities (Chen, Ong & Xie 2016, github.com/computationalmedia/tour-cikm16): found, downloaded, read."""

import csv
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.task import BenchError, first_line
from tasks import cache, hub

SOURCE = "https://github.com/computationalmedia/tour-cikm16"
URL = "https://raw.githubusercontent.com/computationalmedia/tour-cikm16/27c8934712a5578bf8389ffb02f4bc01d1915e8e/data"
CITIES = {"edinburgh": "Edin", "glasgow": "Glas", "melbourne": "Melb", "osaka": "Osak", "toronto": "Toro"}
"""Name of the data set -> the part of the file names that stands for the city."""
SHA256 = {
    "poi-Edin": "7a31cbb97008358a72570bffbbf0b3a73a36a16f75f67fac871614215c056d62",
    "poi-Glas": "18ae8aa15c0e10f98bf16b53f3410bd84ff210377fcd44ae122466db6b005e1d",
    "poi-Melb": "006795142fb8911047c603f45f6333fb3d9dd16d39504aade508cbd1c34c435a",
    "poi-Osak": "b4df5b2d43289970fa5673686b7eb5a7279213a1608a204b7f6b34796599c8c3",
    "poi-Toro": "37e7ff3ba99885cae57923ef579f51860d5fc6f7b07d5c183b744b29d70e5187",
    "traj-Edin": "24a1eb38dffd3f28adb37dbd3449f0d2df9073475daa5e228c97d09754cf3180",
    "traj-Glas": "c4ccd4f113acb64516419632fc691483e19f0b5ded18b4b4af629c73a6e304bb",
    "traj-Melb": "bcb2f4a60c7b89d5a537643a48fd6203084f96b97c7e36e70579016fbb91eed0",
    "traj-Osak": "a7c439f3f74f6f096579a66fe17d191f600556bacdf4d15060589a4f36912691",
    "traj-Toro": "8e70d98cadc7eb652a455ccbaab032375bc98bdff543b77e7cc5ebada3f43251",
}
"""Of the files as downloaded. Files below a root of the user's own are read as they are: their content is in the fingerprint."""
SHORTEST = 3
"""Visits of the shortest trip that can be recommended: with fewer there is nothing between start and end."""


@dataclass(frozen=True)
class City:
    """Points of interest (POIs) and trips. ids (V,): what the files call each POI; coordinates (V, 2) float64: longitude and
    latitude in degrees; categories (V,) int64 and their names; trips: POI numbers in the order of the visits, hours: the UTC hour
    of the day at which each began, users: whose trip it is."""

    ids: tuple[str, ...]
    coordinates: np.ndarray
    categories: np.ndarray
    category_names: tuple[str, ...]
    trips: list[list[int]]
    hours: list[list[int]]
    users: list[str]


def read(name: str, root: str | None) -> City:
    """Read the city ``name`` from ``<root>/tours`` (``root``: config, then $BENCH_DATA, then the cache, downloaded once). Raises
    BenchError, in one line, where a file is missing or is not what it should be."""
    folder = _folder(CITIES[name], root)
    return parse(folder / f"poi-{CITIES[name]}.csv", folder / f"traj-{CITIES[name]}.csv")


def parse(pois: Path, visits: Path) -> City:
    """Read the two files of a city. Visits of a trip are put in order of their start; equal times stay in the files' order."""
    rows = _rows(pois, ("poiID", "poiCat", "poiLon", "poiLat"))
    number = {row["poiID"]: i for i, row in enumerate(rows)}
    if len(number) < len(rows):
        raise _broken(pois, "a POI is listed twice")
    for row in rows:
        if not row["poiCat"]:
            raise _broken(pois, f"POI {row['poiID']} has no category")
    names = tuple(sorted({row["poiCat"] for row in rows}))
    coordinates = np.array([[_number(row, key, pois) for key in ("poiLon", "poiLat")] for row in rows])
    if (np.abs(coordinates) > (180, 90)).any():
        raise _broken(pois, "a coordinate is no longitude or latitude in degrees")
    by_trip: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
    lengths: dict[str, int] = {}
    for row in _rows(visits, ("userID", "trajID", "poiID", "startTime", "endTime", "trajLen")):
        trip, poi = row["trajID"], row["poiID"]
        if poi not in number:
            raise _broken(visits, f"trip {trip} visits POI {poi}, which {pois.name} does not list")
        begin = _number(row, "startTime", visits)
        if _number(row, "endTime", visits) < begin:
            raise _broken(visits, f"trip {trip} leaves POI {poi} before it arrives: endTime is before startTime")
        if any(number[poi] == other for _, other, _ in by_trip[trip]):
            raise _broken(visits, f"trip {trip} visits POI {poi} twice")
        if any(user != row["userID"] for _, _, user in by_trip[trip]):
            raise _broken(visits, f"trip {trip} is of two users")
        by_trip[trip].append((begin, number[poi], row["userID"]))
        lengths[trip] = int(_number(row, "trajLen", visits))
    for trip, found in by_trip.items():
        if len(found) != lengths[trip]:
            raise _broken(visits, f"trip {trip} has {len(found)} of its {lengths[trip]} visits: it was cut short")
    trips = [sorted(trip, key=lambda visit: visit[0]) for trip in by_trip.values()]
    if max(map(len, trips)) < SHORTEST:
        raise _broken(visits, f"no trip has {SHORTEST} or more visits, so there is nothing to recommend between start and end")
    categories = np.array([names.index(row["poiCat"]) for row in rows])
    walks = [[poi for _, poi, _ in trip] for trip in trips]
    hours = [[int(begin // 3600 % 24) for begin, _, _ in trip] for trip in trips]
    return City(tuple(number), coordinates, categories, names, walks, hours, [trip[0][2] for trip in trips])


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Every line as column -> text; by the names in the first line, since cities differ in their order."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read ({error}): get it from {SOURCE}, folder data") from None
    first, *lines = list(csv.reader(text.splitlines())) or [[]]
    missing = [column for column in columns if column not in first]
    if missing:
        raise _broken(path, f"its first line names no column {', '.join(missing)}")
    for at, line in enumerate(lines, 2):
        if len(line) != len(first):
            raise _broken(path, f"line {at} has {len(line)} of {len(first)} values: it was cut short")
    if not lines:
        raise _broken(path, "it has no line below the first")
    if not text.endswith("\n"):
        raise _broken(path, "its last line does not end: it was cut short")
    return [{name: value.strip() for name, value in zip(first, line, strict=True)} for line in lines]


def _number(row: dict[str, str], column: str, path: Path) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _broken(path, f"{column} is {row[column]!r:.30} where a number is due")
    return value


def _broken(path: Path, why: str) -> BenchError:
    return BenchError(f"{path}: {why}; get it again from {SOURCE}, folder data")


def _folder(city: str, root: str | None) -> Path:
    """Return the folder that holds the files of a city; downloads them where the user named no folder."""
    own = hub.mirror(root)
    names = [f"{part}-{city}.csv" for part in ("poi", "traj")]
    if own is None:
        folder = cache.home() / "tours"
        for name in names:
            _download(folder, name)
        return folder
    folder = own / "tours" if (own / "tours").is_dir() else own
    for name in names:
        if not (folder / name).is_file():
            raise BenchError(
                f"no {name} in {folder}: put the files of {SOURCE}, folder data, there, or unset data.root and $BENCH_DATA to "
                "have them downloaded"
            )
    return folder


def _download(folder: Path, name: str) -> None:
    try:
        hub.download(f"{URL}/{name}", folder / name, SHA256[name.removesuffix(".csv")])
    except (OSError, ValueError) as error:
        raise BenchError(
            f"cannot download {URL}/{name} ({first_line(error)}): go online once, or set data.root or $BENCH_DATA to a "
            f"folder with tours/{name} in it"
        ) from None
