"""Review a change of the records: what the rules refuse, what is odd; and run some of them again."""

import argparse

from bench.errors import BenchError
from bench.verbs.arguments import add_root


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("base", help="what the change is compared with: a commit or a branch, such as origin/main")
    parser.add_argument("--rerun", type=int, default=0, metavar="N", help="run N new records again that the commit's hash picks")
    add_root(parser)


def run(given: argparse.Namespace) -> None:
    """Review, then run again."""
    from bench.runner import review, verify
    from bench.storage import reruns

    found = review.review(given.base, given.root)
    for smell in found.smells:
        print(f"look at: {smell}")
    for refusal in found.refused:
        print(f"refused: {refusal}")
    if found.refused:
        raise BenchError(f"{len(found.refused)} things break the rules: leaderboards/RULES.md says which they are")
    print(f"{len(found.added)} new records keep the rules; {len(found.smells)} things to look at")
    outside = []
    for path in review.drawn(found.added, given.root, given.rerun):
        try:
            again = verify.rerun(path, given.root, "CI")
        except BenchError as error:
            print(f"not run again: {path}: {error}")
            continue
        print(f"{path}: {again.outcome}, {reruns.OUTCOMES[again.outcome]}; kept as {reruns.write(again, given.root)}")
        outside += [path] * (again.outcome == "outside")
    if outside:
        raise BenchError(f"{outside[0]} was not reproduced; its numbers are in {given.root / reruns.FOLDER}")
