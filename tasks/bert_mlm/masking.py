"""The tokens to be predicted, and what replaces them (Devlin et al. 2019), drawn for every example by itself."""

import numpy as np

IGNORED = -100
"""The label of a token that is not to be predicted, which PyTorch's cross-entropy leaves out."""


def count(lengths: np.ndarray, rate: float) -> np.ndarray:
    """Return how many tokens, at least one, are predicted in examples of ``lengths`` (n,) tokens, the marks at both ends
    included."""
    return np.maximum(1, np.round(rate * (lengths - 2))).astype(np.int64)


def masked(tokens: np.ndarray, rate: float, mask: int, vocabulary: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens (n,) of one example as the network sees them, and labels (n,): the true token where it is to be
    predicted, else ``IGNORED``. Of the tokens to be predicted 80 % become ``mask``, 10 % any of ``vocabulary`` tokens, and 10 %
    stay; the marks at both ends are never predicted."""
    rng = np.random.default_rng(seed)
    chosen = 1 + rng.choice(len(tokens) - 2, count(np.array([len(tokens)]), rate)[0], replace=False)
    fate, other = rng.random(len(chosen)), rng.integers(vocabulary, size=len(chosen))
    seen, labels = tokens.copy(), np.full_like(tokens, IGNORED)
    labels[chosen] = tokens[chosen]
    seen[chosen] = np.where(fate < 0.8, mask, np.where(fate < 0.9, other, tokens[chosen]))
    return seen, labels
