"""A small city of five POIs in the layout of the real ones, and the task on it."""

from pathlib import Path

import torch

from bench.config import settings
from tasks.tour_flickr import data
from tasks.tour_flickr.task import TourFlickr

FOLDER = str(Path(__file__).parents[3] / "tasks" / "tour_flickr")

POIS = [(4, "Park", 0.0, 0.0), (5, "Museum", 0.1, 0.0), (7, "Park", 0.2, 0.0), (9, "Shop", 0.3, 0.0), (2, "Shop", 0.4, 0.0)]

TRIPS = {1: (9, 4, 7, 2), 2: (4, 5, 7), 3: (4, 5), 4: (2,), 5: (7, 5, 9), 6: (4, 7, 9, 5, 2), 7: (5, 9, 2), 8: (2, 9, 4)}


def task(*overrides: str) -> TourFlickr:
    config = settings(FOLDER, overrides)[0].config
    return TourFlickr({section: config[section] for section in ("data", "model", "train")}, torch.device("cpu"))


def write(folder: Path, trips=TRIPS, city: str = "Osak", swapped: bool = False) -> Path:
    """The two files of a city, visits sorted by POI as in the real ones; ``swapped``: latitude before longitude."""
    (folder / "tours").mkdir(parents=True, exist_ok=True)
    names = ["poiLat", "poiLon"] if swapped else ["poiLon", "poiLat"]
    lines = [",".join(["poiID", "poiCat", *names])]
    lines += [f"{poi},{kind},{lat if swapped else lon},{lon if swapped else lat}" for poi, kind, lon, lat in POIS]
    (folder / "tours" / f"poi-{city}.csv").write_text("\n".join(lines) + "\n")
    lines = ["userID,trajID,poiID,startTime,endTime,#photo,trajLen,poiDuration"]
    for trip, pois in trips.items():
        times = {poi: 3600 * (8 + i) for i, poi in enumerate(pois)}
        lines += [f"u{trip % 3},{trip},{poi},{times[poi]},{times[poi] + 60},1,{len(pois)},60" for poi in sorted(pois)]
    (folder / "tours" / f"traj-{city}.csv").write_text("\n".join(lines) + "\n")
    return folder


def osaka(root: Path, **options) -> data.Tours:
    return data.load({"name": "osaka", "root": str(root), "folds": 3, "val": 0.2, "split_seed": 0} | options)
