"""The objectives of pre-training."""

import numpy as np
import pytest
import torch

from tasks.tour_flickr import objectives


def test_hidden_visits_and_augmented_views():
    torch.manual_seed(0)
    there = (torch.arange(6) < torch.tensor([2, 3, 6])[None, :, None]).expand(200, 3, 6)
    hidden = objectives._hidden(there)
    assert hidden.any(2).all()
    assert not hidden[..., 0].any()
    assert not (hidden & ~there).any()
    visits = torch.randn(200, 3, 6, 4)
    views = objectives.augmented(visits, there)
    assert views.shape == visits.shape
    assert 0.1 < (views == visits).all(3)[there].float().mean() < 0.9


def test_agreement_by_hand():
    one = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    # similarities 1 and 0, at temperature 0.5: log(e^2 + 1) - 2
    assert float(objectives.agreement(one, one, 0.5)) == pytest.approx(np.log(np.exp(2) + 1) - 2)
