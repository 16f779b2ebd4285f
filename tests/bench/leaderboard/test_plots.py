"""Plots and their seals."""

from bench.leaderboard import plots


def test_a_plot_drawn_by_another_version_keeps_its_seal():
    plot = plots.Plot("t", "x", "y", True, (plots.Series("imp", 0, None, (0.5, 0.1), (1.0, 2.0), (0.0, 0.1)),))
    drawn = plots.draw(plot)
    assert plots.sealed(drawn, plot)
    assert not plots.sealed(drawn.replace("<path", "<Path", 1), plot)
    other = plots.Plot("t", "x", "y", True, (plots.Series("imp", 0, None, (0.5, 0.1), (1.0, 2.5), (0.0, 0.1)),))
    assert not plots.sealed(drawn, other)
