"""Linear mode connectivity (Frankle et al. 2020): whether two trainings that part at one state end in one valley."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.metadata import analysis
from pruning.ticket import Densities

STABLE = 2.0
"""Points of the metric: the instability below which Frankle et al. (2020) call a network stable."""


@analysis(keys=("step", "density"))
def barrier(lab: Lab, densities: list[Densities], starts: Sequence[str] = ("init", "1ep", "2ep"), points: int = 11,
            tickets: bool = False, refresh: bool = False, split: str = "test") -> Iterator[dict]:
    """Linear interpolation instability: by how much the metric falls at worst below that of the ends, on the straight line
    between two networks trained from one state with different data orders (Frankle et al. 2020).

    starts   states at which the two part: init, or a step (1ep, 500it)
    points   on the line, both ends counted; the paper takes 30
    tickets  also of the tickets that IMP rewinds to that state, at the densities asked
    refresh  batch-norm statistics of every point are taken anew from training data; false: they are interpolated, too
    split    test, val or train: the data of the metric

    step     at which the two part
    barrier  in points of the metric
    stable   1 where the barrier is below 2 points, as the paper has it, else 0; the smallest stable step is the one to rewind to
    ends     mean metric of the two; with its sign changed where lower is better
    """
    if points < 2:
        raise PruningError(f"points is {points}; a line has two ends")
    for name in starts:
        start = lab.start(name)
        masks = {1.0: lab.ones()}
        if tickets:
            masks |= {next(iter(t.densities.values())): t.masks for t in lab.tickets("imp", densities, rewind=name)}
        for density, mask in masks.items():
            one, other = (lab.train(start, mask, order=order) for order in (1, 2))
            line = [lab.signed_metric(lab.interpolate(one, other, k / (points - 1), refresh), split) for k in range(points)]
            ends = (line[0] + line[-1]) / 2
            worst = ends - min(line)
            yield {"step": start.step, "density": density, "barrier": worst, "stable": int(worst < STABLE), "ends": ends}
