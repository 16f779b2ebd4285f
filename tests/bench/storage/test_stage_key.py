"""Stage keys: the hash of all that a training depends on. Those of every task and callback are pinned in ``test_identity.py``."""

from bench.storage.stage_key import stage_key


def test_keys_are_pinned():
    """Written down: another key for the same ingredients would orphan every stored stage."""
    ingredients = {
        "task": "toy",
        "version": 1,
        "config": {"train": {"lr": 0.1, "epochs": 3}},
        "data": "abc",
        "seed": 0,
        "start": "init/0",
        "masks": "def",
        "first": 0,
        "total": 24,
        "schedule": "task",
    }
    assert stage_key(ingredients) == "c3d5a57c5317e622d6e3"
    assert stage_key(dict(reversed(ingredients.items()))) == "c3d5a57c5317e622d6e3"
    for change in ({"seed": 1}, {"version": 2}, {"first": 8}, {"config": {"train": {"lr": 0.1, "epochs": 3.0}}}):
        assert stage_key(ingredients | change) != "c3d5a57c5317e622d6e3"
