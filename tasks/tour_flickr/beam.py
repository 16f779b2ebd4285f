"""Beam search for trips: no POI twice, the start, the end and the number of visits as the query gives them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""(last POI (n, k), POIs that may follow (n, k, V), beam of the last step that each came from (n, k), position) -> log scores
(n, k, V) of the POI at that position, -inf where it may not follow."""


def search(step: Step, start: Tensor, end: Tensor, lengths: Tensor, pois: int, width: int, closing: bool) -> Tensor:
    """Return the best trips (n, longest) int64 that ``step`` scores, padded with ``pois``, the number V of POIs.

    start, end, lengths  (n,) int64: the queries; no length below 3 or above V
    width                beams that are kept
    closing              whether the step to the end counts in the score
    """
    n, longest, rows = len(start), int(lengths.max()), torch.arange(len(start))[:, None]
    trips = torch.full((n, width, longest), pois)
    trips[:, :, 0] = start[:, None]
    scores = torch.full((n, width), -torch.inf)
    scores[:, 0] = 0
    allowed = torch.ones(n, width, pois, dtype=torch.bool)
    allowed.scatter_(2, torch.stack([start, end], 1)[:, None].expand(-1, width, -1), False)
    origin = torch.arange(width).expand(n, -1)
    for at in range(1, longest - 1):
        last = trips[:, :, at - 1]
        more = (lengths - 1 > at)[:, None]  # rows whose middle has a visit at this position
        logs = step(last.clamp(max=pois - 1), allowed, origin, at).masked_fill(~allowed, -torch.inf)
        best, chosen = (scores[..., None] + logs).flatten(1).topk(width, dim=1)
        origin = torch.where(more, chosen // pois, torch.arange(width))
        scores = torch.where(more, best, scores)
        trips, allowed = trips[rows, origin], allowed[rows, origin]
        visited = torch.where(more, chosen % pois, end[:, None])  # the end is forbidden already
        trips[:, :, at] = torch.where(more, visited, pois)
        allowed.scatter_(2, visited[..., None], False)
        if closing and (done := lengths - 2 == at).any():
            last_step = step(visited, torch.ones_like(allowed), origin, at + 1).gather(2, end[:, None, None].expand(-1, width, 1))
            scores = torch.where(done[:, None], scores + last_step[..., 0], scores)
    found = trips[torch.arange(n), scores.argmax(1)]
    return found.scatter(1, lengths[:, None] - 1, end[:, None])
