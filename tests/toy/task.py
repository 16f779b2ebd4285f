"""The toy task of the tests: batch norm (buffers), dropout (randomness), a tied weight, an edge-like budget of its own."""

import hashlib
import time

import torch
import torch.nn.functional as F
from torch import nn

from bench.task import Maskable, Metric, Task, seed_for
from bench.task.capabilities import Call
from bench.task.examples import pick


class Mlp(nn.Module):
    """x -> first -> norm -> relu -> dropout -> middle -> middle again (tied) -> last, inputs scaled by ``gate``. ``inputs``: the
    ones it reads."""

    def __init__(self, width: int, inputs: list[int] | None = None):
        super().__init__()
        self.inputs = inputs or list(range(8))
        self.gate = nn.Parameter(torch.ones(len(self.inputs)))
        self.first, self.norm = nn.Linear(len(self.inputs), width), nn.BatchNorm1d(width)
        self.middle = nn.Linear(width, width)
        self.again = nn.Linear(width, width)
        self.again.weight = self.middle.weight
        self.last = nn.Linear(width, 2)

    def forward(self, x):
        x = F.dropout(F.relu(self.norm(self.first(x[:, self.inputs] * self.gate))), 0.2, self.training)
        return self.last(F.relu(self.again(F.relu(self.middle(x)))))


class Toy(Task):
    metric = Metric("accuracy")
    note = "Generated points."

    def __init__(self, config, device):
        super().__init__(config, device)
        size = config["data"]["size"]
        generator = torch.Generator().manual_seed(7)
        x = torch.randn(3 * size, 8, generator=generator)
        y = (x[:, 0] * x[:, 1] + x[:, 2] > 0).long()
        if config["data"]["name"] == "broken":
            x[3] = float("nan")
        self.splits = {
            split: (x[i * size : (i + 1) * size], y[i * size : (i + 1) * size])
            for i, split in enumerate(("train", "val", "test"))
        }

    @property
    def fingerprint(self):
        return hashlib.sha256(self.splits["train"][0].numpy().tobytes()).hexdigest()

    @property
    def steps_per_epoch(self):
        return self.config["data"]["size"] // self.batch_size

    def build(self, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Mlp(self.config["model"]["width"])

    def maskables(self, model):
        kinds = {
            "gate": ("edge", "edges"),
            "first.weight": ("linear", "weights"),
            "middle.weight": ("linear", "weights"),
            "last.weight": ("linear", "weights"),
        }
        parameters = dict(model.named_parameters())
        return [Maskable(n, tuple(parameters[n].shape), kind, budget) for n, (kind, budget) in kinds.items()]

    def batches(self, split, epoch, seed, start=0):
        x, y = self.splits[split]
        order = torch.arange(len(x))
        if split == "train":
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed_for(seed, "data", epoch)))
        for part in order.split(self.batch_size)[start:]:
            time.sleep(self.config["train"]["pause"])
            yield x[part], y[part]

    def loss(self, model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model, split):
        training = model.training
        model.eval()
        x, y = self.splits[split]
        with torch.no_grad():
            logits = model(x)
        model.train(training)
        return {"accuracy": 100 * (logits.argmax(1) == y).double().mean().item(), "loss": F.cross_entropy(logits, y).item()}

    def optimizer(self, model, steps):
        lr = self.config["train"]["lr"]
        if self.config["train"]["optimizer"] == "adamw":
            optimizer = torch.optim.AdamW(model.parameters(), lr / 10, weight_decay=0.1)
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-3)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (steps + 1))

    def probe(self, model):
        return model(torch.ones(1, 8, dtype=model.gate.dtype))

    def examples(self, per_class, seed, balanced):
        x, y = self.splits["train"]
        return [(x[part], y[part]) for part in pick(y, 2, per_class, seed, balanced).tensor_split(2)]

    def summed_loss(self, model, batch, temperature):
        return F.cross_entropy(model(batch[0]) / temperature, batch[1], reduction="sum")

    def slim(self, model, masks):
        kept = masks["gate"].nonzero().flatten()
        slim = Mlp(len(model.first.weight), kept.tolist())
        state = model.state_dict()
        state |= {"gate": state["gate"][kept], "first.weight": state["first.weight"][:, kept]}
        slim.load_state_dict(state)
        return slim

    def facts(self, model):
        return {"points": 8, "labels": ["no", "yes"]}

    def bare(self, facts):
        return self.build(0)

    def folded(self, model):
        return model

    def call(self, model, batch):
        return Call(model, {"points": batch[0]}, {"points": {0: "batch"}}, ("logits",))

    def write_files(self, folder, masks):
        (folder / "points.txt").write_text("Eight numbers a point.")

    def macs(self, model, density):
        sizes = {"first.weight": 8 * 16, "middle.weight": 2 * 16 * 16, "last.weight": 2 * 16}
        return sum(size * density.get(name, 1.0) for name, size in sizes.items())
