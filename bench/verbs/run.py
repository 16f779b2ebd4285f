"""Run a task: train what is not stored yet, write records.

Compose a task's configuration, train what is not stored yet, and write one record for every ticket and control.

  bench run tasks/gcn_planetoid                                     the standard run
  bench run tasks/bert_glue data=rte method=imp protocol=desk seeds=[0,1,2]
  bench run tasks/cnn_cifar method=[dense,one_shot,imp] densities=[0.2,0.1]    a grid; run it again to go on
  bench run tasks/gcn_planetoid densities.weights=0.5 densities.edges=0.8      two budgets
  bench run tasks/cnn_cifar method.rewind=init,1ep                  any key takes a grid of values
  bench run tasks/cnn_cifar --dry-run                               trainings stored and missing, MACs, a time estimate

Options are key=value; `bench list tasks`, `bench list methods`, ... give the choices. Often used:
  data, model, method, protocol   what is run: protocol=smoke takes seconds, desk minutes a training, paper the papers' budget
  densities, seeds, controls      the table's columns, its repetitions, and the sceptic's checks beside each ticket
  jobs=2                          local processes      store=DIR   shared stages      runs=DIR   records and tickets
  data.root=DIR (or $BENCH_DATA)  an offline mirror in the hub's layout
"""

import argparse

from bench.verbs.arguments import add_overrides
from bench.verbs.run_jobs import load_runner, run_or_plan


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("task", help="tasks/NAME, or the folder of a task of your own")
    add_overrides(parser, "configuration, and grids over it")
    parser.add_argument("--dry-run", action="store_true", help="train nothing: say what would be trained, in what time and space")
    parser.add_argument("--json", action="store_true", help="the dry run as JSON")


def run(given: argparse.Namespace) -> int:
    """Run a grid."""
    from bench import launcher, registry
    from bench.runner.executors import processes

    registry.task_folder(given.task)  # a task that there is not is told at once
    forks_none = given.dry_run or any(word == "jobs=1" or word.startswith("executor=") for word in given.overrides)
    if not forks_none and launcher.launched() <= 1:
        processes.warm_up()  # it imports what workers need while this process imports the same
    load_runner()
    from bench.config import settings
    from bench.runner.jobs import jobs_of

    return run_or_plan(jobs_of(settings(given.task, given.overrides)), given)
