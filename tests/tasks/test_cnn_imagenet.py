"""ImageNet-sized tasks: reading, augmenting and splitting images, bad folders, networks; one training over two processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.cli import main
from bench.config import settings
from bench.errors import BenchError
from bench.runner.jobs import open_task
from bench.storage.records import read_records

CONV_WEIGHTS = {"resnet18": 11_678_912, "resnet34": 21_779_648, "resnet50": 25_502_912}
"""Of convolutions and the classifier for 1000 classes, by torchvision's parameter counts less norms and biases."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Generated images once for all tests here, and none in the user's cache."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "images"))


def task(*words):
    return open_task(settings("tasks/cnn_imagenet", ["protocol=smoke", *words])[0])


def folder_task(folder, *words):
    return task("data=folder", f"data.folder={folder}", "data.size=32", "data.workers=0", *words)


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten training images and two for validation."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(draw.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def test_splits_are_disjoint_seeded_and_of_the_published_folders(folder):
    subject = folder_task(folder, "data.validation=0.2")
    splits = subject._splits
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [16, 4, 4]
    assert sorted([*splits.train.positions.tolist(), *splits.val.positions.tolist()]) == list(range(20))
    assert splits.classes == 2
    assert splits.test.labels.tolist() == [0, 0, 1, 1]
    again, other = folder_task(folder, "data.validation=0.2"), folder_task(folder, "data.validation=0.2", "data.split_seed=1")
    assert again.fingerprint == subject.fingerprint != other.fingerprint
    assert "folder" not in subject.identity()["data"]


def test_augmentation_depends_on_seed_epoch_and_image_alone(folder):
    subject = folder_task(folder, "train.batch_size=4")
    whole = list(subject.batches("train", 1, 7))
    tail = list(subject.batches("train", 1, 7, 2))
    assert len(whole) == subject.steps_per_epoch
    assert all(torch.equal(a, b) for one, other in zip(whole[2:], tail, strict=True) for a, b in zip(one, other, strict=True))
    other = list(subject.batches("train", 2, 7))
    assert not torch.equal(whole[0][0], other[0][0])
    images, labels = whole[0]
    assert images.shape == (4, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64


def test_workers_change_nothing(folder):
    one, other = (
        folder_task(folder, "train.batch_size=8"),
        task("data=folder", f"data.folder={folder}", "data.size=32", "data.workers=1", "train.batch_size=8"),
    )
    first, second = next(iter(one.batches("train", 0, 0))), next(iter(other.batches("train", 0, 0)))
    assert torch.equal(first[0], second[0])
    assert one.identity() == other.identity()


def test_a_broken_image_is_named_and_skipped_only_if_asked(folder):
    (folder / "val" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(BenchError, match=r"0\.png is no image that can be read .*data.skip_broken=true"):
        list(folder_task(folder).batches("test", 0, 0))
    subject = folder_task(folder, "data.skip_broken=true")
    assert sum(len(labels) for _, labels in subject.batches("test", 0, 0)) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_names_a_broken_image_in_one_line(folder, workers):
    for path in (folder / "train" / "cat").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BenchError, match="cat") as raised:
        list(folder_task(folder, "train.batch_size=8", f"data.workers={workers}").batches("train", 0, 0))
    assert "\n" not in str(raised.value)
    subject = folder_task(folder, "train.batch_size=8", f"data.workers={workers}", "data.skip_broken=true")
    batches = list(subject.batches("train", 0, 0))
    assert [len(labels) for _, labels in batches] == [8] * subject.steps_per_epoch  # the next image stands in
    assert {label for _, labels in batches for label in labels.tolist()} == {1}


def test_images_are_cropped_out_of_the_middle_or_at_random(tmp_path):
    """A red frame of 8 around 64 x 64 in green: of the middle seven eighths, 70 of 80, a frame of 3 is left."""
    from PIL import Image

    picture = Image.new("RGB", (80, 80), (255, 0, 0))
    picture.paste((0, 255, 0), (8, 8, 72, 72))
    for split in ("train", "val"):
        (tmp_path / split / "one").mkdir(parents=True)
        for i in range(4):
            picture.save(tmp_path / split / "one" / f"{i}.png")
    subject = folder_task(tmp_path, "data.size=70", "data.validation=1", "train.batch_size=3")
    images, _ = next(iter(subject.batches("test", 0, 0)))
    assert (images[0, 1, 35] > 0).tolist() == [False] * 3 + [True] * 64 + [False] * 3
    drawn = torch.cat([next(iter(subject.batches("train", epoch, 0)))[0] for epoch in range(8)])
    green = (drawn[:, 1] > 0).double().mean((1, 2)).tolist()
    assert len(set(green)) > 12
    assert max(green) > 64**2 / 80**2


def test_folders_that_hold_no_data_set_are_one_line(folder, tmp_path):
    with pytest.raises(BenchError, match=r"no folder .*nowhere/train: data\.folder must hold"):
        _ = folder_task(tmp_path / "nowhere").fingerprint
    (folder / "val" / "bird").mkdir()
    with pytest.raises(BenchError, match="other classes in val/ than in train/: bird"):
        _ = folder_task(folder).fingerprint
    with pytest.raises(BenchError, match="hold out some and leave some"):
        _ = task("data.validation=160").fingerprint


def test_the_hub_layout_is_read(tmp_path):
    import io

    import pyarrow
    from PIL import Image
    from pyarrow import parquet

    folder = tmp_path / "ILSVRC" / "imagenet-1k" / "data"
    folder.mkdir(parents=True)
    file = io.BytesIO()
    Image.new("RGB", (40, 40), (255, 0, 0)).save(file, "PNG")
    rows = [{"image": {"bytes": file.getvalue(), "path": None}, "label": i % 3} for i in range(30)]
    for split in ("train", "validation"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")
    subject = task("data=imagenet", f"data.root={tmp_path}", "data.size=32", "data.validation=5", "data.workers=0")
    images, labels = next(iter(subject.batches("test", 0, 0)))
    assert labels[:4].tolist() == [0, 1, 2, 0]
    assert images[0].amax((1, 2)).tolist() == pytest.approx([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], abs=1e-4)
    assert subject.note.startswith("ImageNet (ILSVRC 2012) at 32x32")


@pytest.mark.parametrize("name", CONV_WEIGHTS)
def test_counts_of_prunable_weights(name):
    subject = task(f"model={name}")
    with torch.device("meta"):
        from torchvision import models

        model = getattr(models, name)(weights=None)
    assert sum(m.size for m in subject.maskables(model)) == CONV_WEIGHTS[name]
    conv = task(f"model={name}", "model.scope=conv").maskables(model)
    assert not any("downsample" in m.name or m.kind == "linear" for m in conv)


def test_channels_can_be_cut_out():
    subject = task("model.scope=channels")
    model = subject.build(0)
    masks = {m.name: torch.ones(m.shape, dtype=torch.bool) for m in subject.maskables(model)}
    first = next(m for m in subject.maskables(model) if "layer2.0.bn1.weight" in m.name).name
    for part in (first, first.replace("weight", "bias")):
        masks[part][::2] = False
    small = subject.slim(model, masks).eval()
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        parameters[name].data *= mask
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(small(x), model.eval()(x), atol=1e-5)


def test_of_many_classes_the_first_five_are_counted():
    """Class 3 is the fourth most likely of 200 for every image, class 199 the last."""
    task = open_task(settings("tasks/cnn_cifar", ["protocol=smoke"])[0])
    task.batches = lambda *_, **__: [(torch.zeros(4, 3, 8, 8), torch.tensor([0, 3, 3, 199]))]
    model = torch.nn.Module()
    model.forward = lambda images: -torch.arange(200.0).expand(len(images), -1)
    found = task.evaluate(model, "test")
    assert (found["accuracy"], found["accuracy5"]) == (25, 75)
    model.forward = lambda images: -torch.arange(10.0).expand(len(images), -1)
    task.batches = lambda *_, **__: [(torch.zeros(2, 3, 8, 8), torch.tensor([0, 3]))]
    assert task.evaluate(model, "test").keys() == {"accuracy", "loss"}


def test_the_task_conforms(capsys):
    assert main(["test", "tasks/cnn_imagenet"]) == 0, capsys.readouterr().out


def test_several_processes_share_every_batch():
    subject = task()
    for split in ("train", "val"):
        whole = next(iter(subject.batches(split, 0, 0)))
        shares = [next(iter(subject.batches(split, 0, 0, share=(mine, 2)))) for mine in (0, 1)]
        assert torch.equal(torch.cat([labels for _, labels in shares]), whole[1])
        assert torch.equal(torch.cat([images for images, _ in shares]), whole[0])
    with pytest.raises(BenchError, match="which 2 processes cannot share equally"):
        task("train.batch_size=15").batches("train", 0, 0, share=(0, 2))


def run(folder: Path, *launcher: str) -> subprocess.CompletedProcess:
    words = [
        "-m",
        "bench.cli",
        "run",
        "tasks/cnn_imagenet",
        "protocol=smoke",
        "threads=1",
        "controls=[]",
        "train.epochs=1",
        f"store={folder / 'store'}",
        f"runs={folder / 'runs'}",
    ]
    return subprocess.run(
        [sys.executable, *launcher, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


def test_two_processes_train_one_network(tmp_path):
    """Dense, cut and trained again: the first process alone writes and prints, both come to the same masks."""
    done = run(
        tmp_path,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--master_port=0",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=localhost:0",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("records: 2 under") == 1
    records = list(read_records(tmp_path / "runs"))
    assert sorted(r.identity.method for r in records) == ["dense", "imp"]
    assert {r.environment["processes"] for r in records} == {2}
    ticket = next(r for r in records if r.identity.method == "imp")
    assert ticket.budgets["weights"].kept == round(0.5 * ticket.budgets["weights"].total)
    assert {p.parent.name for p in (tmp_path / "store").glob("stages/*/*/done")} == {"9"}
