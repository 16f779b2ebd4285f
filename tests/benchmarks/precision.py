"""Whether precision is only a detail of how a number was computed: test metrics in fp32 beside those in bf16, otherwise asked
alike, paired by seed.

    bench run tasks/cnn_cifar train.precision=fp32 runs=runs
    python tests/benchmarks/precision.py runs leaderboards/records

Every line: fp32, bf16 (mean ± half-width of the 95 % interval over seeds), their paired difference, its value for every seed, and
whether the mean difference lies within the interval of the seeds in bf16.
"""

import sys
from collections import defaultdict
from pathlib import Path

from tabulate import tabulate

from bench.leaderboard.format import densities, difference, interval
from bench.leaderboard.sections import as_column
from bench.leaderboard.statistics import estimate, paired
from bench.storage.files import canonical
from bench.storage.records import Record, read_records


def asked(record: Record) -> str:
    """What records that may be compared have in common."""
    who = record.identity.model_dump(exclude={"seed"})
    who["config"]["train"].pop("precision", None)
    return canonical(who)


def main(*roots: str) -> None:
    """Print a line for all that was done in both, in every seed that has both."""
    values: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    named = {}
    for record in (record for root in roots for record in read_records(Path(root)) if record.status == "ok"):
        values[asked(record)][record.precision][record.identity.seed] = record.result.test[record.result.metric]
        named[asked(record)] = (
            record.identity.data,
            record.identity.model,
            " ↳ ".join(filter(None, (record.label, record.identity.control))),
            densities(as_column(record.identity.densities)),
        )
    rows = []
    for key, found in sorted(values.items(), key=lambda item: named[item[0]]):
        seeds = sorted(found["fp32"].keys() & found["bf16"].keys())
        if seeds:
            fp32, bf16 = ({seed: found[kind][seed] for seed in seeds} for kind in ("fp32", "bf16"))
            spread, lead = estimate(bf16.values()), paired(fp32, bf16)
            within = "" if spread.half is None else "yes" if abs(lead.mean) <= spread.half else "no"
            rows.append(
                [
                    *named[key],
                    interval(estimate(fp32.values())),
                    interval(spread),
                    difference(lead),
                    ", ".join(f"{fp32[seed] - bf16[seed]:+.2f}" for seed in seeds),
                    within,
                ]
            )
    print(
        tabulate(
            rows,
            ["data", "model", "method", "density", "fp32", "bf16", "fp32 - bf16", "by seed", "within"],
            disable_numparse=True,
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
