"""What is read of methods and controls without importing them is what they declare."""

import subprocess
import sys

import pytest

from bench import registry
from bench.leaderboard import declared
from pruning import CONTROLS
from pruning.metadata import AnalysisInfo, ControlInfo, MethodInfo, info_of


@pytest.mark.parametrize("name", registry.METHODS)
def test_methods(name):
    function = registry.method(name)
    said, read = info_of(function, MethodInfo), declared.method_info(name)
    assert (said.sequential, said.transfers, said.searches_no_data) == (read.sequential, read.transfers, read.searches_no_data)
    assert declared.default_options(name) == registry.options(function)


@pytest.mark.parametrize("name", registry.ANALYSES)
def test_analyses(name):
    assert declared.analysis_info(name) == info_of(registry.analysis(name), AnalysisInfo)


def test_controls():
    assert {name: declared.control_info(name) for name in CONTROLS} == {n: info_of(f, ControlInfo) for n, f in CONTROLS.items()}


def test_what_is_not_of_this_repository_has_the_defaults():
    assert declared.method_info("mine.py:f") == MethodInfo()
    assert declared.control_info("mine") == ControlInfo()
    assert declared.default_options("mine.py:f") == {}
    assert not declared.is_sequential("mine.py:f", {})


def test_leaderboards_need_no_torch():
    code = "import sys, bench.leaderboard.pages, bench.suites.page; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
