"""Whatever is written and read back is read as it was written, or refused in one line: flipped bits, odd JSON."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.errors import BenchError
from bench.storage.analysis_records import AnalysisIdentity, AnalysisRecord
from bench.storage.files import canonical
from bench.storage.records import read_record, read_sealed, write_record, write_sealed
from bench.storage.stages import Store
from bench.task import Damaged, read_tensors, write_tensors
from pruning import Masks, PruningError

from .test_records import IDENTITY, diverged

MASKS = Masks({"w": torch.tensor([[True, False, True]]), "e": torch.tensor([True])}, {"w": "weights", "e": "edges"})


def _masks(folder: Path):
    MASKS.save(folder / "m.safetensors")
    return folder / "m.safetensors", lambda: Masks.load(folder / "m.safetensors").digest()


def _masks_of_a_record(folder: Path):
    """As the first releases wrote them: without a seal."""
    path, _ = _masks(folder)
    tensors, facts = read_tensors(path)
    save_file(tensors, path, facts)
    return path, lambda: Masks.load(path, MASKS.digest()).digest()


def _cache(folder: Path):
    path = folder / "c.safetensors"
    write_tensors(path, {"a": torch.arange(3)}, {"jpeg": "false"})

    def read():
        tensors, facts = read_tensors(path)
        return {name: t.tolist() for name, t in tensors.items()}, facts

    return path, read


def _stage(name: str):
    def made(folder: Path):
        store = Store(folder)
        stage = store.put("k", 1, {"model/w": torch.ones(2)}, {"checkpoint": False, "progress": {"step": 1}})
        stage.add_evaluation("val", {"accuracy": 70.25})

        def read():
            stage = store.get("k", 1)
            return stage and (stage.info, stage.tensors()["model/w"].tolist(), stage.evaluations())

        return stage.folder / name, read

    return made


def _record(folder: Path):
    path = write_record(diverged(), folder)
    return path, lambda: read_record(path)


def _analysis(folder: Path):
    asked = {k: v for k, v in IDENTITY.items() if k not in ("method", "method_config", "densities", "rounds", "control")}
    record = AnalysisRecord.make(
        AnalysisIdentity(**asked, analysis="mine", options={}, densities=[]),
        label="mine",
        command="bench",
        environment={},
        created="2026",
        about="Mine.",
        keys=["k"],
        plots=[],
        rows=[{"k": 1, "v": 0.5}],
        stages=[],
        steps=3,
    )
    path = write_sealed(record, folder / "a.analysis.json")
    return path, lambda: read_sealed(path, AnalysisRecord)


KINDS = [
    _masks,
    _masks_of_a_record,
    _cache,
    _record,
    _analysis,
    *map(_stage, ("stage.json", "state.safetensors", "evals.val.json", "done")),
]


def result(read):
    """What was read; None where it is refused, in one line."""
    try:
        return read()
    except (BenchError, PruningError, Damaged) as error:
        if "\n" in str(error):
            raise
        return None


def changes(whole: bytes, step: int):
    """The bytes with one bit flipped, each in turn or every so many, and cut short."""
    for bit in range(0, 8 * len(whole), step):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)
    yield from (whole[:length] for length in range(0, len(whole), step))


@pytest.mark.parametrize(
    "kind", KINDS, ids=["masks", "old masks", "cache", "record", "analysis", "stage", "state", "evaluations", "done"]
)
def test_no_flipped_bit_is_taken_for_content(tmp_path, kind):
    path, read = kind(tmp_path)
    good, whole = read(), path.read_bytes()
    for changed in changes(whole, 13 if kind in (_record, _analysis) else 3):  # all pass, in a minute; odd: every place in a byte
        path.write_bytes(changed)
        found = result(read)
        assert found in (None, good), changed  # a capital letter in a number or an escape says the same; so does no last line end


def test_masks_without_a_seal_need_the_record(bench):
    """Files of the first releases carry none."""
    assert bench.run("densities=[0.5]") == 0
    path = bench.path(bench.record("imp", 0.5))
    file = path.with_suffix(".masks.safetensors")
    save_file(*read_tensors(file)[:1], file, read_tensors(file)[1])
    words = ["method=transfer", "densities=[0.5]"]
    assert "it carries no seal): name the record beside it" in bench.fails(*words, f"method.source='{file}'")
    assert bench.run(*words, f"method.source='{path}'") == 0
    Masks.ones([]).save(file)
    assert "does not hold the masks of the record beside it" in bench.fails(*words, f"method.source='{path}'", "seeds=[1]")
    path.write_text("[" * 100_000)
    assert "is no record of a ticket" in bench.fails(*words, f"method.source='{path}'", "seeds=[1]")


def deep(value: str, depth: int = 100_000) -> bytes:
    return (value * depth).encode()


ODD = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"3",
    b'"text"',
    b"{}",
    deep("["),
    deep('{"a":'),
    deep("[", 3000) + deep("]", 3000),
    b'{"schema_version": 2, "config": ' + deep("[", 900) + deep("]", 900) + b"}",
    b'{"schema_version": 2, "schema_version": 2}',
    b'{"schema_version": ' + b"9" * 5000 + b"}",
    b'{"schema_version": NaN}',
]
WRONG = [
    NotImplemented,
    float("nan"),
    float("inf"),
    10**400,
    1e308,
    -1,
    None,
    True,
    [],
    {},
    [[]],
    "x",
    "\ud800",
    "a\nb\0",
    json.loads("[" * 400 + "]" * 400),
]


@pytest.mark.parametrize("raw", ODD, ids=range(len(ODD)))
def test_odd_json_is_one_line_for_every_reader(tmp_path, raw):
    for kind in (_record, _analysis, *map(_stage, ("stage.json", "evals.val.json", "done"))):
        path, read = kind(tmp_path)
        path.write_bytes(raw)
        with pytest.raises(BenchError) as caught:
            read()
        assert "\n" not in str(caught.value)
        path.unlink()
        path.mkdir()
        assert result(read) is None
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


@pytest.mark.parametrize("kind", [_record, _analysis])
def test_any_value_of_another_kind_is_one_line(tmp_path, kind):
    path, read = kind(tmp_path)
    whole = json.loads(path.read_text())

    def places(node, at=()):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            yield (*at, key)
            yield from places(value, (*at, key))

    for at in list(places(whole)):
        for wrong in WRONG:
            changed = json.loads(json.dumps(whole))
            node = changed
            for key in at[:-1]:
                node = node[key]
            if wrong is NotImplemented:
                del node[at[-1]]
            else:
                node[at[-1]] = wrong
            path.write_text(json.dumps(changed))
            found = result(read)
            assert found is None or canonical(found.model_dump()) == canonical(whole)
