"""Measure how fast a ticket is here: dense, masked, slim, sparse; eager, compiled, ONNX Runtime.

  bench speed RECORD                    at batch 1 and at the task's batch, all forms in turn
  bench speed RECORD threads=1 store=DIR

What is measured is sealed as the record of an analysis below runs/, which `bench publish` and `bench leaderboard` take like any
other; given again, the batches of that record are measured again, and it is replaced. Forms that cannot be had here are named and
left out: compiling needs a C++ compiler, ONNX Runtime the extra [onnx], and 2:4 an NVIDIA GPU.
"""

import argparse
import sys

from bench.verbs.arguments import add_overrides, add_ticket, ticket


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_ticket(parser)
    add_overrides(parser, "where and how: store=DIR, threads=N, device=cpu")
    parser.add_argument("--seconds", type=float, default=20, help="to spend at each batch; default: 20")
    parser.add_argument(
        "--batch", type=int, action="append", default=[], help="a batch besides 1 and the task's; may be repeated"
    )


def run(given: argparse.Namespace) -> None:
    """Time a ticket and write what was measured."""
    from bench.leaderboard.terminal import analysis_summary
    from bench.speed.measure import measure
    from bench.storage.records import write_record

    runs = given.record.absolute().parents[3]
    record = measure(ticket(given), runs, given.seconds, lambda line: print(line, file=sys.stderr), given.batch)
    path = write_record(record, runs)
    print(analysis_summary([record]))
    print(f"record: {path}")
