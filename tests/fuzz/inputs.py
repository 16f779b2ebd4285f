"""Mutated inputs for the command line: ``python -m tests.fuzz.inputs [--seconds 60] [--cases N] [--seed 0] [--case N]``.

A case copies one toy store with its leaderboards and an exported ticket, changes one file of it or makes up a command, and calls
``bench.cli.main`` (or ``bench.from_pretrained``) in this process. A finding is a traceback, a hang, an exit status other than 0,
1 and 2, a failure without exactly one ``bench:`` line, or a changed sealed file whose content was accepted. ``--case N`` runs one
case of the seed again and leaves its files where it says.
"""

import argparse
import contextlib
import hashlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from bench import from_pretrained
from bench.cli import main
from bench.config import settings
from bench.errors import BenchError
from bench.storage.records import read_records
from bench.values import flat
from bench.verbs import VERBS
from tests.bench.claims.toy_claims import CLAIM
from tests.bench.suites.suites import suite as toy_suite
from tests.conftest import TOY

LIMIT = 20
"""Seconds after which a case counts as hanging."""
LOAD = "from_pretrained"
MADE_UP = [name for name in VERBS if name not in ("run", "analyse", "test", "doctor")]
"""Verbs that any words may follow: none of them trains for long."""
VALUES = (
    "0",
    "-1",
    "1",
    "1e400",
    "nan",
    "null",
    "true",
    "''",
    "x",
    "[]",
    "[0]",
    "[[]]",
    "{}",
    "{a: 1}",
    "[0.5,0.5]",
    "0.5,0.2",
    "é",
    "${seeds}",
    "${none}",
    "???",
    "[1",
    "a=b",
    "../..",
    "9" * 30,
)
TOKENS = ("0", "-1", "null", "true", "[]", "{}", "1e999", '"x"', "NaN", "9" * 30, "???", "${x}", "&a", "\t", "\x00")


class Hang(BaseException):
    """A case took longer than ``LIMIT``."""


def changed(content: bytes, draw: random.Random) -> bytes:
    """One mutation of a file's content."""
    at, to = sorted(draw.randrange(len(content) + 1) for _ in range(2)) if content else (0, 0)
    kind = draw.choice(("flip", "cut", "shorten", "repeat", "insert", "token", "random"))
    if kind == "flip" and content:
        at = draw.randrange(len(content))
        return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    return {
        "cut": content[:at] + content[to:],
        "shorten": content[:at],
        "repeat": content[:to] + content[at:],
        "insert": content[:at] + draw.randbytes(8) + content[at:],
        "random": draw.randbytes(64),
    }.get(kind, content[:at] + draw.choice(TOKENS).encode() + content[at + 1 :])


class World:
    """One toy store with records, leaderboards and an exported ticket, which every case gets a fresh copy of."""

    def __init__(self, folder: Path):
        self.clean, self.at = folder / "clean", folder / "case"
        self.grid = ("method=one_shot", "densities=[0.5]", "controls=[random]")
        self.made(self.run(self.clean))
        ticket = next(r for r in read_records(self.clean / "runs") if r.identity.method and not r.identity.control)
        path = next((self.clean / "runs").rglob(f"*{ticket.id}.json"))
        self.made(["export", str(path), "--to", str(self.clean / "exported"), f"store={self.clean / 'store'}", "--trust"])
        shutil.copytree(TOY, self.clean / "toy", ignore=shutil.ignore_patterns("__pycache__"))
        self.made(["publish", str(self.clean / "runs"), "--root", str(self.clean / "boards")])
        toys = toy_suite().model_dump()
        for event in toys["events"]:
            event["task"] = TOY
        for kind, content in (("claims", {"paper": "Toys", "claims": [CLAIM]}), ("suites", toys)):
            (self.clean / "boards" / kind).mkdir()
            (self.clean / "boards" / kind / "toys.yaml").write_text(yaml.safe_dump(content))
        self.made(["claims", "--root", str(self.clean / "boards")])
        self.contents = self.records(self.clean)
        self.network = checksum(from_pretrained(self.clean / "exported", TOY))
        self.keys = sorted(key for key, _ in flat(settings(TOY, [])[0].config))

    def made(self, words: list[str]) -> None:
        """Run a command that must succeed."""
        status, _, err = said(words)
        assert status == 0, err

    def run(self, folder: Path, task: str = TOY) -> list[str]:
        """The command that made it, with its folders."""
        return ["run", task, *self.grid, "threads=1", f"store={folder / 'store'}", f"runs={folder / 'runs'}"]

    def records(self, folder: Path) -> dict:
        """Content of every record by id."""
        return {record.id: record.content() for record in read_records(folder / "runs")}

    def fresh(self) -> None:
        """Forget the last case."""
        os.chdir(self.clean)
        shutil.rmtree(self.at, ignore_errors=True)
        shutil.copytree(self.clean, self.at)
        (self.at / "here" / "in").mkdir(parents=True)
        os.chdir(self.at / "here" / "in")  # what a command writes by default, or to ../.., stays in the copy

    def spoil(self, draw: random.Random, pattern: str) -> Path:
        """Change one file that fits."""
        path = draw.choice(sorted(p for p in self.at.glob(pattern) if p.is_file()))
        path.write_bytes(changed(path.read_bytes(), draw))
        return path


def record(world: World, draw: random.Random) -> list[str]:
    """A changed record; whoever reads it must refuse it."""
    path = str(world.spoil(draw, "runs/**/*.json"))
    return draw.choice(
        (
            ["ticket", "show", path],
            ["publish", path, "--root", str(world.at / "boards")],
            ["ticket", "export", path, "--store", str(world.at / "store"), "--to", str(world.at / "t")],
            world.run(world.at),
        )
    )


def masks(world: World, draw: random.Random) -> list[str]:
    """A changed mask file of a ticket that is exported."""
    path = world.spoil(draw, "runs/**/*.masks.safetensors")
    return [
        "ticket",
        "export",
        str(path).replace(".masks.safetensors", ".json"),
        "--store",
        str(world.at / "store"),
        "--to",
        str(world.at / "t"),
    ]


def stage(world: World, draw: random.Random) -> list[str]:
    """A changed file of the store, read again because the records are gone."""
    world.spoil(draw, "store/**/*")
    shutil.rmtree(world.at / "runs")
    where = f"--store={world.at / 'store'}"
    return draw.choice((world.run(world.at), world.run(world.at), ["store", "clean", where], ["status", "--all", where[2:]]))


def config(world: World, draw: random.Random) -> list[str]:
    """A changed configuration of a task."""
    world.spoil(draw, "toy/**/*.yaml")
    return [*world.run(world.at, str(world.at / "toy")), "--dry-run"]


def boards(world: World, draw: random.Random) -> list[str]:
    """A changed claim or suite."""
    kind, words = draw.choice((("claims", ["claims"]), ("suites", ["suite", "show"]), ("suites", ["leaderboard"])))
    world.spoil(draw, f"boards/{kind}/*.yaml")
    return [*words, "--root", str(world.at / "boards")]


def exported(world: World, draw: random.Random) -> list[str]:
    """A changed file of an exported ticket."""
    world.spoil(draw, "exported/*")
    return [LOAD, str(world.at / "exported")]


def command(world: World, draw: random.Random) -> list[str]:
    """A made-up command that trains nothing."""
    overrides = [
        f"{draw.choice(('', '', '', '+', '~'))}{draw.choice(world.keys)}={draw.choice(VALUES)}" for _ in range(draw.randint(1, 2))
    ]
    verb = draw.choice(("run", "run", "run", "analyse", *MADE_UP, "nonsense"))
    head = {"run": ["run", TOY], "analyse": ["analyse", draw.choice(("layer_densities", "none", "x.py:y", "")), TOY]}
    if verb in head:
        return [*head[verb], f"store={world.at}/store", f"runs={world.at}/runs", *overrides, "--dry-run"]
    return [
        verb,
        *(draw.choice((*VALUES, "--root", "--json", "show", "export", str(world.at))) for _ in range(draw.randint(0, 3))),
    ]


KINDS: dict[str, Callable[[World, random.Random], list[str]]] = {
    f.__name__: f for f in (record, masks, stage, config, boards, exported, command)
}


def load(folder: str) -> int:
    """Load an exported ticket as a command would."""
    try:
        network = from_pretrained(folder, TOY)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(checksum(network))
    return 0


def checksum(network: torch.nn.Module) -> str:
    """Names and values of a network, in brief."""
    return hashlib.sha256(b"".join(name.encode() + t.numpy().tobytes() for name, t in network.state_dict().items())).hexdigest()


def said(words: list[str]) -> tuple[int | str, str, str]:
    """Exit status (or what escaped), and what was printed."""

    def late(*_: object) -> None:
        raise Hang

    out, err = io.StringIO(), io.StringIO()
    signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status: int | str = load(words[1]) if words[0] == LOAD else main(words)
            except SystemExit as leaving:
                status = leaving.code if isinstance(leaving.code, int) else 0
    except Hang:
        status = f"hangs for more than {LIMIT} s"
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        status = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}: {str(error)[:90]!r}"
    finally:
        signal.alarm(0)
    return status, out.getvalue(), err.getvalue()


def flaw(world: World, kind: str, words: list[str]) -> str | None:
    """What is wrong with how a case ended."""
    status, out, err = said(words)
    if isinstance(status, str):
        return status
    if "Traceback (most recent call last)" in err:
        return "printed a traceback: " + "".join(line for line in err.splitlines() if line.startswith("failed "))[-120:]
    lines = [line for line in err.splitlines() if line.startswith("bench: ")]
    if status not in (0, 1, 2) or (status and len(lines) != 1):
        return f"exit status {status} with {len(lines)} `bench:` lines"
    if status == 0 and kind == "exported" and out.strip() != world.network:
        return "altered network accepted"
    if status == 0 and (kind == "record" or (kind == "stage" and words[0] == "run")):
        try:
            if world.records(world.at) != world.contents:
                return "altered content accepted"
        except BenchError as error:
            return f"exit status 0 beside a damaged record: {str(error)[-90:]}"
    return None


def main_() -> int:
    """Run cases until the time or their number is up."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--cases", type=int)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--case", type=int, help="this one alone")
    given = options.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    world, counts, found = World(folder), Counter(), {}
    begun, number = time.monotonic(), given.case or 0
    while given.case is not None or (number < given.cases if given.cases else time.monotonic() - begun < given.seconds):
        draw = random.Random(f"{given.seed}/{number}")
        kind = draw.choice(list(KINDS))
        world.fresh()
        words = KINDS[kind](world, draw)
        what = flaw(world, kind, words)
        counts[kind] += 1
        if what and (kind, what) not in found:
            found[kind, what] = number
            shutil.copytree(world.at, folder / f"case-{number}")
            print(
                f"{kind}: {what}\n  bench {' '.join(words)[:400]}\n  again: python -m tests.fuzz.inputs --seed {given.seed} "
                f"--case {number}   files: {folder / f'case-{number}'}",
                flush=True,
            )
        number += 1
        if given.case is not None:
            break
    print(f"{sum(counts.values())} cases ({', '.join(f'{n} {k}' for k, n in sorted(counts.items()))}), {len(found)} findings")
    if not found:
        shutil.rmtree(folder)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main_())
