"""What commands make is kept between processes, of this repository alone."""

import pytest

from bench import config
from bench.claims import config_cache
from bench.claims.config_cache import Made
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
    for remembered in (config_cache._known, config_cache._composed, config_cache.made, config_cache.method_options):
        remembered.cache_clear()


def refuse(*said):
    raise AssertionError("composed again")


def test_the_next_process_composes_nothing(monkeypatch):
    first, options = config_cache.made(*GRAPH), config_cache.method_options(*GRAPH, "imp")
    assert isinstance(first, Made)
    assert first.names == ["gcn_planetoid", "cora", "gcn", "smoke"]
    assert first.densities == [{"weights": 0.5}, {"weights": 0.2}]
    config_cache.keep()
    forget()
    monkeypatch.setattr(config, "settings", refuse)
    assert config_cache.made(*GRAPH) == first
    assert config_cache.method_options(*GRAPH, "imp") == options


@pytest.mark.parametrize("damage", ["{", "[]", '{"sources": "of another version", "made": {}}'])
def test_a_damaged_or_old_file_is_made_again(damage):
    first = config_cache.made(*GRAPH)
    config_cache.keep()
    forget()
    (cache() / "claims.json").write_text(damage)
    assert config_cache.made(*GRAPH) == first


def test_nothing_is_kept_of_a_task_from_elsewhere():
    config_cache.made(TOY, ("data=points", "protocol=smoke"))
    config_cache.keep()
    assert not (cache() / "claims.json").exists()
