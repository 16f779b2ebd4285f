"""Tables in plain text."""

from bench.leaderboard import terminal
from tests.bench.leaderboard.records import WEIGHTS, record, several


def test_summary_is_plain_text():
    text = terminal.summary(several([80.0, 81.0, 82.0], densities=WEIGHTS) + several([70.0], densities=WEIGHTS, control="random"))
    assert "toy · digits · mlp · desk" in text
    assert "dense 91.00 ± 2.48 (3)" in text
    assert "81.00 ± 2.48 (3)" in text
    assert "↳ random" in text
    why = terminal.summary([*several([80.0]), record(0, status="not_applicable", reason="it has no edges", method="geb")])
    assert why.splitlines()[-1].endswith(": it has no edges")
    assert "**" not in text
