"""The networks: each its own, and bound to its query."""

import pytest
import torch

from .city import task


@pytest.mark.parametrize("model", ["ctltr", "selftrip", "gru"])
def test_no_network_feels_another(model):
    """The scores of fold 0 are the same whatever the weights of the others, and their gradient never touches them."""
    t = task("protocol=smoke", f"model={model}", "model.embedding=8", "model.hidden=8")
    net, other = t.build(0), t.build(0)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            for rows in _of_others(name, parameter):
                rows *= 1.5
    batch = next(iter(t.batches("val", 0, 0)))
    one, two = (n.eval()(batch) for n in (net, other))
    torch.testing.assert_close(one[0], two[0])
    assert not torch.allclose(one[1], two[1])
    assert net.recommend(batch, 3)[0].tolist() == other.recommend(batch, 3)[0].tolist()
    one[0].clamp(min=-100).sum().backward()
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            assert not any(rows.any() for rows in _of_others(name, parameter.grad)), name


def _of_others(name: str, tensor: torch.Tensor) -> list[torch.Tensor]:
    """The parts of a parameter of three folds that are not of fold 0: directions of a layer come one after the other."""
    if ".each." in name:
        return [tensor] if int(name.rpartition(".")[2]) % 3 else []
    return [rows for i, rows in enumerate(tensor) if i % 3]


@pytest.mark.parametrize("model", ["ctltr", "gru"])
def test_recommended_trips_keep_to_their_queries(model):
    t = task("protocol=smoke", f"model={model}", "model.embedding=8", "model.hidden=8")
    batch = next(iter(t.batches("test", 0, 0)))
    for asked, found, length in zip(
        batch.pois.flatten(0, 1).tolist(),
        t.build(0).recommend(batch, 4).flatten(0, 1).tolist(),
        batch.lengths.flatten().tolist(),
        strict=True,
    ):
        trip = found[:length]
        assert len(set(trip)) == length
        assert (trip[0], trip[-1]) == (asked[0], asked[length - 1])
        assert max(trip) < 12


def test_the_query_shows_nothing_of_the_middle():
    t = task("protocol=smoke")
    net, batch = t.build(0).eval(), next(iter(t.batches("test", 0, 0)))
    middle = batch.middle()
    other = batch._replace(pois=torch.where(middle, (batch.pois + 1) % 12, batch.pois), hours=torch.where(middle, 3, batch.hours))
    torch.testing.assert_close(net.query(batch), net.query(other), rtol=0, atol=0)
    assert net.recommend(batch, 3).tolist() == net.recommend(other, 3).tolist()
