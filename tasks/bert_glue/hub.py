"""Where a hub repository lies on this machine: a folder of the user's, the hub's cache, or a download."""

from __future__ import annotations

import os
from pathlib import Path

from bench.task import BenchError

TIMEOUT = 5.0
"""Seconds to wait for the hub's first answer."""


def first_line(error: Exception) -> str:
    """What an error says, at most 120 characters of it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def mirror(root: str | None, variable: str) -> Path | None:
    """The user's own folder of repositories: the config's ``root``, or the environment variable."""
    root = root or os.environ.get(variable)
    return Path(root).expanduser() if root else None


def snapshot(name: str, kind: str, patterns: list[str], needed: str, tried: str) -> Path:
    """The folder of hub repository ``name`` (``kind``: dataset or model) with the files of ``patterns``.

    ``needed`` is a pattern of which at least one file must be there; ``tried`` ends the error's first half: where the
    caller has looked before. Raises BenchError within seconds where the hub cannot be reached.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import disable_progress_bars, get_session

    disable_progress_bars()
    reason = "not found"
    for local in (True, False):
        try:
            if not local:  # the client itself waits without end for a network that swallows packets
                get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
            folder = Path(snapshot_download(name, repo_type=kind, allow_patterns=patterns, local_files_only=local))
        except Exception as error:  # the client raises many types, from OSError to its own; each means: not to be had
            reason = first_line(error)
            continue
        if any(folder.glob(needed)):
            return folder
        reason = f"it has no {needed}"
    raise BenchError(f"{kind} {name} ({needed}) is not {tried}, not in the hub's cache, and the hub did not give it "
                     f"({reason})")
