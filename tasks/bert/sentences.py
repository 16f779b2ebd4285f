"""A generated data set that needs no network: short reviews whose label is the majority of their words."""

import random

GOOD = ("bright", "calm", "fine", "kind", "lovely", "warm")
BAD = ("bleak", "cruel", "dull", "grim", "poor", "stale")
THINGS = ("cook", "garden", "letter", "river", "story", "teacher")
LINKS = ("a", "and", "but", "is", "the", "was", "with")
WORDS = (*GOOD, *BAD, *THINGS, *LINKS)


def generate(count: int, seed: int) -> tuple[list[str], list[int]]:
    """Return ``count`` sentences of three or five adjectives, and their labels: 1 where most adjectives are good, else 0."""
    rng = random.Random(seed)
    texts, labels = [], []
    for _ in range(count):
        adjectives = [rng.choice(rng.choice((GOOD, BAD))) for _ in range(rng.choice((3, 5)))]
        text = f"the {adjectives[0]} {rng.choice(THINGS)}"
        for adjective in adjectives[1:]:
            text += f" {rng.choice(('and', 'but', 'with'))} {rng.choice(('the', 'a'))} {adjective} {rng.choice(THINGS)}"
        texts.append(text)
        labels.append(int(2 * sum(a in GOOD for a in adjectives) > len(adjectives)))
    return texts, labels
