"""One seed per purpose. Choices that must not matter are not hashed, so that methods are compared on the same order of data."""

import hashlib


def seed_for(seed: int, purpose: str, *axes: object) -> int:
    """Return a 63-bit seed from the run's seed, a purpose ("init", "data", "dropout", "ties", ...) and the axes that may matter
    to it. Equal inputs give equal seeds on every machine and in every version of Python."""
    text = "\x1f".join([str(int(seed)), purpose, *map(str, axes)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
