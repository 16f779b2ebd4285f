"""Say how far the grids of a store are.

Read what grids and their workers say, on whatever executor and machine they run: jobs done, running, waiting and failed,
networks and hours left, and what each worker trains.

  bench status                      the grids that run, of the store .bench
  bench status store=DIR --all      the ended ones too, and those whose process is gone
"""

import argparse

from bench.verbs.printing import table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("store", nargs="?", default="store=.bench", metavar="store=DIR", help="the store; .bench if left out")
    parser.add_argument("--all", action="store_true", help="also the grids that ended or are gone")
    parser.add_argument("--json", action="store_true", help="all that is known of them, as JSON")


def run(given: argparse.Namespace) -> int:
    """Print the grids and their workers."""
    import json

    from bench.errors import UsageError
    from bench.runner.status import read_grids
    from bench.storage.files import store_folder

    store = store_folder(given.store.removeprefix("store="))
    if not store.is_dir():
        raise UsageError(f"there is no store {store}: give store=DIR, as to bench run")
    grids = [grid for grid in read_grids(store) if given.all or grid["state"] == "running"]
    if given.json:
        print(json.dumps(grids, indent=1))
        return 0
    if not grids:
        print(f"no grid runs on the store {store}; `bench status --all` shows those that ended")
    for grid in grids:
        print(f"{grid['command']}\n{grid['state']} on {grid['host']} (process {grid['pid']}), {store / 'grids' / grid['grid']}")
        columns = ("done", "running", "waiting", "failed", "networks_left", "hours_left")
        table([{key.replace("_", " "): grid[key] for key in columns}], False)
        if grid["state"] == "running" and grid["workers"]:
            table([_row(worker) for worker in grid["workers"]], False)
        print()
    return 0


def _row(worker: dict[str, object]) -> dict[str, object]:
    steps = f"{worker['step']}/{worker['last']}" if worker["last"] else ""
    return {**{key: worker[key] for key in ("worker", "host", "pid", "state", "job", "training")}, "step": steps}
