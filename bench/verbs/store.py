"""Say what a store holds, or remove what nothing needs.

  bench store show                     sizes by task, method and age; the method is that of the records that name a stage
  bench store clean                    what no record and no running grid needs; nothing is removed
  bench store clean --yes              the same, and remove it

A stage that was removed is trained again when a command asks for it. Records are those below --runs and --root: name every folder
whose records shall keep their trained weights.
"""

import argparse
from pathlib import Path

from bench.verbs.arguments import add_root
from bench.verbs.printing import size, table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("what", choices=("show", "clean"))
    parser.add_argument("--store", default=".bench", help="default: .bench")
    parser.add_argument("--runs", type=Path, nargs="+", default=[Path("runs")], help="folders of records; default: runs")
    add_root(parser)
    parser.add_argument("--yes", action="store_true", help="clean: remove what is listed")
    parser.add_argument("--json", action="store_true", help="sizes in bytes")


def run(given: argparse.Namespace) -> None:
    """List, and remove where that is asked for."""
    from bench.errors import BenchError
    from bench.runner.status import read_grids, unreadable
    from bench.storage import inventory
    from bench.storage.files import store_folder

    store = store_folder(given.store)
    missing = ", ".join(str(folder) for folder in given.runs if not folder.is_dir())
    if missing and given.what == "clean":
        raise BenchError(
            f"no folder of records {missing}: give the runs=DIR of every bench run on this store in --runs, or "
            f"--runs {given.root / 'records'} if all are published"
        )
    found = inventory.entries(store, [*given.runs, given.root / "records"])
    if given.what == "clean":
        if unknown := unreadable(store):
            raise BenchError(
                f"{unknown[0]} cannot be read, so the grid that writes it may need any stage: wait until it has ended"
            )
        found = inventory.unneeded(found, [grid for grid in read_grids(store) if grid["state"] == "running"])
    rows = inventory.sums(found)
    table(rows if given.json else [{**row, "bytes": size(row["bytes"])} for row in rows], given.json)
    total = f"{size(sum(entry.size for entry in found))} in {len(found):,} stages"
    if given.yes and given.what == "clean":
        removed = inventory.remove(store, found)
        total = f"freed {size(sum(entry.size for entry in removed))}: {len(removed):,} stages removed from {store}"
    elif given.what == "clean":
        total += ": no record and no running grid needs them; `bench store clean --yes` with the same options removes them"
    if not given.json:
        print(total)
