"""Methods, scores, analyses and tasks from outside: files with neighbours and dataclasses, options of many kinds."""

import shutil
import sys

import pytest

from bench import registry
from bench.config import settings
from bench.errors import UsageError

from ..conftest import TOY

METHOD = '''
import torch
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from helper import FIRST
from parts.inner import SECOND
from pruning import Ticket

class Kind(Enum):
    A = 1

@dataclass
class Plan:
    first: float = FIRST + SECOND

def pick(lab, densities, DEFAULT):
    """Mine."""
    scores = lab.score("random", lab.start("init"), lab.ones())
    for density in densities:
        yield Ticket(density, lab.allocate(scores, lab.ones(), density), lab.start("init"), notes={"first": Plan().first})
'''


def written(folder, default="rate=0.5", first=1):
    """A file with a method, and its neighbours."""
    (folder / "parts").mkdir(parents=True)
    (folder / "helper.py").write_text(f"FIRST = {first}")
    (folder / "parts" / "__init__.py").touch()
    (folder / "parts" / "inner.py").write_text("SECOND = 0.5")
    (folder / "mine.py").write_text(METHOD.replace("DEFAULT", default))
    return f"{folder / 'mine.py'}:pick"


def test_a_file_may_import_what_lies_beside_it_and_two_files_do_not_clash(bench, tmp_path):
    path, before = list(sys.path), set(sys.modules)
    for folder, first in (("one", 1), ("two", 2)):
        assert bench.run(f"method={written(tmp_path / folder, first=first)}", "densities=[0.5]", f"seeds=[{first}]") == 0
        (made,) = [r for r in bench.records() if r.identity.method != "dense" and r.identity.seed == first]
        assert made.ticket.notes == {"first": first + 0.5}
    assert sys.path == path
    assert not {"helper", "parts", "mine", "parts.inner"} & (sys.modules.keys() - before)


def test_an_adapter_may_import_what_lies_beside_it(bench, tmp_path):
    for name in ("one", "two"):
        folder = shutil.copytree(TOY, tmp_path / name / "toy")
        (folder / "beside.py").write_text(f"NOTE = {name!r}")
        source = (folder / "task.py").read_text()
        (folder / "task.py").write_text("from beside import NOTE\n" + source.replace('"Generated points."', "NOTE"))
        (setting,) = settings(str(folder), [])
        assert registry.adapter(setting.folder, "task:Toy").note == name
    assert "beside" not in sys.modules


@pytest.mark.parametrize(
    ("default", "kept"),
    [
        ("sizes=(1, 2)", {"sizes": [1, 2]}),
        ("rate=np.float32(0.5)", {"rate": 0.5}),
        ("n=torch.tensor(3)", {"n": 3}),
        ("text='a|b *c* <b>d</b>\\nline'", {"text": "a|b *c* <b>d</b>\nline"}),
        ("*, rate=0.5, **more", {"rate": 0.5}),
        ("rates={'a': [1, None]}", {"rates": {"a": [1, None]}}),
    ],
)
def test_options_that_a_record_can_hold_run(bench, tmp_path, default, kept):
    assert bench.run(f"method={written(tmp_path / 'one', default)}", "densities=[0.5]") == 0
    (made,) = [r for r in bench.records() if r.identity.method != "dense"]
    assert made.identity.method_config == kept


@pytest.mark.parametrize(
    "default",
    [
        "dtype=torch.float32",
        "folder=Path('x')",
        "names=frozenset('a')",
        "kind=Kind.A",
        "bound=float('inf')",
        "rates={1: 2}",
        "array=np.zeros(2)",
        "rate",
    ],
)
def test_options_that_no_record_can_hold_are_refused_first(bench, tmp_path, default):
    said = bench.refuses(f"method={written(tmp_path / 'one', default)}", "densities=[0.5]")
    assert "which no record can hold" in said or "method.rate has no default: give method.rate=..." in said


def test_an_option_without_default_can_be_given(bench, tmp_path):
    method = written(tmp_path / "one", "rate: float, *, second: int = 2")
    assert bench.run(f"method={method}", "method.rate=0.5", "densities=[0.5]") == 0
    with pytest.raises(UsageError, match=r"method\.rate must be a number"):
        settings(TOY, [f"method={method}", "method.rate=high"])
