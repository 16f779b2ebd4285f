"""Write records as one CSV table.

One row for each record: what was asked, metrics of the ticket and of the dense network of its seed, costs, and the command.

  bench records --csv all.csv              the published records
  bench records runs --csv mine.csv        those of a run

In Python, `bench.records()` gives the same as a pandas frame. `bench export` writes the network of one record.
"""

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("folder", type=Path, nargs="?", default=Path("leaderboards"), help="of records; default: leaderboards")
    parser.add_argument("--csv", type=Path, required=True, help="the file to write")


def run(given: argparse.Namespace) -> None:
    """Write the table."""
    from bench import notebook

    print(f"{notebook.write_csv(notebook.read(given.folder), given.csv)} records written to {given.csv}")
