"""What the networks are trained for: the middle of a trip, and the objectives of pre-training.

Losses are means over the trips of each network and then over networks, which share no weight.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional as F

from .models import HOURS, TripNetwork, Trips

OBJECTIVES = ("masked", "segment", "views")
"""Of pre-training: masked POIs, a segment and its trip, two augmented views of a trip."""
HIDDEN = 0.3
"""Share of the visits after the first that are hidden at random; at least one is."""
CUT = 0.2
"""Share of visits or of dimensions that an augmentation takes away."""


def middle(trips: Trips, scores: Tensor) -> Tensor:
    """Cross-entropy of the POIs between start and end, given those before."""
    return _cross_entropy(scores, trips, trips.middle())


def pretraining(model: TripNetwork, trips: Trips, objectives: Collection[str], temperature: float) -> Tensor:
    """The sum of ``objectives``. All versions of a trip are encoded at once."""
    there, losses = trips.there(), []
    whole, where = model.embed(trips.pois, trips.hours), _hidden(there)
    versions = [model.embed(trips.pois.masked_fill(where, model.pois), trips.hours.masked_fill(where, HOURS)), whole]
    versions += [augmented(whole, there) for _ in range(2 * ("views" in objectives))]
    vectors, parts = model.encode(torch.cat(versions, 1), there.repeat(1, len(versions), 1))
    partial, _, *views = vectors.chunk(len(versions), 1)
    if "masked" in objectives:
        ended = where.gather(2, trips.lengths[..., None] - 1)[..., 0]
        losses.append(_cross_entropy(model.scores(trips, partial, trips.end().masked_fill(ended, model.pois)), trips, where))
    if "segment" in objectives:
        segments = parts.chunk(len(versions), 1)[1]
        count = torch.div(trips.lengths - 1, model.segment, rounding_mode="floor") + 1
        chosen = (torch.rand(count.shape, device=count.device) * count).long()
        at = chosen[..., None, None].expand(-1, -1, 1, segments.shape[-1])
        losses.append(agreement(segments.gather(2, at)[:, :, 0], partial, temperature))
    if "views" in objectives:
        losses.append(agreement(*views, temperature))
    return torch.stack(losses).sum()


def agreement(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al. 2018): row i of ``one`` (F, n, width) belongs to row i of ``other``, among all its rows."""
    similarity = F.normalize(one, dim=-1) @ F.normalize(other, dim=-1).transpose(1, 2) / temperature
    return (similarity.logsumexp(2) - similarity.diagonal(dim1=1, dim2=2)).mean()


def augmented(visits: Tensor, there: Tensor) -> Tensor:
    """Visits (F, n, longest, width) changed by one of SelfTrip's four augmentations, drawn for each trip: a fifth of the visits
    cut off, a fifth of the dimensions cut off, the order shuffled, or half of all entries dropped."""
    shape, device = visits.shape, visits.device
    which = torch.randint(4, (*shape[:2], 1, 1), device=device)
    visits_kept = torch.rand(*shape[:3], 1, device=device) >= CUT
    dimensions_kept = torch.rand(*shape[:2], 1, shape[3], device=device) >= CUT
    order = torch.rand(shape[:3], device=device).masked_fill(~there, 2).argsort(2)  # padding stays behind
    shuffled = visits.gather(2, order[..., None].expand_as(visits))
    changed = torch.where(which == 2, shuffled, visits * torch.where(which == 0, visits_kept, dimensions_kept))
    return torch.where(which == 3, F.dropout(visits, 0.5), changed)


def _hidden(there: Tensor) -> Tensor:
    """Which visits are hidden, (F, n, longest): never the first."""
    draw = torch.rand(there.shape, device=there.device).masked_fill(~there, 2)
    draw[..., 0] = 2
    return (draw < HIDDEN) | (there & (draw == draw.amin(2, keepdim=True)))


def _cross_entropy(scores: Tensor, trips: Trips, where: Tensor) -> Tensor:
    """scores (F, n, longest - 1, V) of positions 1, 2, ...; only positions ``where`` (F, n, longest) says count."""
    target = torch.where(where, trips.pois, -1)[:, :, 1:]
    losses = F.cross_entropy(scores.flatten(0, 2), target.flatten(), ignore_index=-1, reduction="none").view(len(scores), -1)
    return (losses.sum(1) / (target >= 0).flatten(1).sum(1).clamp(min=1)).mean()
