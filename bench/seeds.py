"""One seed per purpose: what must not matter is not hashed, so methods are compared on the same data order."""

from __future__ import annotations

import hashlib


def seed_for(seed: int, purpose: str, *axes: object) -> int:
    """A 63-bit seed from the run's seed (0 is one), a purpose ("init", "data", "dropout", "ties", ...) and the axes that may
    matter to it. Equal inputs give equal seeds on every machine and Python."""
    text = "\x1f".join([str(int(seed)), purpose, *map(str, axes)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
