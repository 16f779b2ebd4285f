"""Whether a worker elsewhere runs the same code and sees the same store, checked before it trains anything."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.machine import installed
from bench.storage.files import write_atomic
from bench.storage.unfinished_files import host

PACKAGES = ("torch", "numpy")
"""Whose versions decide numbers."""


@dataclass(frozen=True)
class WorkerCheck:
    """What the machine that starts a grid has; a worker compares."""

    host: str
    working: str
    folder: str
    token: str
    versions: dict[str, str]

    @classmethod
    def of(cls, folder: Path) -> WorkerCheck:
        """Write a token into a folder of the store, and note what this machine has."""
        token = secrets.token_hex(8)
        write_atomic(folder / "token", token)
        return cls(host(), os.getcwd(), str(folder.absolute()), token, versions())

    def refusal(self) -> str | None:
        """Go to the folder in which the grid was started; returns why this worker must not work, None if it may."""
        here, own = host(), versions()
        for what, wanted in self.versions.items():
            if own[what] != wanted:
                return f"the worker on {here} has {what} {own[what]}, {self.host} has {wanted}: install the same on both"
        try:
            os.chdir(self.working)
        except OSError as error:
            return (
                f"the folder {self.working} of {self.host} is not to be had on {here} ({error.strerror}): start from a shared one"
            )
        try:
            found = (Path(self.folder) / "token").read_text()
        except OSError:
            found = None
        if found != self.token:
            store = Path(self.folder).parents[1]
            return f"store={store} is not the same folder on {here} as on {self.host}: give one that all machines share"
        return None


@cache
def versions() -> dict[str, str]:
    """What must be equal wherever a grid runs: Python, the packages that numbers depend on, and a hash of our own code."""
    found = {package: installed(package) or "none" for package in PACKAGES}
    root, digest = Path(__file__).parents[3], hashlib.sha256()
    for path in sorted(path for room in ("bench", "pruning", "tasks") for path in (root / room).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return {"Python": platform.python_version(), **found, "Ticket Bench": digest.hexdigest()[:12]}
