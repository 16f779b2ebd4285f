"""Trips of a city, or generated ones, and the folds of their cross-validation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bench.task import BenchError, seed_for, unknown

from . import reader

EARTH = 6371.0088
"""Mean radius in kilometres."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Tours:
    """All trips of a city, and how those of three or more visits are split.

    pois (n, longest) int64, padded with the number of POIs; hours likewise, 0 to 23, padded with 0; lengths (n,) int64;
    users (n,) int64; distances (V, V) float64 in kilometres between POIs; categories (V,) int64 of ``category_count``;
    ids (V,): what the files call each POI; short: trips of one or two visits, which are in no split and may be learned from in
    every fold; folds: for every fold the trips of each split; trips are row numbers, int64
    """

    pois: np.ndarray
    hours: np.ndarray
    lengths: np.ndarray
    users: np.ndarray
    distances: np.ndarray
    categories: np.ndarray
    category_count: int
    ids: tuple[str, ...]
    short: np.ndarray
    folds: tuple[dict[str, np.ndarray], ...]

    @property
    def poi_count(self) -> int:
        """Number of POIs of the city."""
        return len(self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of trips, POIs and folds."""
        sha = hashlib.sha256(json.dumps([self.ids, self.category_count, self.pois.shape]).encode())
        arrays = [self.pois, self.hours, self.lengths, self.users, self.distances, self.categories]
        for array in (*arrays, self.short, *(fold[split] for fold in self.folds for split in SPLITS)):
            sha.update(f"{array.shape} {array.dtype}".encode())
            sha.update(np.ascontiguousarray(array))
        return sha.hexdigest()


def load(config: Mapping[str, Any]) -> Tours:
    """Return the trips of the config section ``data``. Raises BenchError where files or options are not what they should be."""
    name = config["name"]
    if name not in (*reader.CITIES, "generated"):
        raise unknown("data", name, (*reader.CITIES, "generated"))
    city = _generated(config) if name == "generated" else reader.read(name, config["root"])
    count, longest = len(city.ids), max(map(len, city.trips))
    pois, hours = np.full((len(city.trips), longest), count), np.zeros((len(city.trips), longest), np.int64)
    for i, (trip, times) in enumerate(zip(city.trips, city.hours, strict=True)):
        pois[i, : len(trip)], hours[i, : len(trip)] = trip, times
    lengths = np.array([len(trip) for trip in city.trips])
    return Tours(
        pois,
        hours,
        lengths,
        np.unique(city.users, return_inverse=True)[1].astype(np.int64),
        distances(city.coordinates),
        city.categories.astype(np.int64),
        len(city.category_names),
        city.ids,
        np.flatnonzero(lengths < reader.SHORTEST),
        _folds(np.flatnonzero(lengths >= reader.SHORTEST), config),
    )


def distances(coordinates: np.ndarray) -> np.ndarray:
    """Great-circle distances (n, n) in kilometres between points (n, 2) of longitude and latitude in degrees."""
    longitude, latitude = np.radians(coordinates).T
    across, along = longitude[:, None] - longitude, latitude[:, None] - latitude
    chord = np.sin(along / 2) ** 2 + np.cos(latitude[:, None]) * np.cos(latitude) * np.sin(across / 2) ** 2
    return 2 * EARTH * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))


def _folds(trips: np.ndarray, config: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], ...]:
    """Part f of the shuffled trips is the test split of fold f; a share of the others is for validation, the rest to train on."""
    folds, share = int(config["folds"]) or len(trips), float(config["val"])
    if not 2 <= folds <= len(trips):
        raise BenchError(
            f"data.folds is {folds}: give 2 to {len(trips)}, the number of trips, or 0 to leave out one trip at a time"
        )
    if not 0 < share < 1:
        raise BenchError(f"data.val is {share}; the share of a fold's other trips for validation must lie in (0, 1)")
    rng = np.random.default_rng(seed_for(int(config["split_seed"]), "folds"))
    order, parts = rng.permutation(trips), list[dict[str, np.ndarray]]()
    for fold in range(folds):
        others = rng.permutation(np.delete(order, np.s_[fold::folds]))
        held = max(1, round(share * len(others)))
        if held >= len(others):
            raise BenchError(f"{len(trips)} trips in {folds} folds with data.val={share} leave none for training")
        parts.append({"test": np.sort(order[fold::folds]), "val": np.sort(others[:held]), "train": np.sort(others[held:])})
    return tuple(parts)


def _generated(config: Mapping[str, Any]) -> reader.City:
    """Walks between points on a plane: the next POI is one of the three nearest unvisited ones, or now and then any."""
    pois, trips = int(config["pois"]), int(config["trips"])
    if pois < reader.SHORTEST or trips < 4:
        raise BenchError(f"data.pois is {pois} and data.trips is {trips}: at least {reader.SHORTEST} POIs and 4 trips are needed")
    rng = np.random.default_rng(seed_for(int(config["city_seed"]), "city"))
    coordinates = rng.uniform(-0.05, 0.05, (pois, 2))
    near, walks, times = distances(coordinates), [], []
    for _ in range(trips):
        walk = [int(rng.integers(pois))]
        for _ in range(int(rng.integers(reader.SHORTEST, min(pois, 7))) - 1 if pois > reader.SHORTEST else 2):
            left = np.setdiff1d(np.argsort(near[walk[-1]], kind="stable"), walk, assume_unique=True)
            walk.append(int(left[rng.integers(len(left) if rng.random() < float(config["noise"]) else min(3, len(left)))]))
        walks.append(walk)
        times.append([int((9 + i) % 24) for i in range(len(walk))])
    categories = np.arange(pois) % 4
    names = tuple(f"kind {i}" for i in range(int(categories.max()) + 1))
    return reader.City(tuple(map(str, range(pois))), coordinates, categories, names, walks, times, ["generated"] * trips)
