"""GLUE's official metrics, times 100. A prediction that does not vary has correlation 0, not NaN."""

import warnings

import numpy as np


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of equal class numbers, in percent. Both are (n,)."""
    return 100.0 * float(np.mean(predicted == labels))


def f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return F1 of class 1, times 100; 0 where class 1 is never predicted."""
    from sklearn.metrics import f1_score

    return 100.0 * float(f1_score(labels, predicted, pos_label=1, average="binary", zero_division=0.0))


def matthews(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the Matthews correlation, times 100; 0 where there is only one class."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():  # one class only is a collapsed run: a result, not something to warn about
        warnings.simplefilter("ignore")
        return 100.0 * float(matthews_corrcoef(labels, predicted))


def pearson(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the Pearson correlation, times 100."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predicted, labels)


def spearman(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the Spearman rank correlation, times 100; ties share their mean rank."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, predicted, labels)


def _correlation(function, predicted: np.ndarray, labels: np.ndarray) -> float:
    if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return 0.0
    value = float(function(predicted.astype(np.float64), labels.astype(np.float64)).statistic)
    return 100.0 * value if np.isfinite(value) else 0.0


METRICS = {f.__name__: f for f in (accuracy, f1, matthews, pearson, spearman)}
