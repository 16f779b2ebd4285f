"""Linear mode connectivity (Frankle et al. 2020): whether two trainings that part at one state end in one valley."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..allocate import Densities


def barrier(lab, densities: list[Densities], starts: Sequence[str] = ("init", "1ep", "2ep"), points: int = 11,
            tickets: bool = False, refresh: bool = False) -> Iterator[dict]:
    """Linear interpolation instability: by how much the test metric falls at worst below that of the ends, on the straight line
    between two networks trained from one state with different data orders (Frankle et al. 2020).

    starts   states at which the two part: init, or a step (1ep, 500it)
    points   on the line, both ends counted; the paper takes 30
    tickets  also of the tickets that IMP rewinds to that state, at the densities asked
    refresh  batch-norm statistics of every point are taken anew from training data; false: they are interpolated, too

    barrier  in points of the metric, of test data; below 2 the paper calls the network stable
    valley   the same of validation data
    ends     mean test metric of the two
    """
    for name in starts:
        start = lab.start(name)
        masks = {1.0: lab.ones()}
        if tickets:
            masks |= {next(iter(t.densities.values())): t.masks for t in lab.tickets("imp", densities, rewind=name)}
        for density, mask in masks.items():
            one, other = (lab.train(start, mask, order=order) for order in (1, 2))
            models = [lab.between(one, other, k / (points - 1), refresh) for k in range(points)]
            row = {"start": name, "density": density}
            for split, column in (("test", "barrier"), ("val", "valley")):
                line = [lab.gain(model, split) for model in models]
                row[column] = (line[0] + line[-1]) / 2 - min(line)
                if split == "test":
                    row["ends"] = abs(line[0] + line[-1]) / 2
            yield row


barrier.keys = ("start", "density")
