"""What the ledger lacks: the commands of claims that were not run, for the seeds that are missing."""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence

from bench.claims.judge import NOT_RUN, Command, Verdict
from bench.config import settings
from bench.errors import UsageError
from bench.runner.analyses import requested
from bench.runner.jobs import same_task
from bench.runner.missing import MissingRun
from pruning import CONTROLS


def missing_runs(verdicts: Iterable[Verdict], paper: str | None, protocol: str | None, local: Sequence[str]) -> list[MissingRun]:
    """The commands that verdicts lack, those of one setting side by side. ``paper``: a part of its name, or of its claims' ids;
    ``local``: what the command line says of where and how to run. UsageError if no claim is left."""
    wanted = [v for v in verdicts if paper is None or paper.lower() in f"{v.paper} {v.claim.id}".lower()]
    if not wanted:
        raise UsageError(f"no claim is of a paper {paper!r}: `bench claims --json` names them")
    uses: dict[tuple[str, ...], list[tuple[Command, str]]] = defaultdict(list)
    for v in wanted:
        for command in v.run if v.verdict == NOT_RUN else ():
            if command.lacking and protocol in (None, *(w.partition("protocol=")[2] for w in command.words)):
                uses[command.words].append((command, f"{v.claim.id} at {v.where}"))
    found = []
    for words, several in uses.items():
        controls = frozenset().union(*(command.controls for command, _ in several))
        seeds = sorted(frozenset().union(*(command.lacking for command, _ in several)))
        complete = [*words, f"seeds=[{','.join(map(str, seeds))}]", *local]
        if words[1] == "run":
            complete.insert(-1 - len(local), f"controls=[{','.join(c for c in CONTROLS if c in controls)}]")
        analysis, rest = requested(complete[2], complete[4:]) if words[1] == "analyse" else (None, complete[3:])
        (setting,) = settings(complete[3] if analysis else complete[2], rest)
        found.append(MissingRun(shlex.join(complete), setting, analysis, frozenset(claim for _, claim in several)))
    return sorted(found, key=lambda run: same_task(run.setting))
