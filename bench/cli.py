"""The command line: ``bench VERB``. The verbs are in ``bench/verbs/``; errors that a user can fix are printed as one line."""

import argparse
import errno
import os
import sys
from typing import NoReturn

from bench import launcher
from bench.errors import BenchError, UsageError


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; return the exit status: 0, 1 for a failure, 2 for a command that cannot be understood, 130 for Ctrl-C."""
    try:
        commands = parser()
        given, rest = commands.parse_known_args(arguments)
        if any(word.startswith("-") or "overrides" not in given for word in rest):
            commands.error(f"unrecognized arguments: {' '.join(rest)}")
        if rest:  # key=value after a flag
            given.overrides += rest
        if not launcher.first():  # only one of several processes that train together prints
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        return given.verb.run(given) or 0
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(f"bench: interrupted; finished trainings are kept. To go on: {launcher.command_line()}", file=sys.stderr)
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


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with status 2."""
        self.exit(2, f"bench: {message}: `{self.prog} --help` explains it\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    from bench.verbs import VERBS  # here, where Ctrl-C is told in one line

    whole = _Parser(
        prog="bench",
        description="Lottery tickets, found and checked: one set of pruning "
        "methods over CNNs, BERT and GCNs, with leaderboards made from records.",
    )
    verbs = whole.add_subparsers(dest="name", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        about, _, more = (verb.__doc__ or "").partition("\n\n")
        described = argparse.RawDescriptionHelpFormatter
        sub = verbs.add_parser(name, help=about, description=more or about, formatter_class=described)
        verb.arguments(sub)
        sub.set_defaults(verb=verb)
    return whole


if __name__ == "__main__":
    sys.exit(main())
