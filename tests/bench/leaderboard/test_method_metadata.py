"""What is read of methods and controls without importing them is what they declare."""

import subprocess
import sys

import pytest

from bench import registry
from bench.leaderboard import method_metadata
from pruning import CONTROLS
from pruning.metadata import AnalysisInfo, ControlInfo, MethodInfo, info_of


@pytest.mark.parametrize("name", registry.METHODS)
def test_methods(name):
    function = registry.method(name)
    said, read = info_of(function, MethodInfo), method_metadata.method_info(name)
    assert (said.sequential, said.transfers, said.searches_no_data) == (read.sequential, read.transfers, read.searches_no_data)
    assert method_metadata.default_options(name) == registry.options(function)


@pytest.mark.parametrize("name", registry.ANALYSES)
def test_analyses(name):
    assert method_metadata.analysis_info(name) == info_of(registry.analysis(name), AnalysisInfo)


def test_controls():
    assert {name: method_metadata.control_info(name) for name in CONTROLS} == {
        n: info_of(f, ControlInfo) for n, f in CONTROLS.items()
    }


def test_what_is_not_of_this_repository_has_the_defaults():
    assert method_metadata.method_info("mine.py:f") == MethodInfo()
    assert method_metadata.control_info("mine") == ControlInfo()
    assert method_metadata.default_options("mine.py:f") == {}
    assert not method_metadata.is_sequential("mine.py:f", {})


def test_leaderboards_need_no_torch():
    code = "import sys, bench.leaderboard.pages, bench.suites.page; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
