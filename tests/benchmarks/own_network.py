"""What masks add to a step of a training loop of one's own, and what ``bench.Experiment`` adds: ratios, interleaved in one run.

    python tests/benchmarks/own_network.py

Prints, for several networks, medians of the ratios to a bare PyTorch loop, per step: of the same loop with masks of density 0.2
attached, and of the experiment's training under such masks. What a training takes once, to be stored and found again, is printed
apart, in bare steps. One thread, and its seconds on the core, which other processes do not lengthen.
"""

import functools
import statistics
import tempfile
import time

import torch
from torch import nn
from torch.nn import functional as F

import bench
from bench.task.prunable import weights
from pruning import Masks, allocate, attach

STEPS, REPEATS, BATCH, WORDS = 30, 9, 64, 1000


def wide_mlp() -> nn.Module:
    """The hardest case: three multiplications a weight and example, so that a step is little more than the optimizer's."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 16 * 16, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )


def convolutional() -> nn.Module:
    """Eight convolutions as ResNet-20 has them in its first stage."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    for _ in range(7):
        layers += [nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def vision_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(16, 4, 2, 4, 128, 256, num_classes=10)


def resnet18() -> nn.Module:
    """torchvision's, for images of 16 x 16: it keeps their size in its first layers."""
    from torchvision.models import resnet18 as whole

    model = whole(num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model


class Reader(nn.Module):
    """A classifier of word sequences: ``read`` gives a state for each of them."""

    def __init__(self, width: int):
        super().__init__()
        self.output = nn.Linear(width, 10)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.output(self.read(words))


class GRU(Reader):
    def __init__(self) -> None:
        super().__init__(256)
        self.words, self.gru = nn.Embedding(WORDS, 128), nn.GRU(128, 256, batch_first=True)

    def read(self, words: torch.Tensor) -> torch.Tensor:
        return self.gru(self.words(words))[1][0]


class Bert(Reader):
    """transformers' model, two layers."""

    def __init__(self) -> None:
        from transformers import BertConfig, BertModel

        super().__init__(128)
        sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512}
        self.bert = BertModel(BertConfig(vocab_size=WORDS, **sizes))

    def read(self, words: torch.Tensor) -> torch.Tensor:
        return self.bert(words).pooler_output


SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, fused=True)


def loop(build, x: torch.Tensor, y: torch.Tensor, density: float | None) -> float:
    """Seconds of a step of a hand-written loop, under masks of a density."""
    model = build().train()
    optimizer = SGD(model.parameters())
    if density is not None:
        maskables = weights(model)
        scores = {m.name: torch.rand(m.shape) for m in maskables}
        attach(allocate(scores, Masks.ones(maskables), {"weights": density}, maskables), model, optimizer)
    began = time.process_time()
    for step in range(STEPS):
        part = slice(step * BATCH, (step + 1) * BATCH)
        F.cross_entropy(model(x[part]), y[part]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.process_time() - began) / STEPS


def experiment(build, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Seconds of a step of the same training as an experiment, and of what it does once."""
    with tempfile.TemporaryDirectory() as folder:
        data = {split: (x, y) if split == "train" else (x[:10], y[:10]) for split in ("train", "val", "test")}
        own = bench.Experiment(
            build, **data, loss=F.cross_entropy, metric=lambda o, t: 0.0, optimizer=SGD, epochs=2, batch_size=BATCH,
            store=folder, runs=folder, device="cpu",
        )  # fmt: skip
        lab = own.lab()
        masks = lab.allocate(lab.score("random", lab.start("init"), lab.ones()), lab.ones(), {"weights": 0.2})

        def seconds(steps: int) -> float:
            began = time.process_time()
            lab.train(lab.start("init"), masks, until=steps)
            return time.process_time() - began

        short = seconds(STEPS // 2)
        rest = seconds(2 * STEPS)  # goes on from there
        step = (rest - short) / STEPS
        return step, short - step * STEPS / 2


def main() -> None:
    """Interleaved repetitions; medians of the ratios of a pair."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(STEPS * BATCH, 3, 16, 16, generator=generator)
    texts = torch.randint(WORDS, (STEPS * BATCH, 32), generator=generator)
    y = torch.randint(10, (STEPS * BATCH,), generator=generator)
    for build in (vision_transformer, convolutional, resnet18, GRU, Bert, wide_mlp):
        x = texts if build in (GRU, Bert) else images
        loop(build, x, y, None)
        masked, suite, once = [], [], []
        for _ in range(REPEATS):
            bare = loop(build, x, y, None)
            masked.append(loop(build, x, y, 0.2) / bare)
            step, first = experiment(build, x, y)
            suite.append(step / bare)
            once.append(first / bare)
        (low, _, high), (low_suite, _, high_suite) = (statistics.quantiles(ratios, n=4) for ratios in (masked, suite))
        print(
            f"{build.__name__}: masked / bare {statistics.median(masked):.3f} (quartiles {low:.3f} to {high:.3f}), "
            f"experiment / bare {statistics.median(suite):.3f} (quartiles {low_suite:.3f} to {high_suite:.3f}), "
            f"once {statistics.median(once):.1f} steps, {1000 * bare:.1f} ms a bare step",
            flush=True,
        )


if __name__ == "__main__":
    main()
