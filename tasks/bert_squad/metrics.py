"""SQuAD's official metrics, times 100: an answer is compared with each right one, and the best comparison counts."""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normal(text: str) -> str:
    """Return text in lower case, without punctuation, articles and superfluous white space."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def f1(answer: str, right: str) -> float:
    """Return the harmonic mean of precision and recall over words, in [0, 1]; 0 where no word is shared."""
    found, wanted = normal(answer).split(), normal(right).split()
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted)) if shared else 0.0


def exact(answer: str, right: str) -> float:
    """Return 1 if the texts are equal after ``normal``, else 0."""
    return float(normal(answer) == normal(right))


def scores(answers: Sequence[str], rights: Sequence[Iterable[str]]) -> dict[str, float]:
    """Return f1 and exact match, means over all questions in percent; ``rights`` holds one or more right answers to each
    question."""
    return {
        measure.__name__: 100
        * fmean(max(measure(answer, right) for right in all_right) for answer, all_right in zip(answers, rights, strict=True))
        for measure in (f1, exact)
    }
