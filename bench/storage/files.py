"""Files of the store: canonical JSON, safe names, whole writes and checksums."""

import hashlib
import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.storage.unfinished_files import owner


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parsed(raw: bytes) -> Any:
    """Return the value of a JSON text in which no key stands twice. Every flaw is a ValueError of one line."""
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_once)
        if b"\\ud" in raw.lower():  # half of a surrogate pair cannot be written to a file or terminal
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


@lru_cache
def safe_name(text: str) -> str:
    """Return a file name for any text. It never begins with a dot, so it never leads out of a folder."""
    return re.sub(r"^\.", "_", "".join(c if c.isalnum() or c in "-_.=," else "_" for c in text))


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{owner()}.partial")
    partial.write_text(text)
    partial.replace(path)


def text_sum(text: str) -> str:
    """Return the sha256 of a text, as hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sum(path: Path) -> str:
    """Return the sha256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache() -> Path:
    """The folder of what can be had again: $BENCH_CACHE, or one in the user's cache."""
    return Path(os.environ.get("BENCH_CACHE") or "~/.cache/ticket-bench").expanduser()


def store_folder(store: str | Path) -> Path:
    """The folder of a store: itself or, of a URL such as ``s3://bucket/prefix``, what this machine has of it in its cache."""
    return cache() / "stores" / safe_name(str(store)) if "://" in str(store) else Path(store)
