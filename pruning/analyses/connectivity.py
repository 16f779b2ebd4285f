"""Linear mode connectivity (Frankle et al. 2020): whether two trainings from one state are connected by a line."""

from collections.abc import Iterator, Sequence

from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.metadata import Row, analysis
from pruning.ticket import Densities

STABLE = 2.0
"""The instability, in points of the metric, below which Frankle et al. (2020) call a network stable."""


@analysis(keys=("step", "density"))
def barrier(
    lab: Lab,
    densities: list[Densities],
    starts: Sequence[str] = ("init", "1ep", "2ep"),
    points: int = 11,
    tickets: bool = False,
    refresh: bool = False,
    split: str = "test",
) -> Iterator[Row]:
    """Measure the linear interpolation instability: the largest drop of the metric below the mean of the ends, on the straight
    line between two networks trained from one state with different data orders (Frankle et al. 2020).

    starts   states from which two networks are trained: init, or a step (1ep, 500it)
    points   number of points on the line, both ends included; 30 in the paper
    tickets  also measure the tickets that IMP rewinds to each state, at the run's densities
    refresh  collect batch-norm statistics of every point from training data; false: interpolate them
    split    data of the metric: test, val or train

    step     the step of the state
    barrier  the instability, in points of the metric
    stable   1 if the barrier is below 2 points, the paper's bound, else 0; rewind to the smallest stable step
    ends     mean metric of the two networks, with its sign changed where lower is better
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
