"""Locks of a store: which kind its file system bears, and how one is held.

``flock`` where the operating system's locks are real: on a local disk, and on NFS 4 or Lustre if the mount has them and two
processes have tried. Elsewhere ``lease``: a marker file that its holder renews, and that another takes over once it has not been
renewed for a while. A lease can be lost while its holder still lives (stopped, or cut off). Two processes then train one key,
both get the same result, and the store keeps one.

Whoever uses a store first writes its kind of lock into ``<store>/store.json``. A machine that cannot use that kind is refused.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from filelock import BaseFileLock, SoftFileLease, Timeout, UnixFileLock

from bench.errors import BenchError, Held
from bench.storage.files import canonical, parsed

LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "tmpfs", "ramfs", "overlay", "apfs", "hfs"}
"""Types of file systems that one machine has for itself."""
FLOCK, LEASE = "flock", "lease"
LEASE_SECONDS = 60.0
"""After so long without renewal a lease is taken over; the ``lease_seconds`` of a store.json come first."""
_PROBE = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(9)
"""


@dataclass
class Locks:
    """The locks of the store below ``root``, one for each key."""

    root: Path
    _watched: dict[str, SoftFileLease] = field(default_factory=dict)
    """Leases of others. One is taken over after it was watched for its whole length, over however many tries."""
    _mine: dict[str, BaseFileLock] = field(default_factory=dict)

    @contextmanager
    def hold(self, key: str, wait: bool) -> Iterator[None]:
        """Hold the lock of a key. Held if another process has it and ``wait`` is false."""
        lock = self._lock(key)
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            raise Held(key) from None
        except OSError as error:
            raise BenchError(f"the store {self.root} cannot be locked: {error.strerror or error}") from None
        self._watched.pop(key, None)
        self._mine[key] = lock
        try:
            yield
        finally:
            del self._mine[key]
            with suppress(OSError, RuntimeError):  # a lease that was lost is not ours to release
                lock.release()

    def lost(self, key: str) -> bool:
        """Whether a lease that this process holds ran out, so that another may hold it too. The marker is read, as the heartbeat
        notices a loss only after a while."""
        lock = self._mine.get(key)
        if not isinstance(lock, SoftFileLease):
            return False
        try:
            return lock.compromise is not None or str(lock.token) not in Path(lock.lock_file).read_text()
        except OSError:
            return True

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What store.json says: the store's name, its kind of lock, and the file system it was chosen for. Written if it is not
        there. BenchError if this machine cannot use that kind."""
        self.root.mkdir(parents=True, exist_ok=True)
        path, (kind, system) = self.root / "store.json", lock_kind(self.root)
        with suppress(FileExistsError):
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            try:
                os.write(file, (canonical({"store": secrets.token_hex(8), "locks": kind, "file_system": system}) + "\n").encode())
            finally:
                os.close(file)
        facts = _read(path)
        chosen_on = facts.get("file_system", system)
        if facts["locks"] == FLOCK and (kind == LEASE or (system in LOCAL) != (chosen_on in LOCAL)):
            raise BenchError(
                f"the store {self.root} was begun with {FLOCK} on {chosen_on}, which does not hold on {system} here: let its "
                f'store.json say "locks": "{LEASE}" while nothing runs on it'
            )
        return facts

    def _lock(self, key: str) -> BaseFileLock:
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        if self.facts["locks"] == FLOCK:
            return UnixFileLock(folder / f"{key}.lock", fallback_to_soft=False)
        seconds = float(self.facts.get("lease_seconds", LEASE_SECONDS))
        if key not in self._watched:
            self._watched[key] = SoftFileLease(
                folder / f"{key}.lease", lease_duration=seconds, thread_local=False, poll_interval=min(1.0, seconds / 5)
            )
        return self._watched[key]


def lock_kind(folder: Path) -> tuple[str, str]:
    """The kind of lock that can be trusted in a folder, and the type of its file system."""
    system, options = _file_system(folder.resolve())
    network = (system == "nfs4" and not options & {"local_lock=flock", "local_lock=all"}) or (
        system == "lustre" and "flock" in options
    )
    return FLOCK if system in LOCAL or (network and _excludes(folder)) else LEASE, system


def _file_system(place: Path) -> tuple[str, set[str]]:
    """Type and mount options of the file system that a folder lies in."""
    mounts = [m for m in psutil.disk_partitions(all=True) if place.is_relative_to(m.mountpoint)]
    last = max(enumerate(mounts), key=lambda pair: (len(pair[1].mountpoint), pair[0]), default=None)
    return ("unknown", set()) if last is None else (last[1].fstype, set(last[1].opts.split(",")))


def _excludes(place: Path) -> bool:
    """Whether a lock that this process holds keeps another process out: some mounts refuse locks, and some grant them to all."""
    import fcntl

    path = place / f"probe.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return subprocess.run([sys.executable, "-S", "-c", _PROBE, str(path)], check=False, timeout=60).returncode == 9
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """The facts of a store.json, which another process may be about to write."""
    for _ in range(40):
        with suppress(OSError, ValueError, KeyError, TypeError):
            facts: dict[str, Any] = parsed(path.read_bytes())
            if facts["locks"] in (FLOCK, LEASE) and isinstance(facts["store"], str):
                return facts
        time.sleep(0.05)
    raise BenchError(f"{path} is damaged: delete it while nothing runs on the store")
