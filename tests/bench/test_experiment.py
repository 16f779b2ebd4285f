"""A user's own network: plain PyTorch objects through methods, controls, records and plots, and out as a module."""

import functools
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import bench as suite
from bench.errors import BenchError
from bench.runner.jobs import label
from bench.runner.status import read_grids
from bench.storage import inventory
from bench.task import neurons
from pruning import Maskable, PruningError
from pruning.patterns import applied, broken


def points(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] + x[:, 1] > 0).long()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))


def accuracy(outputs, targets):
    return 100 * (outputs.argmax(1) == targets).double().mean()


SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def experiment(folder, **changed) -> suite.Experiment:
    """On points, with whatever is changed."""
    usual = {
        "build": mlp,
        "train": points(64),
        "val": points(32, 1),
        "test": points(32, 2),
        "loss": F.cross_entropy,
        "metric": accuracy,
        "optimizer": SGD,
        "epochs": 2,
        "batch_size": 16,
        "store": folder / "store",
        "runs": folder / "runs",
        "device": "cpu",
    }
    return suite.Experiment(**usual | changed)


def stages(folder) -> set[str]:
    return {path.parent.parent.name for path in (folder / "store" / "stages").glob("*/*/done")}


def test_ten_lines_give_records_tables_plots_and_a_network(tmp_path):
    own = experiment(tmp_path)
    records = own.run("imp", densities=[0.5, 0.2], controls=["random", "reinit"], seeds=[0, 1])
    assert [r.status for r in records] == ["ok"] * 14
    assert [r.identity.method for r in records].count("dense") == 2
    ticket = next(r for r in records if r.identity.densities == {"weights": 0.2} and not r.identity.control)
    assert ticket.budgets["weights"].kept == 32  # of 160
    assert ticket.result.metric == "accuracy"
    # the network of a record computes what it says
    with pytest.raises(BenchError, match="slim=True removes units, and here weights were pruned"):
        own.model(ticket, slim=True)
    model = own.model(ticket)
    x, y = points(32, 2)
    assert float(accuracy(model.eval()(x), y)) == pytest.approx(ticket.result.test["accuracy"])
    assert sum(int((p != 0).sum()) for n, p in model.named_parameters() if n.endswith("weight")) <= 32
    assert "imp" in own.table()
    assert "↳ random" in own.table()
    drawn = own.plot(tmp_path / "plots")
    assert drawn
    assert all(path.read_text().startswith("<svg") for path in drawn)
    # asked again, nothing is trained; another method shares the dense network
    before = stages(tmp_path)
    assert [r.id for r in own.run("imp", densities=[0.5, 0.2], controls=["random", "reinit"], seeds=[0, 1])] == [
        r.id for r in records
    ]
    assert stages(tmp_path) == before
    own.run("one_shot", densities=0.5)
    assert stages(tmp_path) == before  # its ticket is the first of imp


def test_methods_and_patterns(tmp_path):
    own = experiment(tmp_path, epochs=1)
    for method in ("synflow", "snip", "rigl", "gmp", "edge_popup"):
        options = {"rounds": 2} if method == "synflow" else {}
        (_, record) = own.run(method, densities=[0.5], **options)
        assert record.status == "ok", record.reason
    (_, record) = own.run("one_shot", pattern="2:4")
    assert record.label == "one_shot(pattern=2:4)"
    masks = own.masks(record)
    assert broken(masks, applied("2:4", [Maskable(n, tuple(m.shape), "linear") for n, m in masks.items()])) is None


def test_an_option_without_a_default_stands_last_in_a_label(tmp_path):
    """The label is a part of the record's path, so it does not change."""
    method = tmp_path / "method.py"
    method.write_text("def method(lab, densities, strength: float, mode: str = 'a'):\n    yield from ()\n")
    own = experiment(tmp_path)
    with pytest.raises(BenchError, match=r"option strength of method .* has no default: give strength="):
        own.run(f"{method}:method", mode="b")
    config = own._setting(f"{method}:method", options={"mode": "b", "strength": 2.0}).config
    assert label(config["method"]) == "method(mode=b, strength=2.0)"


def test_a_training_has_its_name_by_all_that_can_change_it(tmp_path):
    def other_loss(outputs, targets):
        return F.cross_entropy(outputs, targets, label_smoothing=0.1)

    experiment(tmp_path).run("dense")
    for n, changed in enumerate(
        (
            {"train": points(64, 5)},
            {"optimizer": functools.partial(torch.optim.SGD, lr=0.2, momentum=0.9)},
            {"loss": other_loss},
            {"schedule": lambda done: 1 - done},
            {"build": lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))},
            {"batch_size": 32},
            {"name": "another"},
        ),
        2,
    ):
        experiment(tmp_path, **changed).run("dense")
        assert len(stages(tmp_path)) == n, changed
    experiment(tmp_path).run("dense")
    assert len(stages(tmp_path)) == 8


class Noisy(Dataset):
    """Points with noise that is drawn anew whenever one is read."""

    def __len__(self):
        return 48

    def __getitem__(self, index):
        x, y = points(48)
        return x[index] + 0.1 * torch.randn(8), y[index]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_draws_by_seed_epoch_and_batch(tmp_path, workers):
    loader = DataLoader(Noisy(), batch_size=16, shuffle=True, num_workers=workers)
    task = experiment(tmp_path, train=loader).task
    one = list(task.batches("train", 1, 0))
    torch.rand(3)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one, task.batches("train", 1, 0), strict=True))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one[1:], task.batches("train", 1, 0, start=1), strict=True))
    assert not torch.equal(one[0][0], next(iter(task.batches("train", 2, 0)))[0])
    before = torch.get_rng_state()
    list(task.batches("train", 0, 0))
    assert torch.equal(before, torch.get_rng_state())


def test_training_in_pieces_gives_the_bits_of_training_in_one(tmp_path):
    ends = []
    for name, cuts in (("one", (6,)), ("two", (2, 6))):
        own = experiment(tmp_path / name, train=DataLoader(Noisy(), batch_size=16, shuffle=True))
        lab = own.lab()
        for step in cuts:
            state = lab.train(lab.start("init"), lab.ones(), until=step)
        ends.append(lab.stage(state).tensors())
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


# networks of other people


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.gru, self.head = nn.Embedding(20, 6), nn.GRU(6, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, tokens):
        return self.head(self.gru(self.embedding(tokens))[1][-1])


def vit():
    from torchvision.models import VisionTransformer

    return VisionTransformer(8, 4, 1, 2, 8, 16, num_classes=2)


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForSequenceClassification(BertConfig(vocab_size=20, max_position_embeddings=16, **sizes))


def images(count, size=8):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count)), torch.arange(count) % 2


def words(count):
    return torch.randint(20, (count, 6), generator=torch.Generator().manual_seed(count)), torch.arange(count) % 2


@dataclass
class Case:
    build: object
    data: object
    kinds: set[str]
    more: dict


CASES = {
    "gru": Case(Reader, words, {"gru.weight_ih_l0", "gru.weight_hh_l0", "head.weight"}, {}),
    "vit": Case(
        vit,
        images,
        {
            "conv_proj.weight",
            "encoder.layers.encoder_layer_0.self_attention.in_proj_weight",
            "encoder.layers.encoder_layer_0.self_attention.out_proj.weight",
            "encoder.layers.encoder_layer_0.mlp.0.weight",
            "encoder.layers.encoder_layer_0.mlp.3.weight",
            "heads.head.weight",
        },
        {},
    ),
    "bert": Case(
        bert,
        lambda count: ({"input_ids": words(count)[0]}, words(count)[1]),
        {
            *(f"bert.encoder.layer.0.attention.self.{part}.weight" for part in ("query", "key", "value")),
            "bert.encoder.layer.0.attention.output.dense.weight",
            "bert.encoder.layer.0.intermediate.dense.weight",
            "bert.encoder.layer.0.output.dense.weight",
            "bert.pooler.dense.weight",
            "classifier.weight",
        },
        {
            "loss": lambda outputs, targets: F.cross_entropy(outputs.logits, targets),
            "metric": lambda outputs, targets: accuracy(outputs.logits, targets),
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_networks_of_other_people(tmp_path, name):
    case = CASES[name]
    data = {split: case.data(n) for split, n in (("train", 16), ("val", 8), ("test", 10))}
    own = experiment(tmp_path, build=case.build, **data, epochs=1, batch_size=8, **case.more)
    assert {m.name for m in own.task.maskables(own.task.build(0))} == case.kinds
    dense, ticket, control = own.run("one_shot", densities=[0.5], controls=["random"])
    assert (ticket.status, control.status) == ("ok", "ok")
    assert 0 < ticket.cost.inference_macs < dense.cost.inference_macs
    model = own.model(ticket).eval()
    parameters = dict(model.named_parameters())
    assert all(not parameters[n][~mask].any() for n, mask in own.masks(ticket).items())
    outputs = model(**data["test"][0]) if name == "bert" else model(data["test"][0])
    assert float(own.task._metric(outputs, data["test"][1])) == pytest.approx(list(ticket.result.test.values())[-1])


def test_multiply_adds_by_hand(tmp_path):
    own = experiment(tmp_path, build=Reader, train=words(16), val=words(8), test=words(10), batch_size=8)
    model = own.task.build(0)
    gru, head = 6 * (24 * 6 + 24 * 8), 16  # six tokens each
    assert own.task.macs(model, {}) == gru + head
    assert own.task.macs(model, {"gru.weight_ih_l0": 0.5}) == gru + head - 6 * 24 * 6 / 2
    attention = experiment(tmp_path, build=vit, train=images(16), val=images(8), test=images(10), batch_size=8)
    # four patches of 4 x 4 pixels and a class token, 8 wide: projections 3 and 1 times 8 x 8, a network of 16 hidden units
    assert attention.task.macs(attention.task.build(0), {}) == 4 * 8 * 48 + 5 * (4 * 64 + 2 * 8 * 16) + 16


def resnet():
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=2, width_per_group=64)


def test_a_torchvision_resnet_by_channels_comes_out_smaller_and_computes_the_same(tmp_path):
    data = {split: images(n) for split, n in (("train", 4), ("val", 2), ("test", 3))}
    own = experiment(tmp_path, build=resnet, **data, epochs=1, batch_size=2, prunable="channels")
    dense, ticket, control = own.run("one_shot", densities={"channels": 0.5}, controls=["slim"])
    assert (ticket.status, control.status) == ("ok", "ok")
    whole, small = own.model(ticket).double().eval(), own.model(ticket, slim=True).double().eval()
    x = data["test"][0].double()
    assert torch.allclose(whole(x), small(x), atol=1e-10)
    count = [sum(p.numel() for p in model.parameters()) for model in (whole, small)]
    assert count[1] < 0.6 * count[0]
    assert ticket.cost.inference_macs < 0.6 * dense.cost.inference_macs
    assert sum(p.numel() for p in own.model(control).parameters()) == count[1]


def test_neurons_of_a_perceptron_come_out(tmp_path):
    own = experiment(tmp_path, prunable="neurons")
    dense, ticket, control = own.run("one_shot", densities=0.5, controls=["slim"])
    assert (ticket.budgets["neurons"].kept, ticket.budgets["neurons"].total) == (8 * 9, 16 * 9)  # eight weights and a bias each
    assert (dense.cost.inference_macs, ticket.cost.inference_macs) == (16 * 8 + 16 * 2, 8 * 8 + 8 * 2)
    whole, small = own.model(ticket).double().eval(), own.model(ticket, slim=True).double().eval()
    assert [tuple(p.shape) for p in small.parameters()] == [(8, 8), (8,), (2, 8), (2,)]
    x = points(32, 2)[0].double()
    assert torch.allclose(whole(x), small(x), atol=1e-12)
    assert [tuple(p.shape) for p in own.model(control).parameters()] == [(8, 8), (8,), (2, 8), (2,)]


class Skipping(nn.Module):
    """What its first layer makes is read twice."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.one(x).relu()
        return self.three(x + F.gelu(self.two(x)))


class Offset(nn.Module):
    """An activation that leaves 0 at 0 until its offset is trained."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x.relu() + self.offset


class Scaled(nn.Linear):
    """A layer with a parameter that has no row for each neuron."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * super().forward(x)


class Reshaping(nn.Module):
    """Asks a layer how many neurons it has."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.two(self.one(x).relu().reshape(-1, self.one.out_features))


class Objects(nn.Module):
    """Gives an object with tensors in it, which nobody can compare."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, x):
        return SimpleNamespace(logits=self.inside(x))


@pytest.mark.parametrize(
    ("build", "inputs", "found"),
    [
        (
            lambda: nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4), nn.SiLU(), nn.Linear(4, 2)),
            points(2)[0],
            {"0": "2", "2": "4"},
        ),
        (lambda: nn.Sequential(nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 2)), points(2)[0], {}),  # 0 becomes a half
        (lambda: nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)), points(2)[0], {}),
        (Skipping, points(2)[0], {}),
        (lambda: nn.Sequential(nn.Linear(8, 6), Offset(), nn.Linear(6, 2)), points(2)[0], {}),
        (Objects, points(2)[0], {}),
        (
            lambda: nn.Sequential(Scaled(8, 6), nn.ReLU(), Scaled(6, 4), nn.ReLU(), Scaled(4, 2)),
            points(2)[0],
            {"0": "2", "2": "4"},
        ),
        (Reshaping, points(2)[0], {"one": "two"}),
        (vit, images(2)[0], {"encoder.layers.encoder_layer_0.mlp.0": "encoder.layers.encoder_layer_0.mlp.3"}),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16), points(2)[0][None], {"linear1": "linear2"}),
        (
            bert,
            {"input_ids": words(2)[0]},
            {"bert.encoder.layer.0.intermediate.dense": "bert.encoder.layer.0.output.dense", "bert.pooler.dense": "classifier"},
        ),
    ],
)
def test_neurons_that_one_layer_alone_reads(build, inputs, found):
    assert neurons.readers(build(), inputs) == found


class Residual(nn.Module):
    """Blocks whose first layer alone has neurons that one layer reads."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(12))
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        for one, two in zip(self.layers[::2], self.layers[1::2], strict=True):
            x = F.layer_norm(x + two(one(x).relu()), (8,))
        return x


def test_finding_neurons_takes_two_forward_passes_for_each_layer_that_has_some():
    network = Residual()
    assert neurons.readers(network, points(2)[0]) == {f"layers.{i}": f"layers.{i + 1}" for i in range(0, 12, 2)}
    assert network.passes == 1 + 2 * 6


# what does not fit together: one line each


class Endless(IterableDataset):
    def __iter__(self):
        return iter([])


class Growing:
    """Another network with every call."""

    def __init__(self):
        self.width = 3

    def __call__(self):
        self.width += 1
        return nn.Sequential(nn.Linear(8, self.width), nn.Linear(self.width, 2))


SAME = mlp()
x64, y64 = points(64)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"train": DataLoader(Endless())}, "the train data, a DataLoader, has no length"),
        ({"build": Growing()}, "build gives another network each time: 0.bias is"),
        ({"build": lambda: SAME}, "build gives the same network every time"),
        ({"build": lambda: 3}, "build must give a torch.nn.Module, and gave 3"),
        ({"name": "cnn_cifar"}, "name='cnn_cifar' is that of a task here"),
        ({"name": "a/b"}, "give the experiment another name"),
        ({"train": (x64, y64[:9])}, "as many examples in both, and has 64, 9"),
        ({"train": [(x64, y64, 3)]}, "a batch of the train data must be"),
        ({"test": []}, "the test data has no batch"),
        ({"optimizer": lambda parameters: 5}, "optimizer must give a torch.optim.Optimizer for parameters, and gave 5"),
        ({"prunable": ["0.weigth"]}, "prunable names 0.weigth, which is no parameter"),
        ({"prunable": ["0.weight", "0.weight"]}, "prunable names 0.weight twice"),
        ({"prunable": "layers"}, "prunable='layers' is none of"),
        ({"prunable": "channels"}, "this network has none whose channels can"),
        ({"prunable": "neurons", "build": lambda: nn.Linear(8, 2)}, "prunable='neurons' takes a linear layer whose outputs"),
        ({"build": lambda: nn.Sequential(nn.Embedding(3, 8))}, "nothing of this network may be pruned"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_what_does_not_fit_together_is_one_line(tmp_path, changed, line):
    if changed.get("build") and "nothing" in line:
        changed = {**changed, **dict.fromkeys(("train", "val", "test"), (torch.zeros(4, dtype=torch.long), torch.zeros(4)))}
    with pytest.raises(BenchError) as error:
        experiment(tmp_path, **changed)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"method": "impp"}, "did you mean imp"),
        ({"method": "imp", "rat": 0.2}, "unknown option of method imp 'rat'; did you mean rate?"),
        ({"method": "imp", "controls": ["randm"]}, "did you mean random"),
        ({"method": "imp", "densities": [1.5]}, "must be a number in (0, 1]"),
        ({"method": "imp", "pattern": "2-4"}, "did you mean 2:4?"),
        ({"method": "imp", "pattern": "2:4", "densities": [0.3]}, "ask for 0.5"),
        ({"method": "imp", "rate": "fast"}, "method.rate must be"),
        ({"method": "transfer", "source": "sst2"}, "an experiment knows no other task or data set"),
    ],
)
def test_what_cannot_be_run_is_one_line(tmp_path, asked, line):
    own = experiment(tmp_path)
    with pytest.raises((BenchError, PruningError)) as error:
        own.run(**asked)
    assert line in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_random_weights_from_elsewhere_are_found_out(tmp_path):
    generator = torch.Generator()

    def build():
        model = mlp()
        nn.init.normal_(model[0].weight, generator=generator)
        return model

    with pytest.raises(BenchError, match=r"build gives other weights in 0\.weight from one seed"):
        experiment(tmp_path, build=build)


def test_lists_of_batches_and_loaders_of_tensors(tmp_path):
    x, y = points(48)
    batches = [(x[i : i + 16], y[i : i + 16]) for i in range(0, 48, 16)]
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    for data in (batches, loader):
        (record,) = experiment(tmp_path, train=data).run("dense")
        assert record.result.step == 6


def test_it_is_seen_as_running(tmp_path):
    """`bench status` shows it, and `bench store clean` takes nothing of it away."""
    seen = []

    def watched(outputs, targets):
        (grid,) = read_grids(tmp_path / "store")
        old = inventory.Entry(tmp_path / "store" / "stages" / "k" / "8", "experiment", "", 1, 1e9)
        seen.append((grid["state"], grid["done"], grid["workers"][0]["job"], inventory.unneeded([old], [grid])))
        return F.cross_entropy(outputs, targets)

    experiment(tmp_path, loss=watched).run("dense", seeds=[0, 1])
    assert seen[0] == ("running", 0, "experiment own dense seed 0", [])
    (grid,) = read_grids(tmp_path / "store")
    assert (grid["state"], grid["done"], grid["waiting"], grid["networks_left"]) == ("ended", 2, 0, 0)
    assert grid["command"] == "bench.Experiment(name='experiment', ...).run('dense', ...)"


def test_a_network_that_takes_no_part_of_a_batch_is_tried_with_the_whole(tmp_path):
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))

        def forward(self, features, edges):
            return self.layers(features.index_add(0, edges[1], features[edges[0]]))

    features, targets = points(16)
    batches = [((features, torch.arange(16).repeat(2, 1)), targets)]
    own = experiment(tmp_path, build=Graph, train=batches, val=batches, test=batches, prunable="neurons")
    assert own.task.maskables(own.task.build(0))[0].name == "layers.0.weight"


def test_two_labs_of_one_moment_are_two_in_the_status(tmp_path):
    own = experiment(tmp_path)
    labs = [own.lab(0), own.lab(1)]
    for lab in labs:
        lab.train(lab.start("init"), lab.ones())
    assert sorted(grid["workers"][0]["job"][-1] for grid in read_grids(tmp_path / "store")) == ["0", "1"]


def test_a_lab_in_hand_is_seen_while_it_trains(tmp_path):
    seen = []

    def watched(outputs, targets):
        seen.append([(grid["state"], grid["workers"][0]["job"]) for grid in read_grids(tmp_path / "store")])
        return F.cross_entropy(outputs, targets)

    lab = experiment(tmp_path, loss=watched).lab()
    assert read_grids(tmp_path / "store") == []
    lab.train(lab.start("init"), lab.ones())
    assert seen[-1] == [("running", "experiment own dense seed 0")]


def test_what_another_process_trains_is_said(tmp_path):
    own = experiment(tmp_path)
    lab = own.lab()
    key = lab.train(lab.start("init"), lab.ones()).training
    for path in (tmp_path / "store" / "stages").glob("*/*"):
        path.rename(tmp_path / "gone")
    with lab.store.lock(key), pytest.raises(BenchError, match="another process trains stage"):
        own.run("dense")
