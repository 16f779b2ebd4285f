"""Images of noise whose class is in one channel, a convolutional network with batch norm: each process takes its share."""

import torch
import torch.nn.functional as F
from torch import nn

from bench.task import BenchError, Maskable, Metric, Task, seed_for
from bench.training import distributed


class Shares(Task):
    metric = Metric("accuracy")
    shardable = True
    fingerprint = "noise"

    def __init__(self, config, device):
        super().__init__(config, device)
        size = config["data"]["size"]
        x = torch.randn(3 * size, 2, 5, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        y = (x[:, 0].mean((1, 2)) > 0).long()
        self.splits = {
            split: (x[i * size : (i + 1) * size], y[i * size : (i + 1) * size])
            for i, split in enumerate(("train", "val", "test"))
        }

    @property
    def steps_per_epoch(self):
        return self.config["data"]["size"] // self.batch_size

    def build(self, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Conv2d(2, 6, 3),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.Conv2d(6, 6, 3),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(6, 2),
            ).double()

    def maskables(self, model):
        return [Maskable(n, tuple(p.shape), "conv") for n, p in model.named_parameters() if p.ndim == 4]

    def batches(self, split, epoch, seed, start=0, share=(0, 1)):
        x, y = self.splits[split]
        order = torch.arange(len(x))
        if split == "train":
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed_for(seed, "data", epoch)))
            order = order[: self.steps_per_epoch * self.batch_size]
        for part in order.split(self.batch_size)[start:]:
            mine = part.tensor_split(share[1])[share[0]]
            yield x[mine], y[mine]

    def loss(self, model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    @torch.no_grad()
    def evaluate(self, model, split):
        training = model.training
        model.eval()
        count, right, loss = 0, 0, 0.0
        for x, y in self.batches(split, 0, 0, **distributed.share()):
            logits = model(x)
            count += len(y)
            right += int((logits.argmax(1) == y).sum())
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
        model.train(training)
        count, right, loss = distributed.all_reduce_sum(count, right, loss)
        return {"accuracy": 100 * right / count, "loss": loss / count}

    def optimizer(self, model, steps):
        optimizer = torch.optim.SGD(model.parameters(), self.config["train"]["lr"], momentum=0.9, weight_decay=1e-3)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (steps + 1))

    def macs(self, model, density):
        return sum(p.numel() * density.get(n, 1.0) for n, p in model.named_parameters())


class Fails(Shares):
    """The second process finds a broken image."""

    def batches(self, split, epoch, seed, start=0, share=(0, 1)):
        if share[0] == 1:
            raise BenchError("image 5 is broken")
        return super().batches(split, epoch, seed, start, share)
