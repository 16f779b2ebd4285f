"""Neighbour sampling (Hamilton et al. 2017): a graph small enough for memory around the nodes that are asked for."""

import torch
from torch import Tensor

from tasks.graph.sparse import Pattern


def sample(links: Pattern, targets: Tensor, fanouts: list[int], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return nodes (n,) with the ``targets`` first, and the sampled links among them: rows and columns (l,) as positions in
    ``nodes``, sorted by row, and their numbers in ``links``. Each hop draws, for every node of the hop before, at most
    ``fanouts[hop]`` of its links without replacement (0: all). Targets must be distinct. Everything is on the CPU."""
    place = torch.full((links.shape[0],), -1)
    place[targets] = torch.arange(targets.numel())
    nodes, entries, frontier = targets, [], targets
    for fanout in fanouts:
        first = links.starts[frontier]
        count = links.starts[frontier + 1] - first
        owner = torch.repeat_interleave(torch.arange(frontier.numel()), count)
        rank = torch.arange(owner.numel()) - (count.cumsum(0) - count)[owner]
        entry = first[owner] + rank
        if fanout:
            key = owner + torch.rand(owner.numel(), generator=generator, dtype=torch.float64)
            entry = entry[torch.argsort(key)][rank < fanout]  # sorted by owner again, so ``rank`` still counts within one
        entries.append(entry)
        found = torch.unique(links.columns[entry])
        frontier = found[place[found] < 0]
        place[frontier] = nodes.numel() + torch.arange(frontier.numel())
        nodes = torch.cat([nodes, frontier])
    entry = torch.cat(entries)
    rows, order = torch.sort(place[links.rows[entry]], stable=True)
    entry = entry[order]
    return nodes, rows, place[links.columns[entry]], entry
