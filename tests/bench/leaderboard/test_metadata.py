"""What is read of methods and controls without importing them is what they declare."""

import subprocess
import sys

import pytest

from bench import registry
from bench.leaderboard import metadata
from pruning import CONTROLS
from pruning.metadata import AnalysisInfo, ControlInfo, MethodInfo, info_of


@pytest.mark.parametrize("name", registry.METHODS)
def test_methods(name):
    function = registry.method(name)
    said, read = info_of(function, MethodInfo), metadata.method_info(name)
    assert (said.sequential, said.transfers, said.searches_no_data) == (read.sequential, read.transfers, read.searches_no_data)
    assert metadata.default_options(name) == registry.options(function)


@pytest.mark.parametrize("name", registry.ANALYSES)
def test_analyses(name):
    assert metadata.analysis_info(name) == info_of(registry.analysis(name), AnalysisInfo)


def test_controls():
    assert {name: metadata.control_info(name) for name in CONTROLS} == {n: info_of(f, ControlInfo) for n, f in CONTROLS.items()}


def test_what_is_not_of_this_repository_has_the_defaults():
    assert metadata.method_info("mine.py:f") == MethodInfo()
    assert metadata.control_info("mine") == ControlInfo()
    assert metadata.default_options("mine.py:f") == {}
    assert not metadata.is_sequential("mine.py:f", {})


def test_leaderboards_need_no_torch():
    code = "import sys, bench.leaderboard.pages, bench.suites.page; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
