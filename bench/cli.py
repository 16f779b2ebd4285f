"""The command line: ``bench VERB``. Each verb is a function; what a user can mend is printed as one line."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bench import launcher
from bench.errors import BenchError, UsageError

LEADERBOARDS = Path("leaderboards")
LISTED = ["tasks", "methods", "scores", "controls", "analyses", "protocols"]

RUN_HELP = """\
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

ANALYSE_HELP = """\
Run an analysis on a task: one file of rows for every seed, published and shown on the leaderboards like records.

  bench list analyses                                               what there is
  bench analyse NAME tasks/cnn_cifar protocol=desk seeds=[0,1,2]
  bench analyse NAME tasks/cnn_cifar densities=[0.2] analysis.KEY=VALUE     its options, see its docstring
  bench analyse mine.py:function tasks/gcn_planetoid --dry-run      trainings it needs that are not stored

What it trains is stored and shared with `bench run`. docs/new_method.md says how to write one.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 for what failed, 2 for a command that cannot be understood, 130 for Ctrl-C."""
    commands = parser()
    given, rest = commands.parse_known_args(arguments)
    if any(word.startswith("-") or "overrides" not in given for word in rest):
        commands.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # key=value after a flag
        given.overrides += rest
    if not launcher.first():  # of several processes that train together one speaks
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        return given.verb(given) or 0
    except UsageError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        from bench.runner.grid import command_line
        print(f"bench: interrupted; finished trainings are kept. To go on: {command_line()}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        print(f"bench: {error.strerror}: {error.filename}; mend that and run the same command again", file=sys.stderr)
        return 1
    except ValueError as error:
        from pruning import PruningError
        if not isinstance(error, PruningError):
            raise
        print(f"bench: {error}", file=sys.stderr)
        return 1


def run(given: argparse.Namespace) -> int:
    """Run a grid."""
    from rich.console import Console

    from bench.config import settings
    from bench.runner.grid import plan, run_grid
    grid = settings(given.task, given.overrides)
    if given.dry_run:
        return _table(plan(grid), given.json, total=True)
    console = Console(stderr=True)
    from bench.leaderboard.terminal import summary
    return _report(run_grid(grid, console), summary, grid[0].config["runs"])


def analyse(given: argparse.Namespace) -> int:
    """Measure something of networks or tickets beside their test metric."""
    from rich.console import Console

    from bench.config import settings
    from bench.leaderboard.terminal import analysis_summary
    from bench.runner.analyses import asked
    from bench.runner.grid import plan, run_grid
    analysis, overrides = asked(given.analysis, given.overrides)
    grid = settings(given.task, overrides)
    if given.dry_run:
        return _table(plan(grid, analysis), given.json, total=True)
    return _report(run_grid(grid, Console(stderr=True), analysis), analysis_summary, grid[0].config["runs"])


def _report(outcomes: list[Any], summary: Callable[..., str], runs: str) -> int:
    """Say what a grid gave and what failed."""
    from bench.runner.grid import command_line
    records = list({record.id: record for outcome in outcomes for record in outcome.records}.values())
    if records:
        print(summary(records))
        print(f"records: {len(records)} under {runs}; to put them on a leaderboard: bench publish {runs} && bench leaderboard")
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed and len(outcomes) == 1:  # what failed was said when it did
        print(f"bench: nothing was lost. To try again: {command_line()}", file=sys.stderr)
    elif failed:
        print(f"bench: {len(failed)} of {len(outcomes)} jobs failed; the others are kept. First: {failed[0].error}. "
              f"To try the failed ones again: {command_line()}", file=sys.stderr)
    return 1 if failed else 0


def list_(given: argparse.Namespace) -> int:
    """Say what there is."""
    from bench import registry
    if given.entry:
        look = {"methods": registry.method, "analyses": registry.analysis, "scores": registry.score}.get(given.kind)
        if look is None:
            raise UsageError(f"bench list {given.kind} takes no name; bench list methods NAME shows a method's options")
        return _table(_options_of(look(given.entry)), given.json)
    from bench.config import group_options
    rows = []
    for kind in [given.kind] if given.kind else LISTED:
        if kind == "tasks":
            for name in registry.names("tasks"):
                folder = registry.task_folder(name)
                rows.append({"kind": "task", "name": f"tasks/{name}", "about": _first_line(folder / "README.md"),
                             "data": ", ".join(group_options(folder, "data"))})
        elif kind == "protocols":
            for name in registry.names("tasks"):
                rows.append({"kind": "protocols", "name": f"tasks/{name}",
                             "about": ", ".join(group_options(registry.task_folder(name), "protocol"))})
        elif kind == "controls":
            rows += [{"kind": "control", "name": name, "about": _sentence(text)} for name, text in registry.controls().items()]
        else:
            one = "analysis" if kind == "analyses" else kind.removesuffix("s")
            rows += [{"kind": one, "name": name, "about": _sentence(registry.documentation(kind, name))}
                     for name in registry.names(kind)]
    return _table(rows, given.json)


def _options_of(function: Callable[..., Any]) -> list[dict[str, Any]]:
    """The options of a method, a score or an analysis: name, default, meaning."""
    from bench import registry
    from bench.config import text
    defaults = registry.options(function)
    return [{"option": option, "default": text(defaults[option]) if option in defaults else "must be given", "meaning": meaning}
            for option, meaning in registry.meanings(function).items()]


def leaderboard(given: argparse.Namespace) -> int:
    """Regenerate the leaderboards, or compare them with their records."""
    from bench.leaderboard import site
    if not given.check:
        written = site.write(given.root)
        print(f"{len(written)} files written from the records below {given.root}")
        return 0
    differences = site.check(given.root)
    if differences:
        print("\n".join(differences))
        raise BenchError("the leaderboards are not what their records give: run `bench leaderboard` and commit the result")
    print("the leaderboards match their records")
    return 0


def claims(given: argparse.Namespace) -> int:
    """Judge the papers' claims by the records: rewrite the ledger, or compare it."""
    from bench.claims import page
    judged = page.verdicts(given.root)
    if given.check:
        differences = page.check(given.root, judged)
        if differences:
            print("\n".join(differences))
            raise BenchError("the ledger is not what claims and records give: run `bench claims` and commit the result")
        print("the ledger matches its claims and records")
        return 0
    page.write(given.root, judged)
    rows = [v.row() for v in judged]
    shown = ("id", "where", "test", "verdict", "seeds")
    return _table(rows if given.json else [{key: row[key] for key in shown} for row in rows], given.json)


def publish(given: argparse.Namespace) -> int:
    """Put a run's records under the leaderboards."""
    from bench.runner.publish import publish as put
    paths = put(given.run, given.root / "records")
    print(f"{len(paths)} records published below {given.root / 'records'}; now run: bench leaderboard")
    return 0


def verify(given: argparse.Namespace) -> int:
    """Run a record's command again in an empty store and compare."""
    from bench.runner.publish import verify as compare

    def trusted(what: str) -> bool:
        if given.trust or not sys.stdin.isatty():
            return bool(given.trust)
        return input(f"The record's command runs code from outside this repository: {what}\nRun it? [y/N] ").lower() == "y"

    differences = compare(given.record, given.tolerance, trusted)
    for line in differences:
        print(line)
    if differences:
        raise BenchError(f"{given.record} was not reproduced: {len(differences)} values differ")
    print(f"{given.record}: reproduced")
    return 0


def ticket_show(given: argparse.Namespace) -> int:
    """Densities of a ticket, layer by layer."""
    from bench.runner.export import show
    return _table(show(given.run), given.json)


def ticket_export(given: argparse.Namespace) -> int:
    """Write a ticket to one safetensors file."""
    from bench.runner.export import export
    path, trained, size = export(given.run, given.to, given.store)
    print(f"{path}: {size:,} bytes, {size / trained:.1%} of the trained parameters' {trained:,}")
    return 0


def doctor(given: argparse.Namespace) -> int:
    """Versions, devices, data: what is there, what is missing and how to get it."""
    from bench.checks.doctor import examine
    return _table(examine(), given.json)


def test(given: argparse.Namespace) -> int:
    """Run the conformance suite on a task folder."""
    from bench.checks.conformance import examine
    from bench.config import settings
    rows = examine(settings(given.task, given.overrides or ["protocol=smoke"])[0])
    _table(rows, given.json)
    return 1 if any(row["result"] != "ok" for row in rows) else 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Leave with status 2."""
        self.exit(2, f"bench: {message}: `{self.prog} --help` explains it\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    whole = _Parser(prog="bench", description="Lottery tickets, found and checked: one set of pruning "
                                     "methods over CNNs, BERT and GCNs, with leaderboards made from records.")
    verbs = whole.add_subparsers(dest="name", required=True, metavar="VERB")

    def verb(name: str, function: Callable[[argparse.Namespace], int | None], help: str, **more: Any) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help, description=more.pop("description", help),
                               formatter_class=argparse.RawDescriptionHelpFormatter, **more)
        sub.set_defaults(verb=function)
        return sub

    sub = verb("run", run, "run a task: train what is not stored yet, write records", description=RUN_HELP)
    sub.add_argument("task", help="tasks/NAME, or the folder of a task of your own")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="configuration, and grids over it")
    sub.add_argument("--dry-run", action="store_true", help="train nothing: say what would be trained and how long it takes")
    sub.add_argument("--json", action="store_true", help="the dry run as JSON")

    sub = verb("analyse", analyse, "measure something of networks or tickets beside their test metric",
               description=ANALYSE_HELP)
    sub.add_argument("analysis", help="its name (`bench list analyses`), or path/to/file.py:function")
    sub.add_argument("task", help="tasks/NAME, or the folder of a task of your own")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="configuration, and analysis.KEY=VALUE")
    sub.add_argument("--dry-run", action="store_true", help="train nothing: say what would be trained and how long it takes")
    sub.add_argument("--json", action="store_true", help="the dry run as JSON")

    sub = verb("list", list_, "list tasks, methods, scores, controls, analyses, protocols")
    sub.add_argument("kind", nargs="?", choices=LISTED)
    sub.add_argument("entry", nargs="?", metavar="NAME", help="of a method, score or analysis: show its options")
    sub.add_argument("--json", action="store_true")

    sub = verb("leaderboard", leaderboard, "regenerate leaderboards/*.md and plots from the records")
    sub.add_argument("--check", action="store_true", help="change nothing; fail if a file is not what the records give")
    sub.add_argument("--root", type=Path, default=LEADERBOARDS, help="default: leaderboards")

    sub = verb("claims", claims, "judge what papers claim by the records, regenerate leaderboards/claims.md")
    sub.add_argument("--check", action="store_true", help="change nothing; fail if the ledger is not what the records give")
    sub.add_argument("--json", action="store_true", help="verdicts with numbers and commands")
    sub.add_argument("--root", type=Path, default=LEADERBOARDS, help="default: leaderboards")

    sub = verb("publish", publish, "validate a run's records and put them under leaderboards/records")
    sub.add_argument("run", type=Path, help="a runs folder, or one record")
    sub.add_argument("--root", type=Path, default=LEADERBOARDS, help="default: leaderboards")

    sub = verb("verify", verify, "run a record's command again and compare")
    sub.add_argument("record", type=Path)
    sub.add_argument("--trust", action="store_true", help="run code from outside this repository without asking")
    sub.add_argument("--tolerance", type=float, default=0.0, help="largest difference of a metric that still counts as equal")

    sub = verb("ticket", lambda given: None, "look into a ticket, or take it out")
    parts = sub.add_subparsers(dest="part", required=True, metavar="show|export")
    show = parts.add_parser("show", help="densities, layer by layer")
    show.add_argument("run", type=Path, help="a record of a run")
    show.add_argument("--json", action="store_true")
    show.set_defaults(verb=ticket_show)
    export = parts.add_parser("export", help="masks and kept weights, in one safetensors file")
    export.add_argument("run", type=Path, help="a record of a run")
    export.add_argument("--to", type=Path, default=Path("ticket.safetensors"))
    export.add_argument("--store", type=Path, default=Path(".bench"))
    export.set_defaults(verb=ticket_export)

    sub = verb("doctor", doctor, "versions, devices, data roots: what is missing and how to get it")
    sub.add_argument("--json", action="store_true")

    sub = verb("test", test, "run the conformance suite on a task folder")
    sub.add_argument("task")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="default: protocol=smoke")
    sub.add_argument("--json", action="store_true")
    return whole


def _table(rows: list[dict[str, Any]], as_json: bool, total: bool = False) -> int:
    if as_json:
        print(json.dumps(rows, indent=1))
        return 0
    from tabulate import tabulate
    if total and len(rows) > 1:
        rows = [*rows, {key: sum(r[key] for r in rows) if isinstance(rows[0][key], (int, float)) else "total" for key in rows[0]}]
    print(tabulate([{k: _shown(v) for k, v in row.items()} for row in rows], headers="keys", disable_numparse=True))
    return 0


def _shown(value: Any) -> str:
    """In a table: few digits, lines of at most 60 characters (``maxcolwidths`` of tabulate stumbles over ``1,190``)."""
    return f"{value:,.4g}" if isinstance(value, float) else textwrap.fill(str(value), 60)


def _sentence(documentation: str) -> str:
    """The first sentence of a docstring."""
    first = " ".join(documentation.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.:]) (?=[A-Z])", first)[0]


def _first_line(path: Path) -> str:
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.lstrip("# ") for line in lines if line.strip()), "")


if __name__ == "__main__":
    sys.exit(main())
