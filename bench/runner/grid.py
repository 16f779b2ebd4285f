"""The grid: every job of a command, run by an executor, with a progress bar."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from bench import launcher
from bench.errors import UsageError
from bench.runner import executors
from bench.runner.jobs import Job, Outcome
from bench.runner.status import GridStatus
from bench.storage.stages import Store
from bench.training import distributed


def run_jobs(jobs: list[Job]) -> list[Outcome]:
    """Run every job on the executor that the first one's configuration names; a failure costs its own job only. How far they are
    is printed to stderr."""
    config, console = jobs[0].setting.config, Console(stderr=True)
    if distributed.launched() > 1:
        if config["jobs"] != 1:
            raise UsageError(
                f"executor={config['executor']['name']} jobs={config['jobs']} spreads a grid over processes of its own: leave it "
                "out under a launcher of several"
            )
        distributed.join(config["device"])
    executor = executors.choose(config["executor"], config["jobs"])
    outcomes = []
    with (
        GridStatus.begin(Store(config["store"]).root, jobs, launcher.command_line()) as status,
        Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        ) as bars,
    ):
        grid, stage = bars.add_task("jobs", total=len(jobs)), bars.add_task("stage", total=None)

        status.show = lambda what, step, last: bars.update(stage, description=what, completed=step, total=last)
        status.tell = lambda line: console.print(line, soft_wrap=True, highlight=False, markup=False)
        status.changed = lambda status: bars.update(grid, description=status.line)
        for outcome in executor(jobs, status):
            if outcome.error and distributed.processes() > 1:
                distributed.fail(f"{outcome.job}: {outcome.error}")
            outcomes.append(outcome)
            status.done, status.failed = status.done + (not outcome.error), status.failed + bool(outcome.error)
            bars.advance(grid)
            console.print(
                f"failed {outcome.job}: {outcome.error}"
                if outcome.error
                else f"done {outcome.job}: {len(outcome.records)} records",
                style="red" if outcome.error else None,
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
    return outcomes
