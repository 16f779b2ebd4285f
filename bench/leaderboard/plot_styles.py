"""How a method looks in every plot: one colour and one marker of its own, everywhere the same, told by its name alone."""

import zlib
from typing import NamedTuple

COLOURS = 7
"""Colours that colour-blind readers can tell apart (after Okabe & Ito); ``svg.STYLE`` has them for light and for dark pages."""
MARKERS = 8
"""It has no common factor with the number of colours, so the first 56 styles differ."""
DASHES = 5

METHODS = (
    "dense",
    "imp",
    "one_shot",
    "random_ticket",
    "snip",
    "synflow",
    "grasp",
    "magnitude_at_init",
    "force",
    "iter_snip",
    "prune_later",
    "imp_continued",
    "imp_by_kind",
    "prune_finetune",
    "lottery",
    "admm",
    "slimming",
    "early_bird",
    "early_bert",
    "sgcn",
    "geb",
    "gebt",
    "ugs",
    "edge_popup",
    "gem_miner",
    "movement",
    "soft_movement",
    "transfer",
    "rigl",
    "gmp",
    "set",
    "srigl",
)
"""Styles are given in this order: add new methods at the end, so that no other changes its style."""
CONTROLS = (
    "random",
    "reinit",
    "shuffle",
    "invert",
    "dense_as_long",
    "slim",
    "reinit_as_long",
    "resample",
    "shuffle_layers",
    "shuffle_weights",
    "noise_half",
    "noise_threefold",
)
"""Controls are grey, with an open marker of their own; likewise."""
STRANGERS = 42
"""The first of the styles for methods that are not in the list; which of them a method has, its name tells."""


class PlotStyle(NamedTuple):
    """Numbers of a colour (-1: grey), a marker and a dash pattern; whether the marker is hollow, and small."""

    colour: int
    marker: int
    dash: int = 0
    open: bool = False
    small: bool = False


def method(name: str, variant: int = 0) -> PlotStyle:
    """The style of a method. ``variant``: number of its options among those of one plot, which differ in their dashes and in
    how the marker is filled."""
    own = METHODS.index(name) if name in METHODS else STRANGERS + zlib.crc32(name.encode()) % (COLOURS * MARKERS - STRANGERS)
    return PlotStyle(
        own % COLOURS, own % MARKERS, variant % DASHES, variant % 2 == 1, variant % 4 > 1
    )  # 7 and 8 have no common factor


def control(name: str) -> PlotStyle:
    """The style of a control."""
    place = CONTROLS.index(name) if name in CONTROLS else zlib.crc32(name.encode())
    return PlotStyle(-1, place % MARKERS, 1 + (place + place // MARKERS) % (DASHES - 1), open=True)


def nth(place: int) -> PlotStyle:
    """The style of a line that is of no method, such as one of an analysis."""
    return PlotStyle(place % COLOURS, place % MARKERS)
