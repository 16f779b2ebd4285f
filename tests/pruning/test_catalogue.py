"""The catalogue is read without torch, and every entry of it is found."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from pruning.catalogue import ANALYSES, METHODS, SCORES


def test_reading_it_imports_neither_torch_nor_numpy():
    code = "import sys, pruning.catalogue; print(sorted({'torch', 'numpy', 'pruning.methods'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("reference", [*METHODS.values(), *SCORES.values(), *ANALYSES.values()])
def test_every_entry_is_a_documented_function(reference):
    assert EntryPoint("name", reference, "").load().__doc__
