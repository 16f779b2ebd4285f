"""Maskables: which axis is the input, and how many entries an output reads."""

import pytest

from pruning import Maskable, PruningError


@pytest.mark.parametrize(
    ("shape", "input_axis", "fan_in"),
    [
        ((10, 300), 1, 300),
        ((300, 10), 0, 300),  # one layer of 300 inputs and 10 outputs in both layouts
        ((16, 3, 5, 5), 1, 75),
        ((3, 16, 5, 5), 0, 75),  # a convolution, and a transposed one
        ((7,), 1, 1),
        ((), 1, 1),
    ],
)
def test_fan_in(shape, input_axis, fan_in):
    assert Maskable("w", shape, "linear", input_axis=input_axis).fan_in == fan_in


def test_other_axes_are_refused():
    with pytest.raises(PruningError, match="the input axis of w is 2; it must be 0 or 1"):
        Maskable("w", (2, 3), "linear", input_axis=2)
