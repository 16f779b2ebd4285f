"""Predicates on numbers computed by hand."""

from bench.claims.predicates import Pair, better, equal_within, gap_grows, matches, not_worse
from tests.bench.claims.toy_claims import DENSE, seeds


def test_better_needs_the_margin_and_an_interval_without_0():
    # differences 1, 2, 3: mean 2, half-width 4.303 / sqrt(3) = 2.48; 2, 3, 4: mean 3, half-width 2.48
    unsure, sure = Pair(seeds(1.0, 12.0, 23.0), seeds(0.0, 10.0, 20.0)), Pair(seeds(2.0, 13.0, 24.0), seeds(0.0, 10.0, 20.0))
    assert better([unsure, sure], 0) == [False, True]
    assert better([sure], 2.9) == [True]
    assert better([sure], 3.0) == [False]
    assert better([Pair(sure.b, sure.a)], 0) == [False]
    assert better([Pair(sure.b, sure.a, higher_is_better=False)], 0) == [True]


def test_not_worse_and_equal_within_include_their_margin():
    below, above = (Pair(seeds(*(v + d for v in DENSE)), seeds(*DENSE)) for d in (-0.5, 0.75))
    assert not_worse([below, above], 0.5) == [True, True]
    assert not_worse([below, above], 0.25) == [False, True]
    assert equal_within([below, above], 0.5) == [True, False]
    assert equal_within([below, above], 0.75) == [True, True]


def test_matches_allows_the_larger_standard_deviation():
    dense = seeds(9.0, 10.0, 11.0)  # std 1
    assert matches([Pair(seeds(9.0, 9.0, 9.0), dense), Pair(seeds(8.9, 8.9, 8.9), dense)], 0) == [True, False]


def test_gap_grows_compares_every_density_with_the_highest():
    zero = seeds(0.0, 0.0, 0.0)
    leads = [Pair(seeds(*values), zero) for values in ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [1.0, 2.0, 9.0])]
    assert gap_grows(leads, 0) == [True, False]  # 3, 3, 3 more; then 0, 0, 6 more: mean 2, interval far beyond
    assert gap_grows(leads, 3) == [False, False]
    fewer = Pair(seeds(4.0, 5.0), seeds(0.0, 0.0))
    assert Pair.of(fewer.leads, leads[0].leads).leads == {0: 3.0, 1: 3.0}


def test_pairs_are_of_common_seeds():
    assert Pair.of({0: 1.0, 1: 5.0}, {1: 3.0, 2: 0.0}).leads == {1: 2.0}
