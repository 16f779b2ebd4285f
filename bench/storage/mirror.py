"""A mirror: finished stages in an object store (or any place that fsspec reaches), behind a store on local disk.

    <url>/stages/<key>/<step>/<sha256>              a file of the stage, under its checksum
                              evals.<split>.json    metrics of a split
                              done                  name -> checksum; written last, and only if there is none

Files lie under their checksums, so machines that publish one stage at a time cannot mix theirs: the first ``done`` counts.
An object store has no locks that can be trusted, so machines that share nothing else may train one key twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from bench.errors import BenchError, UsageError
from bench.storage.files import file_sum, parsed


class Mirror:
    """The stages below a URL."""

    def __init__(self, url: str):
        """``url``: ``s3://bucket/prefix``, ``gs://...``, ``file:///...``: whatever fsspec knows."""
        self.url = url.rstrip("/")
        with self._reached():
            self._files, self._root = _open(self.url)

    def steps(self, key: str) -> list[int]:
        """The steps at which a training is stored."""
        with self._reached():
            try:
                found = self._files.ls(f"{self._root}/stages/{key}", detail=False, refresh=True)
            except FileNotFoundError:
                return []
        return [int(name) for path in found if (name := path.rstrip("/").rpartition("/")[2]).isdigit()]

    def fetch(self, key: str, step: int, into: Path) -> bool:
        """Copy a stage into a folder that is not there yet; False if the mirror does not have it whole."""
        at = self._folder(key, step)
        with self._reached():
            try:
                raw = self._files.cat_file(f"{at}/done")
                sums = parsed(raw)
            except (FileNotFoundError, ValueError):  # never stored, or being written
                return False
            into.mkdir(parents=True)
            for name, checksum in sums.items():
                self._files.get_file(f"{at}/{checksum}", str(into / Path(name).name))
            for path in self._files.ls(at, detail=False, refresh=True):
                if (name := path.rpartition("/")[2]).startswith("evals."):
                    self._files.get_file(path, str(into / name))
        if any(file_sum(into / Path(name).name) != checksum for name, checksum in sums.items()):
            raise BenchError(f"{self.url}/stages/{key}/{step} is damaged: delete it and run again")
        (into / "done").write_bytes(raw)
        return True

    def publish(self, folder: Path, key: str, step: int) -> None:
        """Copy a finished stage and its metrics to the mirror, as far as they are not there."""
        at = self._folder(key, step)
        with self._reached():
            if not self._files.exists(f"{at}/done"):
                if at.startswith("/"):  # an object store has no folders, and s3fs would make a missing bucket
                    self._files.makedirs(at, exist_ok=True)
                done = (folder / "done").read_bytes()
                for name, checksum in parsed(done).items():
                    self._files.put_file(str(folder / name), f"{at}/{checksum}")
                self._create(f"{at}/done", done)
            for metrics in folder.glob("evals.*.json"):
                self._create(f"{at}/{metrics.name}", metrics.read_bytes())

    def _folder(self, key: str, step: int) -> str:
        return f"{self._root}/stages/{key}/{step}"

    def _create(self, path: str, content: bytes) -> None:
        """Write a file if there is none."""
        try:
            self._files.pipe_file(path, content, mode="create")
        except FileExistsError:
            pass
        except OSError:  # S3 refuses one of two that create it at the same moment
            self._files.invalidate_cache()
            if not self._files.exists(path):
                raise

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Whatever goes wrong on the way to the mirror is one line."""
        try:
            yield
        except BenchError:
            raise
        except Exception as error:  # every service has kinds of its own
            raise BenchError(
                f"the mirror {self.url} cannot be used ({type(error).__name__}: {error}); what is finished is kept on this "
                "machine: run the same command again"
            ) from None


@cache
def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it. UsageError where no package serves it, or its bucket is not there."""
    try:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(url)
    except ImportError as error:
        raise UsageError(f"store={url} needs a package: pip install 'ticket-bench[s3]' for S3 ({error})") from None
    except ValueError as error:
        raise UsageError(f"store={url}: {error}") from None
    if url.startswith("s3://"):  # where a missing bucket reads like an empty one
        bucket = root.partition("/")[0]
        try:
            with suppress(PermissionError):  # whoever may use no more than the prefix
                files.info(bucket)
        except FileNotFoundError:
            raise UsageError(f"store={url}: there is no bucket {bucket}: make it first") from None
    return files, root
