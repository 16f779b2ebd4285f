"""The task cnn_cifar: counts, data, augmentation and cost, against numbers computed by hand."""

import io
import math
import os
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from bench.config import settings
from bench.runner.jobs import open_task
from bench.runner.precision import used
from bench.storage.records import read_records
from bench.task import BenchError, seed_for
from bench.task.macs import module_macs
from tasks.cnn_cifar import data, models
from tasks.cnn_cifar.task import CnnCifar
from tasks.images import rate

FOLDER = Path(__file__).parents[2] / "tasks" / "cnn_cifar"
CPU = torch.device("cpu")


def task(*overrides: str) -> CnnCifar:
    config = settings(str(FOLDER), overrides)[0].config
    return CnnCifar({"data": config["data"], "model": config["model"], "train": used(config["train"], "bf16")}, CPU)


def pictures(
    root: Path,
    count: dict[str, int],
    encoding: str = "PNG",
    seed: int = 0,
    of: str = "uoft-cs/cifar10/plain_text",
    column: str = "img",
    shape: tuple[int, ...] = (32, 32, 3),
) -> Path:
    """CIFAR-10, or another data set, in the hub's layout below ``root``, which is returned, with random pixels."""
    rng = np.random.default_rng(seed)
    folder = root / of
    folder.mkdir(parents=True)
    for split, n in count.items():
        rows = []
        for _ in range(n):
            stream = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(stream, encoding)
            rows.append({"bytes": stream.getvalue(), "path": None})
        table = datasets.Dataset.from_dict({column: rows, "label": [i % 10 for i in range(n)]})
        table = table.cast_column(column, datasets.Image(decode=False))
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return root


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with 40 + 10 made-up pictures, and a cache of its own."""
    datasets.disable_progress_bars()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return pictures(tmp_path / "data", {"train": 40, "test": 10})


@pytest.mark.parametrize(
    ("model", "shortcut", "classes", "count", "tensors"),
    [
        ("resnet20", "projection", 10, 270_896, 22),
        ("resnet20", "zero_pad", 10, 268_336, 20),
        ("resnet20", "projection", 100, 270_896 + 64 * 90, 22),
        ("resnet32", "projection", 10, 270_896 + 2 * 2 * 9 * (16 * 16 + 32 * 32 + 64 * 64), 34),
        ("resnet56", "projection", 10, 270_896 + 6 * 2 * 9 * (16 * 16 + 32 * 32 + 64 * 64), 58),
        ("resnet18", "projection", 10, 11_164_352, 21),
        ("vgg11", "projection", 10, 9_222_848, 9),
        ("vgg16", "projection", 10, 14_715_584, 14),
        ("vgg16", "projection", 100, 14_761_664, 14),
        ("vgg19", "projection", 10, 20_024_000, 17),
        ("mobilenet_v2", "projection", 10, 3_504_872 - 34_112 - 1_281_000 + 12_800, 53),  # the ImageNet net, its norms, heads
    ],
)
def test_prunable_weights(model, shortcut, classes, count, tensors):
    subject = task(
        f"data={'cifar10' if classes == 10 else 'cifar100'}", "data.size=16", f"model.name={model}", f"model.shortcut={shortcut}"
    )
    network = subject.build(0)
    maskables = subject.maskables(network)
    assert (sum(m.size for m in maskables), len(maskables)) == (count, tensors)
    assert {m.budget for m in maskables} == {"weights"}
    parameters = dict(network.named_parameters())
    assert all(parameters[m.name].shape == m.shape for m in maskables)
    assert network.eval()(torch.zeros(2, 3, 16, 16)).shape == (2, classes)


def test_scope_conv_is_what_frankle_and_carbin_prune():
    subject = task("model.scope=conv")
    maskables = subject.maskables(subject.build(0))
    assert sum(m.size for m in maskables) == 267_696
    kinds = [m.kind for m in task().maskables(subject.build(0))]
    assert (kinds.count("conv"), kinds.count("shortcut"), kinds.count("linear")) == (19, 2, 1)


def test_build_draws_from_its_seed_alone():
    subject = task()
    before = torch.get_rng_state()
    one, same, other = (subject.build(seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["stem.weight"], other["stem.weight"])
    wide = one["stages.2.1.conv1.weight"]
    assert wide.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert wide.is_contiguous(memory_format=torch.channels_last)
    assert (one["norm.weight"] == 1).all()
    assert (one["head.bias"] == 0).all()


def test_zero_pad_shortcut_subsamples_and_pads_channels():
    x = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    out = models.ZeroPad(2, 2)(x)
    assert out[0, 0].abs().sum() == out[0, 3].abs().sum() == 0
    assert out[0, 1].tolist() == [[0, 2], [8, 10]]
    assert out[0, 2].tolist() == [[16, 18], [24, 26]]


def test_macs_of_a_small_net_by_hand():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), torch.nn.Flatten(), torch.nn.Linear(6 * 4 * 4, 5)
    )
    assert module_macs(net, torch.zeros(1, 4, 8, 8)) == {"0.weight": 6 * 4 * 4 * 2 * 9, "2.weight": 96 * 5}


def test_macs_of_resnet20_by_hand():
    subject = task("data.size=32")
    network = subject.build(0)
    stem, head = 3 * 16 * 9 * 32**2, 640
    first = 6 * 16 * 16 * 9 * 32**2
    second = (16 * 32 * 9 + 5 * 32 * 32 * 9 + 16 * 32) * 16**2
    third = (32 * 64 * 9 + 5 * 64 * 64 * 9 + 32 * 64) * 8**2
    dense = stem + first + second + third + head
    assert subject.macs(network, {}) == dense == 40_813_184
    assert subject.macs(network, {"stem.weight": 0.5, "head.weight": 0.0}) == dense - stem / 2 - head
    assert network.training
    assert network.stem.weight.device == CPU


def test_digits_splits_are_disjoint_and_seeded():
    splits = task("protocol=smoke")._splits
    assert (len(splits.train), len(splits.val), len(splits.test)) == (1197, 200, 400)
    from sklearn.datasets import load_digits

    assert sum(int(s.pixels.long().sum()) for s in (splits.train, splits.val, splits.test)) == int(
        torch.from_numpy(load_digits().images / 16 * 255).round().sum()
    )
    assert task("protocol=smoke").fingerprint == splits.fingerprint
    assert task("protocol=smoke", "data.split_seed=1").fingerprint != splits.fingerprint
    assert task("protocol=smoke", "data.validation=100").fingerprint != splits.fingerprint


def test_batches_depend_on_seed_and_epoch_alone_and_skip():
    subject = task("protocol=smoke")
    whole = list(subject.batches("train", 2, 5))
    assert len(whole) == subject.steps_per_epoch == 1197 // 64
    torch.rand(3)
    rest = list(subject.batches("train", 2, 5, start=11))
    assert len(rest) == len(whole) - 11
    assert all(torch.equal(a, b) and torch.equal(y, z) for (a, y), (b, z) in zip(whole[11:], rest, strict=True))
    assert not torch.equal(whole[0][1], next(iter(subject.batches("train", 3, 5)))[1])
    assert not torch.equal(whole[0][1], next(iter(subject.batches("train", 2, 6)))[1])
    images, labels = whole[0]
    assert images.shape == (64, 1, 8, 8)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(BenchError, match="unknown split 'valid'; did you mean val"):
        subject.batches("valid", 0, 0)


def test_augmentation_crops_and_mirrors():
    image = torch.arange(2 * 9, dtype=torch.uint8).reshape(2, 3, 3, 1)
    padded = data.pad(image, 1)
    assert padded.shape == (2, 5, 5, 1)
    out = data.augment(
        padded, torch.tensor([1, 0, 1]), torch.tensor([[1, 1], [0, 2], [2, 1]]), torch.tensor([False, False, True]), 3
    )
    assert out[0, ..., 0].tolist() == [[9, 10, 11], [12, 13, 14], [15, 16, 17]]
    assert out[1, ..., 0].tolist() == [[0, 0, 0], [1, 2, 0], [4, 5, 0]]
    assert out[2, ..., 0].tolist() == [[14, 13, 12], [17, 16, 15], [0, 0, 0]]


def test_halving_is_the_rounded_mean_of_squares():
    pixels = torch.tensor([[0, 1, 255, 255], [1, 1, 255, 254], [8, 0, 1, 0], [0, 1, 0, 0]], dtype=torch.uint8)
    assert data.halve(pixels[None, ..., None])[0, ..., 0].tolist() == [[1, 255], [2, 0]]


def test_evaluate_counts_every_example_once(root):
    subject = task(f"data.root={root}", "data.validation=7", "train.batch_size=8", "model.name=resnet8")
    network = subject.build(0)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias[3] = 5.0  # answers 3, always
    share = (subject._splits.test.labels == 3).double().mean().item()
    result = subject.evaluate(network, "test")
    assert result["accuracy"] == pytest.approx(100 * share) == pytest.approx(10.0)
    wrong, right = math.log(math.exp(5) + 9), math.log(math.exp(5) + 9) - 5
    assert result["loss"] == pytest.approx(0.9 * wrong + 0.1 * right, rel=1e-5)
    assert network.training
    assert subject.evaluate(network, "val")["accuracy"] == pytest.approx(
        100 * (subject._splits.val.labels == 3).double().mean().item()
    )


def test_evaluation_in_several_batches_covers_the_split(monkeypatch):
    subject = task("protocol=smoke")
    network = subject.build(0)
    whole = subject.evaluate(network, "test")
    monkeypatch.setattr("tasks.cnn_cifar.task.EVALUATION_BATCH", 150)
    assert [len(y) for _, y in subject.batches("test", 0, 0)] == [150, 150, 100]
    assert [len(y) for _, y in subject.batches("test", 0, 0, start=2)] == [100]
    assert subject.evaluate(network, "test") == pytest.approx(whole, rel=1e-4)


def test_source_is_decoded_once_and_a_damaged_cache_is_rebuilt(root, monkeypatch):
    choice = (f"data.root={root}", "data.validation=7", "data.size=16")
    subject = task(*choice)
    fingerprint, first = subject.fingerprint, subject._splits.train.pixels
    assert subject.note == "CIFAR-10, downsampled to 16x16"
    assert first.shape == (33, 16, 16, 3)
    [kept] = (root.parent / "cache").glob("*.safetensors")
    good = kept.read_bytes()
    decoded = []
    decode = data._decode
    monkeypatch.setattr(data, "_decode", lambda *a: decoded.append(1) or decode(*a))
    assert task(*choice).fingerprint == fingerprint
    assert not decoded
    for damaged in (good[:-100], good[:-1] + bytes([good[-1] ^ 1]), b""):
        kept.write_bytes(damaged)
        for _ in range(2):  # the second finds what the first has mended
            assert task(*choice).fingerprint == fingerprint
    assert len(decoded) == 3


def test_other_pixels_other_fingerprint_and_jpeg_is_said(root, tmp_path):
    pictures(tmp_path / "jpeg", {"train": 40, "test": 10}, "JPEG")
    png, jpeg = (task(f"data.root={r}", "data.validation=7", "data.size=32") for r in (root, tmp_path / "jpeg"))
    assert (png.note, jpeg.note) == ("CIFAR-10", "CIFAR-10 (JPEG copy)")
    assert png.fingerprint != jpeg.fingerprint


def test_two_roots_give_their_own_pictures(root, tmp_path):
    other = pictures(tmp_path / "other", {"train": 40, "test": 10}, seed=1)
    choice = ("data.validation=7", "data.size=32")
    first, second, again = (task(f"data.root={r}", *choice)._splits.test.pixels for r in (root, other, root))
    assert first[0, 0, 0].tolist() != second[0, 0, 0].tolist()
    assert first.equal(again)
    drawn = np.random.default_rng(1).integers(0, 256, (41, 32, 32, 3), np.uint8)[40]
    assert second[0].tolist() == drawn.tolist()


def test_missing_or_unfit_data_is_one_line(root, tmp_path, monkeypatch):
    with pytest.raises(BenchError, match=r"no data set at .*nowhere.*uoft-cs.*data\.root") as caught:
        _ = task(f"data.root={tmp_path / 'nowhere'}").fingerprint
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(BenchError, match="elsewhere"):
        _ = task().fingerprint
    with pytest.raises(BenchError, match=r"data\.size is 24"):
        _ = task(f"data.root={root}", "data.size=24").fingerprint
    with pytest.raises(BenchError, match=r"data\.validation is 5000"):
        _ = task(f"data.root={root}").fingerprint
    empty = tmp_path / "empty" / "uoft-cs" / "cifar10" / "plain_text"
    empty.mkdir(parents=True)
    with pytest.raises(BenchError, match=r"no train-\*\.parquet in"):
        _ = task(f"data.root={tmp_path / 'empty'}").fingerprint
    for row, said in (
        ({"x": 1}, "columns img, label"),
        ({"img": {"bytes": b"?"}, "label": 1}, "cannot identify image"),
        ({"img": "?", "label": 1}, "train in .* is not CIFAR-10"),
    ):
        datasets.Dataset.from_list([row]).to_parquet(empty / "train-00000-of-00001.parquet")
        with pytest.raises(BenchError, match=said) as caught:
            _ = task(f"data.root={tmp_path / 'empty'}").fingerprint
        assert "\n" not in str(caught.value)


def test_without_root_the_hub_is_asked(monkeypatch):
    monkeypatch.delenv("BENCH_DATA", raising=False)
    asked = []

    def refuse(repository, allow_patterns, **_):
        asked.append((repository, allow_patterns))
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BenchError, match=r"dataset uoft-cs/cifar100 .* go online once, or set data\.root or \$BENCH_DATA"):
        _ = task("data=cifar100").fingerprint
    assert asked == [("uoft-cs/cifar100", ["cifar100/*.parquet"])]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=resnet21", "unknown model 'resnet21'; did you mean"),
        ("model.shortcut=none", "unknown shortcut"),
        ("model.scope=fc", r"unknown model\.scope 'fc'"),
        ("train.precision=fp16", r"unknown train\.precision 'fp16'"),
        ("train.schedule=cosine", r"unknown train\.schedule"),
        ("train.optimizer=adamw", r"unknown train\.optimizer 'adamw'; did you mean adam"),
    ],
)
def test_unknown_choices(override, message):
    with pytest.raises(BenchError, match=message):
        task(override).build(0)


@pytest.mark.parametrize(("name", "classes", "size"), [("cifar100_shapes", 100, 32), ("tiny_imagenet_shapes", 200, 64)])
def test_noise_of_other_shapes(name, classes, size):
    mine = task("model.name=vgg11", f"data={name}", f"data.size={size}")
    batches = mine.examples(10, 0, True)
    assert torch.bincount(torch.cat([labels for _, labels in batches])).tolist() == [10] * classes
    images = torch.cat([images for images, _ in batches])
    assert images.shape[1:] == (3, size, size)
    assert (float(images.mean()), float(images.std())) == pytest.approx((0, 1), abs=0.01)
    assert max(len(labels) for _, labels in batches) <= 250 * 32**2 / size**2
    assert mine.fingerprint == task(f"data={name}", f"data.size={size}").fingerprint
    assert "says nothing about" in mine.note


def test_gain_multiplies_every_weight():
    plain, scaled = (task("model.name=resnet8", "model.init=signed_constant", *more).build(0) for more in ((), ("model.gain=2",)))
    for (name, before), after in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        assert torch.equal(after, 2 * before if before.ndim > 1 else before), name
    assert "gain" not in task().identity()["model"]


def test_hidden_layers_of_vgg():
    """Tiny-ImageNet's: 512 channels of 2x2 pixels, 1024, 1024, 200 classes."""
    mine = task("model.name=vgg11", "data=tiny_imagenet_shapes", "data.size=64", "model.hidden=1024")
    model = mine.build(0)
    linear = [m for m in mine.maskables(model) if m.kind == "linear"]
    assert [m.shape for m in linear] == [(1024, 2048), (1024, 1024), (200, 1024)]
    assert model.head.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert mine.probe(model).shape == (1, 200)
    assert mine.identity()["model"]["hidden"] == 1024
    assert "hidden" not in task().identity()["model"]
    with pytest.raises(BenchError, match="only vgg11, vgg16, vgg19 can have hidden linear layers, not resnet20"):
        task("model.hidden=64").build(0)
    with pytest.raises(BenchError, match="halves the image five times and needs 32 pixels, not 16"):
        task("model.name=vgg11", "model.hidden=64", "data.size=16").build(0)


def test_vgg_refuses_images_too_small_for_it():
    with pytest.raises(BenchError, match="needs 16 pixels, not 8"):
        task("protocol=smoke", "model.name=vgg11").build(0)


def test_schedules_by_hand():
    step = {"warmup": 0.0, "schedule": "step", "milestones": [0.5, 0.75], "drop": 0.1}
    assert [rate(step, d) for d in (0.0, 0.499, 0.5, 0.75, 0.99)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    cycle = step | {"warmup": 0.2, "schedule": "one_cycle"}
    assert [rate(cycle, d) for d in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    subject = task("protocol=desk")
    optimizer, schedule = subject.optimizer(subject.build(0), 10)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4 * 0.05 / 0.3)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4 * 0.15 / 0.3)


def test_probe():
    subject = task("model.name=resnet8")
    network = subject.build(0).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    out = subject.probe(network)
    assert out.shape == (1, 10)
    assert (out > 0).all()
    assert out.dtype == torch.float32
    assert subject.probe(network.double()).dtype == torch.float64


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_learns_digits(precision):
    subject = task("protocol=smoke", f"train.precision={precision}")
    network = subject.build(0)
    optimizer, schedule = subject.optimizer(network, subject.epochs * subject.steps_per_epoch)
    for epoch in range(subject.epochs):
        for batch in subject.batches("train", epoch, 0):
            subject.loss(network, batch).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    assert subject.evaluate(network, "test")["accuracy"] > 85


def test_mirror():
    beside = Path(__file__).parents[3] / "shared" / "data"
    root = os.environ.get("BENCH_DATA") or str(beside)
    if not (Path(root) / "uoft-cs" / "cifar10").is_dir():
        pytest.skip("no copy of CIFAR-10: set BENCH_DATA")
    subject = task("protocol=desk", f"data.root={root}")
    splits = subject._splits
    assert (len(splits.train), len(splits.val), len(splits.test)) == (45_000, 5_000, 10_000)
    assert subject.steps_per_epoch == 351
    assert splits.test.labels.bincount().tolist() == [1000] * 10
    assert torch.cat([splits.train.labels, splits.val.labels]).bincount().tolist() == [5000] * 10
    assert splits.train.pixels.shape[1:] == (16, 16, 3)
    mean = splits.train.pixels[:5000].double().mean((0, 1, 2)) / 255
    assert mean.tolist() == pytest.approx([0.491, 0.482, 0.447], abs=0.01)
    assert subject.note in ("CIFAR-10, downsampled to 16x16", "CIFAR-10 (JPEG copy), downsampled to 16x16")


def test_signed_constants_and_no_affine_parameters():
    plain, other = task("model.name=resnet20"), task("model.name=resnet20", "model.init=signed_constant", "model.affine=false")
    assert "init" not in plain.identity()["model"]  # so that stages from before the options are found
    assert "affine" not in plain.identity()["model"]
    assert {k: other.identity()["model"][k] for k in ("init", "affine")} == {"init": "signed_constant", "affine": False}
    normal, signed = plain.build(0), other.build(0)
    assert all(p.ndim > 1 for p in signed.parameters())
    assert signed.stem.weight.abs().unique().tolist() == pytest.approx([math.sqrt(2 / 27)])
    assert signed.head.weight.abs().unique().tolist() == pytest.approx([math.sqrt(2 / 64)])
    assert torch.equal(signed.stem.weight.sign(), normal.stem.weight.sign())
    with pytest.raises(BenchError, match="'signed'; did you mean signed_constant"):
        task("model.init=signed").build(0)


@pytest.mark.parametrize(
    ("model", "conv", "linear", "total"),
    [
        ("lenet", 0, 266_200, 266_200),
        ("conv2", 38_592, 4_262_400, 4_300_992),
        ("conv4", 259_776, 2_165_248, 2_425_024),
        ("conv6", 1_144_512, 1_116_672, 2_261_184),
    ],
)
def test_weights_and_kinds_of_the_plain_networks(model, conv, linear, total):
    subject = task(f"protocol=paper_{model}")
    network = subject.build(0)
    maskables = subject.maskables(network)
    sizes = {kind: sum(m.size for m in maskables if m.kind == kind) for kind in ("conv", "linear", "head")}
    assert sizes == {"conv": conv, "linear": linear - maskables[-1].size, "head": maskables[-1].size}
    assert sum(sizes.values()) == total
    assert (maskables[-1].name, maskables[-1].shape) == ("output.weight", (10, 100 if model == "lenet" else 256))
    weight = dict(network.named_parameters())[maskables[-2].name]
    assert weight.std().item() == pytest.approx(math.sqrt(2 / sum(weight.shape)), rel=0.02)
    assert all((p == 0).all() for n, p in network.named_parameters() if n.endswith("bias"))
    pools = sum(isinstance(m, torch.nn.MaxPool2d) for m in network.modules())
    assert pools == {"lenet": 0, "conv2": 1, "conv4": 2, "conv6": 3}[model]
    optimizer, schedule = subject.optimizer(network, 100)
    assert type(optimizer) is torch.optim.Adam
    assert {schedule.lr_lambdas[0](step) for step in range(100)} == {1.0}
    assert optimizer.param_groups[0]["lr"] == {"lenet": 1.2e-3, "conv2": 2e-4}.get(model, 3e-4)


def test_lenet_is_pruned_by_kind(tmp_path, capsys):
    """On digits: 64 x 300, 300 x 100 and 100 x 10 weights, of which 20, 20 and 10 % go in a round, two rounds to 0.7."""
    from bench.cli import main

    assert (
        main(
            [
                "run",
                "tasks/cnn_cifar",
                "protocol=smoke",
                "model=lenet",
                "model.init=glorot_normal",
                "train.optimizer=adam",
                "train.augment=false",
                "train.lr=0.0012",
                "train.epochs=1",
                "method=imp_by_kind",
                "method.rates={linear: 0.2, head: 0.1}",
                "densities=[0.7]",
                "controls=[]",
                "threads=1",
                f"store={tmp_path / 'store'}",
                f"runs={tmp_path / 'runs'}",
            ]
        )
        == 0
    ), capsys.readouterr().err
    [ticket] = [r for r in read_records(tmp_path / "runs") if r.identity.method == "imp_by_kind"]
    assert [t.kept for t in ticket.tensors.values()] == [12_288, 19_200, 810]
    assert ticket.identity.config["train"]["optimizer"] == "adam"


def test_images_that_are_not_augmented():
    subject = task("protocol=smoke", "train.augment=false")
    images, labels = next(iter(subject.batches("train", 2, 5)))
    order = torch.randperm(1197, generator=torch.Generator().manual_seed(seed_for(5, "data", 2)))[:64]
    train = subject._splits.train
    assert torch.equal(labels, train.labels[order])
    assert torch.equal(images, subject._normalised(train.pixels[order]))


def test_options_that_came_later_are_not_in_older_identities():
    assert task("data.size=16").identity() == {
        "data": {"name": "cifar10", "size": 16, "split_seed": 0, "validation": 5000},
        "model": {"name": "resnet20", "scope": "all", "shortcut": "projection"},
        "train": {
            "batch_size": 128,
            "drop": 0.1,
            "epochs": 8,
            "low_lr": 0.01,
            "lr": 0.4,
            "milestones": [],
            "momentum": 0.9,
            "precision": "bf16",
            "schedule": "one_cycle",
            "warmup": 0.3,
            "weight_decay": 5e-4,
        },
    }
    assert task("train.augment=false").identity()["train"]["augment"] is False


@pytest.mark.parametrize(
    ("name", "of", "test", "shape", "note"),
    [
        ("mnist", "ylecun/mnist/mnist", "test", (28, 28), "MNIST"),
        ("fashion_mnist", "zalando-datasets/fashion_mnist/fashion_mnist", "test", (28, 28), "Fashion-MNIST"),
        ("tiny_imagenet", "zh-plus/tiny-imagenet/data", "valid", (64, 64, 3), "Tiny-ImageNet, valid images for testing"),
    ],
)
def test_other_data_in_the_hubs_layout(tmp_path, monkeypatch, name, of, test, shape, note):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    pictures(tmp_path, {"train": 20, test: 10}, "PNG" if len(shape) == 2 else "JPEG", of=of, column="image", shape=shape)
    subject = task(
        "protocol=paper", f"data={name}", f"data.root={tmp_path}", "data.validation=5", "train.batch_size=5", "model.name=conv2"
    )
    assert subject.note == note
    assert [len(s) for s in (subject._splits.train, subject._splits.val, subject._splits.test)] == [15, 5, 10]
    pixels = subject._splits.test.pixels
    assert pixels.shape == (10, *shape[:2], 3 if len(shape) == 3 else 1)
    if len(shape) == 2:
        drawn = np.random.default_rng(0).integers(0, 256, (30, *shape), np.uint8)
        assert torch.equal(pixels[..., 0], torch.from_numpy(drawn[20:]))
    images, labels = next(iter(subject.batches("train", 0, 0)))
    assert subject.loss(subject.build(0), (images, labels)).isfinite()
    half = task("protocol=paper", f"data={name}", f"data.root={tmp_path}", "data.validation=5", f"data.size={shape[0] // 2}")
    assert half.note.endswith(f"downsampled to {shape[0] // 2}x{shape[0] // 2}")


def test_tiny_imagenet_in_the_papers_setting():
    config = settings("tasks/cnn_cifar", ["protocol=paper_tiny_imagenet"])[0].config
    train = config["train"]
    assert (config["data"]["name"], config["model"]["name"]) == ("tiny_imagenet", "resnet18")
    assert (train["epochs"], train["batch_size"], train["lr"], train["weight_decay"]) == (200, 256, 0.2, 1e-4)
    assert [share * train["epochs"] for share in train["milestones"]] == [100, 150]


def test_a_vision_transformer(bench):
    task = open_task(settings("tasks/cnn_cifar", ["protocol=smoke", "model=vit"])[0])
    one, same, other = (task.build(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not torch.equal(one["heads.head.weight"], other["heads.head.weight"])
    model = task.build(0)
    found = {m.name: m.size for m in task.maskables(model)}
    layer = "encoder.layers.encoder_layer_0"
    assert found[f"{layer}.self_attention.in_proj_weight"] == 3 * 96 * 96
    assert found[f"{layer}.self_attention.out_proj.weight"] == 96 * 96
    assert sum(found.values()) == 96 * 1 + 4 * (4 * 96 * 96 + 2 * 96 * 192) + 10 * 96  # patches of one pixel of digits
    # 64 patches and a class token
    assert task.macs(model, {}) == 64 * 96 + 65 * 4 * (4 * 96 * 96 + 2 * 96 * 192) + 10 * 96
    task.loss(model, next(iter(task.batches("train", 0, 0)))).backward()
    assert all(model.get_parameter(name).grad.abs().sum() > 0 for name in found)
    scoped = open_task(settings("tasks/cnn_cifar", ["protocol=smoke", "model=vit", "model.scope=channels"])[0])
    with pytest.raises(BenchError, match="this network has no channel to prune"):
        scoped.maskables(scoped.build(0))
    with pytest.raises(BenchError, match="vit has an initialisation of its own"):
        open_task(settings("tasks/cnn_cifar", ["protocol=smoke", "model=vit", "model.gain=2.0"])[0]).build(0)
    said = [
        "model=vit",
        "protocol=smoke",
        "train.epochs=1",
        "method=one_shot",
        "densities=[0.5]",
        "pattern=2:4",
        "controls=[]",
        "seeds=[0]",
    ]
    assert bench.run(*said, "train.precision=fp32", task="tasks/cnn_cifar") == 0
    assert {r.status for r in bench.records()} == {"ok"}
