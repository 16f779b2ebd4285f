"""Names of start states."""

import pytest

from pruning import PruningError
from pruning.rewinding import Rewind, parse


@pytest.mark.parametrize(
    ("text", "rewind"),
    [
        ("init", Rewind("init")),
        ("reinit", Rewind("reinit")),
        ("pretrained", Rewind("init", None, True)),
        ("shuffled_layers", Rewind("shuffled_layers", None, True)),
        ("end", Rewind("init", 240)),
        ("0it", Rewind("init", 0)),
        ("2ep", Rewind("init", 16)),
        ("5it", Rewind("init", 5)),
        ("1%", Rewind("init", 2)),
        ("99%", Rewind("init", 238)),
    ],
)
def test_names_and_steps(text, rewind):
    assert parse(text, steps_per_epoch=8, steps=240) == rewind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("30ep", "rewind=30ep is step 240, but one training has only 240: choose an earlier one"),
        ("100%", "is step 240"),
        ("soon", "rewind=soon is not init, reinit, pretrained, end or a step"),
        ("-1it", "is not init"),
        ("1.5ep", "is not init"),
        ("", "is not init"),
    ],
)
def test_other_names_are_refused_in_one_line(text, message):
    with pytest.raises(PruningError, match=message) as raised:
        parse(text, 8, 240)
    assert "\n" not in str(raised.value)
