"""List tasks, methods, scores, controls, analyses, protocols."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.verbs.printing import sentence, table

KINDS = ("tasks", "methods", "scores", "controls", "analyses", "protocols")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("kind", nargs="?", choices=KINDS)
    parser.add_argument("entry", nargs="?", metavar="NAME", help="of a method, score or analysis: show its options")
    parser.add_argument("--json", action="store_true")


def run(given: argparse.Namespace) -> None:
    """Print what there is."""
    from bench import registry

    if given.entry:
        look = {"methods": registry.method, "analyses": registry.analysis, "scores": registry.score}.get(given.kind)
        if look is None:
            raise UsageError(f"bench list {given.kind} takes no name; bench list methods NAME shows a method's options")
        return table(_options_of(look(given.entry)), given.json)
    return table([row for kind in ([given.kind] if given.kind else KINDS) for row in _rows_of(kind)], given.json)


def _rows_of(kind: str) -> list[dict[str, Any]]:
    """Return a row for each entry of a kind: what it is, its name, and the first sentence about it."""
    from bench import registry
    from bench.config import group_options

    if kind in ("tasks", "protocols"):
        folders = {f"tasks/{name}": registry.task_folder(name) for name in registry.names("tasks")}
        if kind == "protocols":
            return [{"kind": kind, "name": n, "about": ", ".join(group_options(f, "protocol"))} for n, f in folders.items()]
        return [
            {"kind": "task", "name": n, "about": _first_line(f / "README.md"), "data": ", ".join(group_options(f, "data"))}
            for n, f in folders.items()
        ]
    if kind == "controls":
        texts = registry.controls()
    else:
        texts = {name: registry.documentation(kind, name) for name in registry.names(kind)}
    one = "analysis" if kind == "analyses" else kind.removesuffix("s")
    return [{"kind": one, "name": name, "about": sentence(text)} for name, text in texts.items()]


def _options_of(function: Callable[..., Any]) -> list[dict[str, Any]]:
    """Return the options of a method, a score or an analysis: name, default, meaning."""
    from bench import registry
    from bench.values import text

    defaults = registry.options(function)
    return [
        {"option": option, "default": text(defaults[option]) if option in defaults else "must be given", "meaning": meaning}
        for option, meaning in registry.meanings(function).items()
    ]


def _first_line(path: Path) -> str:
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.lstrip("# ") for line in lines if line.strip()), "")
