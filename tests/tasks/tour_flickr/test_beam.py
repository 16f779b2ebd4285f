"""The beam search, against every path."""

import itertools

import torch

from tasks.tour_flickr import beam


def test_beam_search_finds_the_best_path():
    generator = torch.Generator().manual_seed(0)
    logs = torch.rand(6, 6, generator=generator).log()
    start, end, lengths = torch.tensor([0, 2, 3, 1]), torch.tensor([5, 1, 0, 4]), torch.tensor([3, 4, 5, 6])
    found = beam.search(lambda last, *_: logs[last], start, end, lengths, 6, 200, closing=True)
    for row, (s, e, n) in enumerate(zip(start.tolist(), end.tolist(), lengths.tolist(), strict=True)):
        paths = [(s, *p, e) for p in itertools.permutations(set(range(6)) - {s, e}, n - 2)]
        best = max(paths, key=lambda path: sum(float(logs[a, b]) for a, b in itertools.pairwise(path)))
        assert found[row].tolist() == [*best, *[6] * (6 - n)]
