"""Recommendations that need no training: each sees the query and the trips of other splits, short ones among them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from bench.task import seed_for

from .beam import search
from .data import Tours

BEAM = 50

Recommend = Callable[[Tours, np.ndarray, np.ndarray, np.random.Generator], list[list[int]]]
"""(tours, known trips (m,), trips to recommend for (n,), random draws) -> n trips. Of the second only the query is read."""


def random(tours: Tours, known: np.ndarray, asked: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """Any other POIs in any order."""
    return [_between(start, end, rng.permutation(tours.poi_count), size) for start, end, size in _queries(tours, asked)]


def popularity(tours: Tours, known: np.ndarray, asked: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """The POIs that most users visited, the most popular first."""
    visits = tours.users[known, None] * (tours.poi_count + 1) + tours.pois[known]
    visitors = np.bincount(np.unique(visits) % (tours.poi_count + 1), minlength=tours.poi_count + 1)[:-1]
    order = np.argsort(-visitors, kind="stable")
    return [_between(start, end, order, size) for start, end, size in _queries(tours, asked)]


def nearest(tours: Tours, known: np.ndarray, asked: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """Always on to the nearest POI that was not visited yet."""
    found = []
    for start, end, size in _queries(tours, asked):
        trip = [start]
        while len(trip) < size - 1:
            trip.append(next(int(p) for p in np.argsort(tours.distances[trip[-1]], kind="stable") if p not in (*trip, end)))
        found.append([*trip, end])
    return found


def markov(tours: Tours, known: np.ndarray, asked: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """The most likely trip of a first-order Markov chain with add-one smoothing, found by a beam search."""
    logs = torch.from_numpy(transitions(tours, known))
    start, end, lengths = (torch.tensor(column) for column in zip(*_queries(tours, asked), strict=True))
    best = search(lambda last, *_: logs[last], start, end, lengths, tours.poi_count, BEAM, closing=True)
    return [trip[:size] for trip, size in zip(best.tolist(), lengths.tolist(), strict=True)]


def transitions(tours: Tours, known: np.ndarray) -> np.ndarray:
    """Return log probabilities (V, V) float32 of the next POI, each pair counted once more than it occurs in the known trips."""
    pois, side = tours.pois[known], tours.poi_count + 1  # the padding counts as one more POI
    pairs = np.bincount((pois[:, :-1] * side + pois[:, 1:]).reshape(-1), minlength=side**2)
    counts = 1.0 + pairs.reshape(side, side)[:-1, :-1]
    return np.log(counts / counts.sum(1, keepdims=True)).astype(np.float32)


BASELINES: dict[str, Recommend] = {"random": random, "popularity": popularity, "nearest": nearest, "markov_beam": markov}


def recommend(name: str, tours: Tours, split: str, seed: int) -> list[tuple[list[int], list[int]]]:
    """Return each trip of a split of all folds with what a baseline recommends for it."""
    pairs = []
    for number, fold in enumerate(tours.folds):
        rng = np.random.default_rng(seed_for(seed, "baseline", number))
        known = np.setdiff1d(np.concatenate([tours.short, fold["train"], fold["val"]]), fold[split])
        real = [tours.pois[trip, : tours.lengths[trip]].tolist() for trip in fold[split]]
        pairs += zip(real, BASELINES[name](tours, known, fold[split], rng), strict=True)
    return pairs


def _queries(tours: Tours, asked: np.ndarray) -> list[tuple[int, int, int]]:
    """Start, end and number of visits."""
    sizes = tours.lengths[asked]
    ends = tours.pois[asked, sizes - 1]
    return list(zip(tours.pois[asked, 0].tolist(), ends.tolist(), sizes.tolist(), strict=True))


def _between(start: int, end: int, order: np.ndarray, size: int) -> list[int]:
    middle = [int(poi) for poi in order if poi not in (start, end)]
    return [start, *middle[: size - 2], end]
