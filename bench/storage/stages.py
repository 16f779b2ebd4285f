"""The stage store: training segments on disk, shared by methods, processes and restarts.

    <root>/stages/<key>/<step>/stage.json          ingredients of the key, curve, seconds
                               state.safetensors   parameters, buffers and, while the schedule goes on, optimizer state
                               evals.SPLIT.json    metrics of a split, once asked for, and their checksum
                               done                checksums; written last, and the folder renamed into place
                               unsent              only while a mirror lacks something of it

One key is one training; its folders are the steps it was stored at. A checkpoint is nothing but such a step, so resuming
after a kill and going on from 10 to 20 epochs are the same thing.
"""

import errno
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.errors import BenchError, Held
from bench.storage.files import canonical, file_sum, parsed, safe_name, store_folder, text_sum, write_atomic
from bench.storage.locks import Locks
from bench.storage.mirror import Mirror
from bench.storage.unfinished_files import abandoned, owner

Read = TypeVar("Read")
UNSENT = "unsent"
"""The empty file of a stage that was not brought to the mirror yet, as that failed or was killed."""


@dataclass(frozen=True)
class Stage:
    """A stored step of a training."""

    folder: Path
    key: str
    step: int
    info: dict[str, Any]
    mirror: Mirror | None = None

    @property
    def checkpoint(self) -> bool:
        """Whether an unfinished training left the step behind, so that nothing has requested it."""
        return bool(self.info["checkpoint"])

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, after its checksum was compared."""
        path = self.folder / "state.safetensors"

        def read() -> dict[str, Tensor]:
            if file_sum(path) != parsed((self.folder / "done").read_bytes())["state.safetensors"]:
                raise ValueError
            return load_file(path)

        try:
            return _settled(self.folder, read)
        except (OSError, ValueError, KeyError, TypeError):
            raise BenchError(f"stage {self.folder} is damaged (its checksum differs): delete that folder and run again") from None

    def evaluations(self) -> dict[str, dict[str, float]]:
        """Return metrics by split, as far as they were computed, after their checksum was compared."""
        splits: dict[str, dict[str, float]] = {}
        for path in sorted(self.folder.glob("evals*.json")):
            try:
                stored = parsed(path.read_bytes())
                if stored["sum"] != text_sum(canonical(stored["splits"])):
                    raise ValueError
                splits |= stored["splits"]
            except (OSError, ValueError, KeyError, TypeError):
                raise BenchError(f"{path} is damaged (its checksum differs): delete it and run again") from None
        return splits

    def add_evaluation(self, split: str, metrics: dict[str, float]) -> None:
        """Store the metrics of a split, in a file of its own, so that those of other processes are kept."""
        path, splits = self.folder / f"evals.{safe_name(split)}.json", {split: metrics}
        write_atomic(path, canonical({"splits": splits, "sum": text_sum(canonical(splits))}) + "\n")
        if self.mirror:
            (self.folder / UNSENT).touch()  # after the file, or a process that sends others now would take the mark away
        self.send()

    def send(self) -> None:
        """Bring a finished stage and its metrics to the mirror, if there is one; if it fails, the next ``Store.get`` does it."""
        if self.mirror and not self.checkpoint:
            self.mirror.publish(self.folder, self.key, self.step)
            (self.folder / UNSENT).unlink(missing_ok=True)


class Store:
    """Folders of stages below ``root``; behind them, where it was given as a URL, a mirror of the finished ones."""

    def __init__(self, root: str | Path):
        """``root``: a folder, or a URL such as ``s3://bucket/prefix``, whose stages are then kept in this machine's cache too."""
        self.mirror = Mirror(str(root)) if "://" in str(root) else None
        self.root = store_folder(root)
        self.locks = Locks(self.root)

    def get(self, key: str, step: int) -> Stage | None:
        """The stage, if that step was stored whole."""
        stage = self._local(key, step)
        if stage is None and self.mirror:
            with self._writing(key, step) as partial:
                if self.mirror.fetch(key, step, partial):
                    stage = self._publish(partial, key, step)
        elif stage and self.mirror and (stage.folder / UNSENT).exists():
            stage.send()
        return stage

    def latest(self, key: str, step: int) -> Stage | None:
        """The furthest stored step of the training, at most ``step``."""
        steps = {int(p.name) for p in self._home(key).glob("*") if p.name.isdigit()}
        steps |= set(self.mirror.steps(key)) if self.mirror else set()
        return next((stage for s in sorted(steps, reverse=True) if s <= step and (stage := self.get(key, s))), None)

    def lock(self, key: str, wait: bool = True) -> AbstractContextManager[None]:
        """Only one process trains a key: another one waits, or is told at once by Held. A killed process holds none, or none for
        long; see ``bench.storage.locks``."""
        return self.locks.hold(key, wait)

    def held(self, key: str) -> bool:
        """Whether another process trains the key at this moment."""
        try:
            with self.lock(key, wait=False):
                return False
        except Held:
            return True

    def put(self, key: str, step: int, tensors: Mapping[str, Tensor], info: dict[str, Any]) -> Stage:
        """Store one step. Call under ``lock``; earlier checkpoints of the training are then dropped. An equal stage that another
        process stored meanwhile is kept, and ours is dropped. Held if the lock was lost and this is but a checkpoint: another
        process has taken the training up."""
        if info["checkpoint"] and self.locks.lost(key):
            raise Held(key)
        home = self._home(key)
        for stale in home.glob("*.partial"):
            if abandoned(stale):
                shutil.rmtree(stale, ignore_errors=True)
        with self._writing(key, step) as partial:
            partial.mkdir(parents=True)
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, partial / "state.safetensors")
            (partial / "stage.json").write_text(json.dumps(info, indent=1, sort_keys=True) + "\n")
            sums = {name: file_sum(partial / name) for name in ("state.safetensors", "stage.json")}
            (partial / "done").write_text(canonical(sums) + "\n")
            if self.mirror:
                (partial / UNSENT).touch()
            stage = self._publish(partial, key, step)
        for other in home.iterdir():
            if other.name.isdigit() and int(other.name) < step and (old := self._local(key, int(other.name))) and old.checkpoint:
                self.drop(key, int(other.name))
        stage.send()
        return stage

    def drop(self, key: str, step: int) -> None:
        """Remove a stage, in one move, so that no reader sees half of it."""
        with suppress(FileNotFoundError):
            aside = self._partial(key, step)
            (self._home(key) / str(step)).rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def _home(self, key: str) -> Path:
        return self.root / "stages" / key

    def _partial(self, key: str, step: int) -> Path:
        return self._home(key) / f"{step}.{owner()}.partial"

    def _local(self, key: str, step: int) -> Stage | None:
        """The stage on this disk."""
        folder = self._home(key) / str(step)

        def read() -> Stage:
            sums = parsed((folder / "done").read_bytes())
            if file_sum(folder / "stage.json") != sums["stage.json"]:
                raise ValueError
            return Stage(folder, key, step, parsed((folder / "stage.json").read_bytes()), self.mirror)

        if not (folder / "done").exists():
            return None
        try:
            return _settled(folder, read)
        except (OSError, ValueError, KeyError, TypeError):
            if not (folder / "done").exists():  # a checkpoint its training has just dropped
                return None
            raise BenchError(f"stage {folder} is damaged: delete that folder and run again") from None

    def _publish(self, partial: Path, key: str, step: int) -> Stage:
        """Move a whole stage to its place. One that is there already is kept if it is as good, and else set aside."""
        final = self._home(key) / str(step)
        while True:
            try:
                partial.rename(final)  # fails where a folder is that holds anything
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            there, ours = self._whole(key, step), parsed((partial / "stage.json").read_bytes())
            if there and (not there.checkpoint or ours["checkpoint"]):
                shutil.rmtree(partial)
                return there
            self.drop(key, step)
        return Stage(final, key, step, parsed((final / "stage.json").read_bytes()), self.mirror)

    def _whole(self, key: str, step: int) -> Stage | None:
        """The stage on this disk; None as well where it is damaged."""
        try:
            return self._local(key, step)
        except BenchError:
            return None

    @contextmanager
    def _writing(self, key: str, step: int) -> Iterator[Path]:
        """A name for a stage that is being written. What goes wrong leaves nothing there, and a full disk is one line."""
        partial = self._partial(key, step)
        try:
            yield partial
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "No space" in str(error):
                raise BenchError(
                    f"no space left below {self.root} to store a stage: free some (`bench store clean`), or give another "
                    "store=DIR, and run the same command again; finished stages are kept"
                ) from None
            raise


def _settled(folder: Path, read: Callable[[], Read]) -> Read:
    """What ``read`` returns; if it fails, once more where another folder has taken this one's place meanwhile."""
    for _ in range(3):
        before = _inode(folder)
        try:
            return read()
        except (OSError, ValueError, KeyError, TypeError):
            if _inode(folder) == before:
                raise
    return read()


def _inode(folder: Path) -> int | None:
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return None
