"""Safetensors files that carry the checksum of all they hold, header and tensors, so that no changed bit is taken for content."""

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

KEY = ".seal"
"""The key of the checksum among the facts of a file; no parameter's name begins so."""
_SEAL = re.compile(rb'"\.seal":"([0-9a-f]{64})"')


class Damaged(ValueError):
    """A file does not hold what was written."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write a sealed file, whole or not at all. The seal is the sha256 of the file with zeros in the seal's place."""
    raw = save(dict(tensors), {**facts, KEY: "0" * 64})
    seal = _SEAL.search(raw)
    assert seal, "the file was just written with one"
    start = seal.start(1)
    partial = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as file:
            for part in (memoryview(raw)[:start], hashlib.sha256(raw).hexdigest().encode(), memoryview(raw)[start + 64 :]):
                file.write(part)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: Path, sealed: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and facts of a sealed file, or raise Damaged unless they are those that were written. With ``sealed`` false
    a file without a seal is accepted too, for a caller who checks the content."""
    try:
        with path.open("rb") as file:
            length = file.read(8)
            header = length + file.read(min(int.from_bytes(length, "little"), path.stat().st_size))
            seal = _SEAL.search(header)
            if seal is None and sealed:
                raise Damaged("it carries no seal")
            if seal:
                sha = hashlib.sha256(header[: seal.start(1)] + b"0" * 64 + header[seal.end(1) :])
                while part := file.read(1 << 20):
                    sha.update(part)
                if sha.hexdigest().encode() != seal[1]:
                    raise Damaged("its checksum differs")
        with safe_open(path, framework="pt") as file:
            facts = {key: text for key, text in (file.metadata() or {}).items() if key != KEY}
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (OSError, Damaged):
        raise
    except Exception as error:  # safetensors has several of its own
        raise Damaged(" ".join(str(error).split())) from None
