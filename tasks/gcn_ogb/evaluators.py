"""OGB's official metrics (Hu et al. 2020), in percent."""

import torch
from torch import Tensor


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Return the share of nodes whose highest score (N, classes) is that of their label (N,)."""
    return 100 * float((scores.argmax(1) == labels).double().mean())


def hits(positive: Tensor, negative: Tensor, k: int) -> float:
    """Return the share of true edges (P,) scored above the k-th best of the false ones (Q,). A tie is no hit; with fewer than
    ``k`` false ones every edge is a hit."""
    if negative.numel() < k:
        return 100.0
    return 100 * float((positive > torch.topk(negative, k).values[-1]).double().mean())
