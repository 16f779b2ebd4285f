"""The stage store: training segments on disk, shared by methods, processes and restarts.

    <root>/stages/<key>/<step>/stage.json          ingredients of the key, curve, seconds
                               state.safetensors   parameters, buffers and, while the schedule goes on, optimizer state
                               evals.json          metrics by split, once asked for, and their checksum
                               done                checksums; written last, and the folder renamed into place

One key is one training; its folders are the steps it was stored at. A checkpoint is nothing but such a step, so resuming
after a kill and going on from 10 to 20 epochs are the same thing.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.errors import BenchError, Held
from bench.storage.files import canonical, file_sum, parsed, text_sum, write_atomic


@dataclass(frozen=True)
class Stage:
    """A stored step of a training."""

    folder: Path
    key: str
    step: int
    info: dict[str, Any]

    @property
    def checkpoint(self) -> bool:
        """Left behind by an unfinished training, not asked for by anyone."""
        return bool(self.info["checkpoint"])

    def tensors(self) -> dict[str, Tensor]:
        """The state, after its checksum was compared."""
        path = self.folder / "state.safetensors"
        try:
            sums = parsed((self.folder / "done").read_bytes())
            intact = file_sum(path) == sums["state.safetensors"]
        except (OSError, ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            raise BenchError(f"stage {self.folder} is damaged (its checksum differs): delete that folder and run again")
        return load_file(path)

    def evaluations(self) -> dict[str, dict[str, float]]:
        """Metrics by split, as far as they were asked for, after their checksum was compared."""
        path = self.folder / "evals.json"
        try:
            stored = parsed(path.read_bytes())
            if stored["sum"] != text_sum(canonical(stored["splits"])):
                raise ValueError
            splits: dict[str, dict[str, float]] = stored["splits"]
            return splits
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError):
            raise BenchError(f"{path} is damaged (its checksum differs): delete it and run again") from None

    def add_evaluation(self, split: str, metrics: dict[str, float]) -> None:
        """Remember the metrics of a split."""
        splits = {**self.evaluations(), split: metrics}
        write_atomic(self.folder / "evals.json", canonical({"splits": splits, "sum": text_sum(canonical(splits))}) + "\n")


class Store:
    """Folders of stages below ``root``."""

    def __init__(self, root: str | Path):
        self.root = Path(root)

    def get(self, key: str, step: int) -> Stage | None:
        """The stage, if that step was stored whole."""
        folder = self.root / "stages" / key / str(step)
        try:
            sums = parsed((folder / "done").read_bytes())
            if file_sum(folder / "stage.json") != sums["stage.json"]:
                raise ValueError
            return Stage(folder, key, step, parsed((folder / "stage.json").read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            if not (folder / "done").exists():  # never stored, or a checkpoint its training has just dropped
                return None
            raise BenchError(f"stage {folder} is damaged: delete that folder and run again") from None

    def latest(self, key: str, step: int) -> Stage | None:
        """The furthest stored step of the training, at most ``step``."""
        steps = sorted((int(p.name) for p in (self.root / "stages" / key).glob("*") if p.name.isdigit()), reverse=True)
        return next((stage for s in steps if s <= step and (stage := self.get(key, s))), None)

    @contextmanager
    def lock(self, key: str, wait: bool = True) -> Iterator[None]:
        """Only one process trains a key: another one waits, or is told at once by Held. The lock is the operating system's, so a
        killed process holds none."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            raise Held(key) from None
        try:
            yield
        finally:
            lock.release()

    def held(self, key: str) -> bool:
        """Whether another process trains the key at this moment."""
        try:
            with self.lock(key, wait=False):
                return False
        except Held:
            return True

    def put(self, key: str, step: int, tensors: Mapping[str, Tensor], info: dict[str, Any]) -> Stage:
        """Store one step. Call under ``lock``; earlier checkpoints of the training are then dropped."""
        home = self.root / "stages" / key
        partial, final = home / f"{step}.{os.getpid()}.partial", home / str(step)
        try:
            for stale in home.glob("*.partial"):
                shutil.rmtree(stale)
            partial.mkdir(parents=True)
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, partial / "state.safetensors")
            (partial / "stage.json").write_text(json.dumps(info, indent=1, sort_keys=True) + "\n")
            sums = {name: file_sum(partial / name) for name in ("state.safetensors", "stage.json")}
            (partial / "done").write_text(canonical(sums) + "\n")
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "No space" in str(error):
                raise BenchError(
                    f"no space left below {self.root} to store a stage: free some, or give another "
                    "store=DIR, and run the same command again; finished stages are kept"
                ) from None
            raise
        for other in home.iterdir():
            if other.name.isdigit() and int(other.name) < step and (stage := self.get(key, int(other.name))) and stage.checkpoint:
                (other / "done").unlink()  # first, so that no reader takes half a stage for a damaged one
                shutil.rmtree(other)
        return Stage(final, key, step, info)
