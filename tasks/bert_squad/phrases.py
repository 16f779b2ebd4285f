"""A generated data set that needs no network: find the one good phrase among bad ones."""

import random

from tasks.bert.sentences import BAD, GOOD, THINGS

from .squad import Questions

PER_ARTICLE = 8


def generate(count: int, seed: int) -> Questions:
    """Return ``count`` questions, each a good adjective. The text is 3 to 14 phrases of adjective and thing, one of them good and
    the others bad; the good one is the answer."""
    rng = random.Random(seed)
    questions, contexts, answers = [], [], []
    for _ in range(count):
        size = rng.randint(3, 14)
        place = rng.randrange(size)
        phrases = [f"{rng.choice(GOOD if i == place else BAD)} {rng.choice(THINGS)}" for i in range(size)]
        questions.append(rng.choice(GOOD))
        contexts.append(" and ".join(phrases))
        answers.append(((phrases[place], len(" and ".join([*phrases[:place], ""]))),))
    titles = [f"{seed}/{i // PER_ARTICLE}" for i in range(count)]
    return Questions(titles, questions, contexts, answers)
