"""What ``train.precision: auto`` becomes, and that records, stages, tables and verify say what was used."""

import os
import re
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import registry
from bench.config import group_options, settings
from bench.errors import BenchError
from bench.leaderboard import pages, terminal
from bench.runner.jobs import open_task
from bench.runner.precision import as_asked, native, used
from bench.runner.publish import publish
from bench.storage.records import Record, read_records, write_record
from tests.conftest import TOY

CPU = torch.device("cpu")
AUTO = ("+train.precision=auto", "method=imp", "densities=[0.5]", "controls=[random]")


@pytest.fixture
def machine(monkeypatch):
    """Makes this a machine with bf16 arithmetic, or without."""
    return lambda has: monkeypatch.setattr("bench.runner.precision.native", lambda device: has)


@pytest.mark.parametrize(
    ("capability", "avx512_bf16", "amx", "expected"),
    [
        ("AVX512", True, False, True),
        ("AVX512", False, True, True),
        ("AVX512", False, False, False),
        ("AVX2", True, True, False),
        ("DEFAULT", True, True, False),
        ("SVE256", False, False, False),
        ("new", True, True, False),
    ],
)
def test_a_cpu_is_asked_what_it_can(monkeypatch, capability, avx512_bf16, amx, expected):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert native(CPU) is expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert native(CPU) is False


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_is_asked_without_emulation(monkeypatch, has):
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has)
    assert native(torch.device("cuda", 0)) is has
    assert native(torch.device("meta")) is False


@pytest.mark.parametrize(
    "said",
    [
        "ATEN_CPU_CAPABILITY=avx2",
        "ONEDNN_MAX_CPU_ISA=AVX512_CORE",
        "ONEDNN_MAX_CPU_ISA=avx2",
        "DNNL_MAX_CPU_ISA=AVX512_CORE_VNNI",
    ],
)
def test_what_the_environment_keeps_libraries_from_is_not_there(said):
    key, _, value = said.partition("=")
    code = (
        "import torch; from bench.runner.precision import native; torch.cpu._is_avx512_bf16_supported = lambda: True; "
        "print(native(torch.device('cpu')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, key: value}, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize("cap", ["ALL", "AVX512_CORE_BF16", "AVX512_CORE_AMX", "avx10_1_512"])
def test_other_caps_leave_bf16_there(monkeypatch, cap):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert native(CPU) is True


def test_every_protocol_composes_and_none_insists_on_bf16():
    for name in registry.names("tasks"):
        for protocol in group_options(registry.task_folder(name), "protocol"):
            (setting,) = settings(name, [f"protocol={protocol}"])
            said = setting.config["train"].get("precision", "fp32")
            assert said in ("auto", "fp32"), f"{name} {protocol}"
            assert used(setting.config["train"], "fp32").get("precision", "fp32") == "fp32"


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("task", ["tasks/cnn_cifar", "tasks/bert_glue"])
def test_a_task_reads_what_is_used(machine, task, has):
    machine(has)
    (setting,) = settings(task, ["protocol=smoke", "train.precision=auto"])
    opened, name = open_task(setting), "bf16" if has else "fp32"
    assert opened.config["train"]["precision"] == opened.identity()["train"]["precision"] == name
    asked = as_asked(opened.identity(), setting.config["train"])
    (named,) = settings(task, ["protocol=smoke", "train.precision=bf16"])
    assert asked == open_task(named).identity()
    exact = open_task(settings(task, ["protocol=smoke"])[0])
    losses = [task.loss(task.build(0).eval(), next(iter(task.batches("train", 0, 0)))).item() for task in (opened, exact)]
    assert (losses[0] == losses[1]) == (not has)


def test_a_task_without_a_precision_is_left_alone(machine):
    for has in (True, False):
        machine(has)
        assert "precision" not in open_task(settings(TOY, [])[0]).config["train"]


@pytest.mark.parametrize(("has", "said"), [(True, "fp32"), (False, "bf16")])
def test_a_precision_of_ones_own_is_kept(bench, machine, has, said):
    machine(has)
    assert bench.run(f"+train.precision={said}", "method=dense") == 0
    record = bench.record("dense")
    assert record.precision == record.environment["precision"] == record.identity.config["train"]["precision"] == said
    assert bench.run("+train.precision=auto", "method=dense") == 0
    assert len(bench.records()) == (1 if said == "bf16" else 2)  # auto is asked as bf16: only fp32 is another setting


def test_a_wrong_precision_is_one_line_with_the_nearest(bench):
    assert "unknown train.precision 'atuo'; did you mean auto? one of: auto, bf16, fp32" in bench.fails(
        "+train.precision=atuo", "method=dense"
    )


@pytest.fixture
def twice(bench, machine):
    """The same command on both kinds of machine, sharing a store: precision -> label and control -> record."""
    found = {}
    for has, name in ((True, "bf16"), (False, "fp32")):
        machine(has)
        assert bench.run(*AUTO, f"runs={bench.folder / name}") == 0
        found[name] = {record.id: record for record in read_records(bench.folder / name)}
    return found


def test_ids_are_of_what_was_asked_and_stages_of_what_was_used(bench, twice):
    assert twice["bf16"].keys() == twice["fp32"].keys()
    for name, records in twice.items():
        for record in records.values():
            assert record.identity.config["train"]["precision"] == "bf16"
            assert record.precision == record.environment["precision"] == name
    for key, record in twice["bf16"].items():
        assert not set(record.ticket.stages) & set(twice["fp32"][key].ticket.stages)


def test_the_dry_run_is_of_the_precision_that_will_run(bench, machine, twice):
    machine(False)
    assert bench.run(*AUTO, f"runs={bench.folder / 'new'}", "--dry-run", "--json") == 0
    assert re.search(r'"to_train": 0\b', bench.out)
    key, _, _ = next(iter(twice["fp32"].values())).ticket.stages[-1].partition("/")
    for folder in (bench.folder / "store" / "stages").rglob(key):
        folder.rename(folder.with_name("gone"))
    assert bench.run(*AUTO, f"runs={bench.folder / 'new'}", "--dry-run", "--json") == 0
    assert not re.search(r'"to_train": 0\b', bench.out)
    machine(True)
    assert bench.run(*AUTO, f"runs={bench.folder / 'new'}", "--dry-run", "--json") == 0
    assert re.search(r'"to_train": 0\b', bench.out)


def test_tables_hold_both_and_say_so(twice, tmp_path):
    bf16, fp32 = (list(twice[name].values()) for name in ("bf16", "fp32"))
    said = "Made in the precision that each machine has: "
    assert said not in pages.render(bf16)["toy.md"]
    assert f"{said}3 of 3 records in fp32." in pages.render(fp32)["toy.md"]
    mixed = [bf16[0], *fp32[1:]]
    assert f"{said}1 of 3 records in bf16; 2 of 3 records in fp32." in pages.render(mixed)["toy.md"]
    assert f"{said}1 of 3 records in bf16; 2 of 3 records in fp32." in terminal.summary(mixed)
    assert pages.render(mixed)["toy.md"].count("\n## ") == 1


def test_publishing_replaces_no_record_of_the_other_precision(monkeypatch, bench, machine):
    monkeypatch.setattr("bench.runner.jobs.environment", lambda: {"git_dirty": False})
    for has, name in ((True, "bf16"), (False, "fp32")):
        machine(has)
        assert bench.run("+train.precision=auto", "method=dense", f"runs={bench.folder / name}") == 0
    root = bench.folder / "published"
    for precision in ("bf16", "bf16", "fp32"):  # the same precision again is no change
        published = {path: path.read_text() for path in root.rglob("*.json")}
        with (
            pytest.raises(BenchError, match=r"made in fp32 and would replace the one made in bf16 .* train.precision=fp32")
            if (precision == "fp32")
            else nullcontext()
        ):
            publish(bench.folder / precision, root)
    assert published == {path: path.read_text() for path in root.rglob("*.json")}
    assert len(published) == 1


def test_records_from_before_have_the_precision_they_name(twice):
    for record in twice["bf16"].values():
        fields = {name: getattr(record, name) for name in Record.model_fields if name not in ("id", "digest")}
        fields["environment"] = {key: value for key, value in record.environment.items() if key != "precision"}
        assert Record.make(**fields).precision == "bf16"
        assert Record.make(**fields).id == record.id


@pytest.mark.parametrize("made", ["bf16", "fp32"])
@pytest.mark.parametrize("has", [True, False])
def test_verify_uses_the_precision_of_the_record(bench, machine, twice, made, has):
    machine(has)
    record = next(r for r in twice[made].values() if r.identity.control)
    path = record.path(Path(bench.folder / made))
    assert bench("verify", str(path), "--trust") == 0, bench.out  # the stages' keys are compared, too
    assert ("can only emulate" in bench.err) == (made == "bf16" and not has)


def test_a_precision_nobody_knows_is_refused_from_a_record_too(bench, twice):
    record = next(iter(twice["fp32"].values()))
    fields = {name: getattr(record, name) for name in Record.model_fields if name not in ("id", "digest")}
    forged = write_record(Record.make(**fields | {"environment": {"precision": "f16"}}), bench.folder / "forged")
    assert bench("verify", str(forged), "--trust") == 1
    assert "unknown train.precision 'f16'" in bench.err


def test_a_labs_neighbours_use_the_same_precision():
    setting = replace(settings(TOY, [])[0], precision="fp32")
    assert setting.sibling(None, "points").precision == "fp32"
