"""What commands make is kept between processes, of this repository alone."""

import pytest

from bench import config
from bench.claims import places
from bench.claims.places import Made
from bench.storage.files import cache
from tests.bench.claims.toy_claims import TOY

GRAPH = ("tasks/gcn_planetoid", ("data=cora", "protocol=smoke", "densities=[0.5,0.2]"))


@pytest.fixture(autouse=True)
def another_process(monkeypatch, tmp_path):
    """Forget what this process made, as a new one has."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    forget()
    yield
    forget()


def forget():
    for remembered in (places._known, places._composed, places.made, places.method_options):
        remembered.cache_clear()


def refuse(*said):
    raise AssertionError("composed again")


def test_the_next_process_composes_nothing(monkeypatch):
    first, options = places.made(*GRAPH), places.method_options(*GRAPH, "imp")
    assert isinstance(first, Made)
    assert first.names == ["gcn_planetoid", "cora", "gcn", "smoke"]
    assert first.densities == [{"weights": 0.5}, {"weights": 0.2}]
    places.keep()
    forget()
    monkeypatch.setattr(config, "settings", refuse)
    assert places.made(*GRAPH) == first
    assert places.method_options(*GRAPH, "imp") == options


@pytest.mark.parametrize("damage", ["{", "[]", '{"sources": "of another version", "made": {}}'])
def test_a_damaged_or_old_file_is_made_again(damage):
    first = places.made(*GRAPH)
    places.keep()
    forget()
    (cache() / "claims.json").write_text(damage)
    assert places.made(*GRAPH) == first


def test_nothing_is_kept_of_a_task_from_elsewhere():
    places.made(TOY, ("data=points", "protocol=smoke"))
    places.keep()
    assert not (cache() / "claims.json").exists()
