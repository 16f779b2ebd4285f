"""Networks that recommend trips: CTLTR (reconstructed), and the decoders of its sister systems. Each holds one network a fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .beam import search
from .layers import GRU, Linear, Matrices, Table

HOURS = 24
NEVER = -1e4
"""Score of a POI that may not come: finite, so that a loss is."""


class Trips(NamedTuple):
    """A batch of trips for each of F networks: pois and hours (F, n, longest) int64, padded with V and 0, lengths (F, n) int64.
    ``pretraining``: whether it is for the objectives of pre-training."""

    pois: Tensor
    hours: Tensor
    lengths: Tensor
    pretraining: bool

    def there(self) -> Tensor:
        """Return (F, n, longest): True at visits, False at padding."""
        return torch.arange(self.pois.shape[2], device=self.pois.device) < self.lengths[..., None]

    def middle(self) -> Tensor:
        """Return (F, n, longest): True between start and end."""
        at = torch.arange(self.pois.shape[2], device=self.pois.device)
        return (at > 0) & (at < self.lengths[..., None] - 1)

    def end(self) -> Tensor:
        """Return the last POI of each trip (F, n)."""
        return self.pois.gather(2, self.lengths[..., None] - 1)[..., 0]


class Places(NamedTuple):
    """What is known of V POIs: categories (V,) int64 of ``count``, distances (V, V) in kilometres."""

    categories: Tensor
    count: int
    distances: Tensor


class TripNetwork(nn.Module):
    """Embeddings, and a decoder that goes from POI to POI. A subclass says what the decoder starts from.

    POI V is none: padding, or one that is not known. Hour 24 is none likewise.
    """

    segment = 1
    """Visits in each part of a trip that ``encode`` gives a vector of."""

    def __init__(self, networks: int, places: Places, model: Mapping[str, Any], generator: torch.Generator):
        super().__init__()
        self.networks, self.pois, width = networks, len(places.categories), int(model["embedding"])
        self.hidden, self.dropout = int(model["hidden"]), float(model["dropout"])
        self.poi = Table(networks, self.pois + 1, width, generator)
        self.category = Table(networks, places.count + 1, width, generator)
        self.hour = Table(networks, HOURS + 1, width, generator)
        self.bridge = Linear(networks, self.query_width(model), self.hidden, generator)
        self.decoder = GRU(networks, 2 * width + self.hidden, self.hidden, generator)
        self.output = Linear(networks, self.hidden, self.pois, generator)
        self.near = nn.Parameter(torch.zeros(networks, 2, 1, 1))  # how much distances to the last POI and to the end matter
        far = torch.log1p(torch.nn.functional.pad(places.distances, (0, 1, 0, 1))).float()
        self.register_buffer("far", far / far.std(), persistent=False)
        self.register_buffer("kind", nn.functional.pad(places.categories, (0, 1), value=places.count), persistent=False)

    def query_width(self, model: Mapping[str, Any]) -> int:
        """Return the width of ``query``."""
        raise NotImplementedError

    def query(self, trips: Trips) -> Tensor:
        """Return what is known of the trips (F, n, width): of their middle only how many visits it has."""
        raise NotImplementedError

    def encode(self, visits: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors (F, n, width) of trips and (F, n, parts, width) of their parts; visits (F, n, longest, ...) as
        ``embed`` gives them."""
        raise NotImplementedError

    def embed(self, pois: Tensor, hours: Tensor) -> Tensor:
        """Return the vectors (F, ..., embedding) of visits."""
        return self.poi(pois) + self.category(self.kind[pois]) + self.hour(hours)

    def place(self, pois: Tensor) -> Tensor:
        """Return the vectors (F, ..., embedding) of POIs at no time."""
        return self.poi(pois) + self.category(self.kind[pois])

    def start(self, known: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decoder's first state and what it is told at every step besides the last POI, from vectors ``known``."""
        state = torch.tanh(self.bridge(known))
        return state, torch.cat([self.place(end), state], -1)

    def closeness(self, last: Tensor, end: Tensor) -> Tensor:
        """Return what distances add to the scores (F, n, V): last and end (F, n)."""
        first, second = self.near.unbind(1)
        return -first * self.far[last][..., :-1] - second * self.far[end][..., :-1]

    def scores(self, trips: Trips, known: Tensor, end: Tensor) -> Tensor:
        """Return scores (F, n, longest - 1, V) of the POI at positions 1, 2, ..., given those before it; those that may not come
        (all before, and the end, V if unknown) have a score far below all others."""
        state, told = self.start(known, end)
        last = trips.pois[:, :, :-1]
        steps = last.shape[2]
        inputs = torch.cat([self.place(last), told[:, :, None].expand(-1, -1, steps, -1)], -1)
        outputs, _ = self.decoder(inputs, trips.there()[:, :, :-1], state)
        scores = self.output(nn.functional.dropout(outputs, self.dropout, self.training))
        ends = end[..., None].expand(-1, -1, steps)
        scores = scores + self.closeness(last.flatten(1), ends.flatten(1)).view_as(scores)
        used = nn.functional.one_hot(last, self.pois + 1).cumsum(2) + nn.functional.one_hot(ends, self.pois + 1)
        return scores.masked_fill(used[..., :-1] > 0, NEVER)

    def uses(self, length: float) -> dict[str, float]:
        """Return how often a recommendation of ``length`` visits multiplies by each matrix, by its path."""
        steps = length - 2
        return {"bridge.weight": 1, "decoder.input": steps, "decoder.recurrent": steps, "output.weight": steps}

    def forward(self, trips: Trips) -> Tensor:
        """Return the ``scores`` of the middle, from the queries alone."""
        return self.scores(trips, self.query(trips), trips.end())

    @torch.no_grad()
    def recommend(self, trips: Trips, width: int) -> Tensor:
        """Return the most likely trips (F, n, longest) for the queries, found by a beam search of ``width``; padded with V."""
        networks, rows, longest = trips.pois.shape
        state, told = self.start(self.query(trips), trips.end())
        state, told = (x[:, :, None].expand(-1, -1, width, -1).flatten(1, 2) for x in (state, told))
        end, matrix, read = trips.end(), self.decoder.recurrent(), self.decoder.input()
        ends = end[..., None].expand(-1, -1, width).flatten(1)

        def step(last: Tensor, allowed: Tensor, origin: Tensor, at: int) -> Tensor:
            nonlocal state
            state = state.view(networks * rows, width, -1)[torch.arange(networks * rows)[:, None], origin].view_as(state)
            last = last.view(networks, rows * width)
            inputs = torch.cat([self.place(last), told], -1)
            state = self.decoder.step(torch.baddbmm(self.decoder.input_bias, inputs, read), state, matrix)
            scores = self.output(state) + self.closeness(last, ends)
            return scores.view(networks * rows, width, -1).masked_fill(~allowed, NEVER).log_softmax(-1)

        start, lengths = trips.pois[:, :, 0].flatten(), trips.lengths.flatten()
        return search(step, start, end.flatten(), lengths, self.pois, width, closing=False).view(networks, rows, longest)


class Ctltr(TripNetwork):
    """CTLTR, reconstructed: a recurrent encoder of two levels reads the query, a trip without its middle, as it reads trips."""

    segment = 3

    def __init__(self, networks: int, places: Places, model: Mapping[str, Any], generator: torch.Generator):
        width, hidden = int(model["embedding"]), int(model["hidden"])
        super().__init__(networks, places, model, generator)
        self.segments = GRU(networks, width, hidden // 2, generator, directions=2)
        self.trip = GRU(networks, hidden, hidden, generator)

    def query_width(self, model: Mapping[str, Any]) -> int:
        """The vector of a trip."""
        return int(model["hidden"])

    def query(self, trips: Trips) -> Tensor:
        """The vector of the trip with its middle unknown."""
        middle = trips.middle()
        visits = self.embed(trips.pois.masked_fill(middle, self.pois), trips.hours.masked_fill(middle, HOURS))
        return self.encode(visits, trips.there())[0]

    def encode(self, visits: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Segments of three visits are read in both directions, and their vectors in order."""
        more = -visits.shape[2] % self.segment
        visits, there = nn.functional.pad(visits, (0, 0, 0, more)), nn.functional.pad(there, (0, more))
        networks, rows, length, width = visits.shape
        parts = length // self.segment
        _, segments = self.segments(
            visits.view(networks, rows * parts, self.segment, width), there.reshape(networks, rows * parts, self.segment)
        )
        segments = nn.functional.dropout(segments.view(networks, rows, parts, -1), self.dropout, self.training)
        return self.trip(segments, there[:, :, :: self.segment])[1], segments

    def uses(self, length: float) -> dict[str, float]:
        """The encoder reads every visit in both directions and every segment once."""
        segments = -(-length // self.segment)
        visits = {"segments.input": length, "segments.recurrent": length}  # of both directions' matrices together
        return super().uses(length) | visits | {"trip.input": segments, "trip.recurrent": segments}


class QueryGRU(TripNetwork):
    """A recurrent decoder on a query of the two ends and their hours: linear, or with their product as SelfTrip has it."""

    def __init__(self, networks: int, places: Places, model: Mapping[str, Any], generator: torch.Generator):
        self.bilinear = bool(model["bilinear"])
        super().__init__(networks, places, model, generator)

    def query_width(self, model: Mapping[str, Any]) -> int:
        """Two ends, their product, and the number of visits."""
        return int(model["embedding"]) * (3 if model["bilinear"] else 2) + 1

    def query(self, trips: Trips) -> Tensor:
        """The vectors of both ends."""
        last = trips.lengths[..., None] - 1
        ends = [self.embed(trips.pois.gather(2, at), trips.hours.gather(2, at))[:, :, 0] for at in (torch.zeros_like(last), last)]
        if self.bilinear:
            ends.append(ends[0] * ends[1])
        return torch.cat([*ends, trips.lengths[..., None] / 10], -1)

    def encode(self, visits: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's own last state, told nothing besides the visits."""
        told = visits.new_zeros(*visits.shape[:3], visits.shape[3] + self.hidden)
        states, last = self.decoder(torch.cat([visits, told], -1), there)
        return last, states


NETWORKS: dict[str, type[TripNetwork]] = {"ctltr": Ctltr, "selftrip": QueryGRU, "gru": QueryGRU}


def kinds(model: TripNetwork) -> dict[str, str]:
    """Return name of a parameter that may be pruned -> its kind: recurrent, input, or output for the layers without memory."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, Matrices):
            role = path.rpartition(".")[2]
            kind = role if role in ("input", "recurrent") else "output"
            found |= {f"{path}.each.{i}": kind for i in range(len(module.each))}
    return found
