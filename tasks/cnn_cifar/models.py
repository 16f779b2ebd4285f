"""Networks for small images: ResNet (He et al. 2016), VGG with batch norm and one linear layer (Simonyan & Zisserman
2015; Frankle & Carbin 2019), MobileNetV2 (Sandler et al. 2018), without batch norm LeNet-300-100 and Conv-2/4/6 (Frankle &
Carbin 2019), and a small vision transformer (Dosovitskiy et al. 2021). All take (N, C, H, W) and give (N, classes) logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.task import BenchError, one_of, seed_for

RESNETS = {  # (width of every stage, blocks a stage); the last is the ImageNet net with a 3x3 stem and no first pooling
    "resnet8": ((16, 32, 64), 1),
    "resnet20": ((16, 32, 64), 3),
    "resnet32": ((16, 32, 64), 5),
    "resnet56": ((16, 32, 64), 9),
    "resnet18": ((64, 128, 256, 512), 2),
}
VGGS = {  # convolutions a stage, of widths 64, 128, 256, 512, 512; a max-pool between stages
    "vgg11": (1, 1, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
PLAIN = {  # widths of pairs of 3x3 convolutions, of hidden linear layers
    "lenet": ((), (300, 100)),
    "conv2": ((64,), (256, 256)),
    "conv4": ((64, 128), (256, 256)),
    "conv6": ((64, 128, 256), (256, 256)),
}
VITS = {"vit": (8, 4, 3, 96, 192)}  # patches a side, layers, heads, width, hidden units of a layer
MODELS = (*RESNETS, *VGGS, "mobilenet_v2", *PLAIN, *VITS)
SHORTCUTS = ("projection", "zero_pad")
INITS = ("kaiming_normal", "glorot_normal", "signed_constant")


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut. Where the shape changes, the shortcut is a 1x1 convolution with batch norm
    (``projection``), or every ``stride``-th pixel with zeros for the new channels (``zero_pad``, no weights)."""

    def __init__(self, inputs: int, width: int, stride: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        if (inputs, stride) == (width, 1):
            self.shortcut = nn.Identity()
        elif shortcut == "projection":
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        else:
            self.shortcut = ZeroPad(width - inputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(out)).add_(self.shortcut(x)), inplace=True)


class ZeroPad(nn.Module):
    """A shortcut without weights: it subsamples, then appends ``extra`` zero channels, half on either side."""

    def __init__(self, extra: int, stride: int):
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        before = self.extra // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))


class ResNet(nn.Module):
    """3x3 stem, stages of ``Block``s halving the image from the second on, average pool, linear."""

    def __init__(self, widths: tuple[int, ...], blocks: int, shortcut: str, channels: int, classes: int):
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.stages = nn.Sequential()
        inputs = widths[0]
        for index, width in enumerate(widths):
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(Block(inputs, width, 2 if index and not block else 1, shortcut))
                inputs = width
            self.stages.append(stage)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        return self.head(self.stages(x).mean((2, 3)))


class VGG(nn.Module):
    """Stages of 3x3 convolutions with batch norm, max-pools between them; average pool, linear. With ``hidden``, as for larger
    images: a last max-pool and two hidden linear layers of that width, with dropout, before the linear one."""

    def __init__(self, depths: tuple[int, ...], channels: int, size: int, classes: int, hidden: int):
        super().__init__()
        self.features = nn.Sequential()
        for index, (width, depth) in enumerate(zip((64, 128, 256, 512, 512), depths, strict=True)):
            if index:
                self.features.append(nn.MaxPool2d(2))
            for _ in range(depth):
                conv = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
                self.features.extend([conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)])
                channels = width
        self.hidden = None
        if hidden:
            self.features.append(nn.MaxPool2d(2))
            self.hidden = nn.Sequential(nn.Flatten())
            for inputs in ((size // 32) ** 2 * channels, hidden):
                self.hidden.extend([nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Dropout()])
        self.head = nn.Linear(hidden or channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.head(self.hidden(x) if self.hidden else x.mean((2, 3)))


class Plain(nn.Module):
    """Pairs of 3x3 convolutions, a max-pool after each pair, hidden linear layers and ``output``; biases, no norms."""

    def __init__(self, pairs: tuple[int, ...], hidden: tuple[int, ...], channels: int, size: int, classes: int):
        super().__init__()
        self.features, self.hidden = nn.Sequential(), nn.Sequential(nn.Flatten())
        for width in pairs:
            for inputs in (channels, width):
                self.features.extend([nn.Conv2d(inputs, width, 3, 1, 1), nn.ReLU(inplace=True)])
            self.features.append(nn.MaxPool2d(2))
            channels, size = width, size // 2
        inputs = channels * size**2
        for width in hidden:
            self.hidden.extend([nn.Linear(inputs, width), nn.ReLU(inplace=True)])
            inputs = width
        self.output = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.hidden(self.features(x)))


def mobilenet_v2(channels: int, classes: int) -> nn.Module:
    """Return torchvision's network with the first two stride-2 convolutions at stride 1, as images of 32 pixels need, and without
    dropout."""
    from torchvision.models import MobileNetV2

    stages = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]
    model = MobileNetV2(num_classes=classes, inverted_residual_setting=stages, dropout=0.0)
    model.features[0][0] = nn.Conv2d(channels, 32, 3, 1, 1, bias=False)
    return model


def vit(name: str, channels: int, size: int, classes: int, seed: int) -> nn.Module:
    """torchvision's vision transformer with its own initialisation, but for a head that begins at 0 there, so that no gradient
    would reach the weights before it."""
    from torchvision.models import VisionTransformer

    patches, layers, heads, width, hidden = VITS[name]
    if size % patches:
        raise BenchError(f"{name} cuts an image into {patches} x {patches} patches, which {size} pixels a side do not allow")
    torch.default_generator.manual_seed(seed_for(seed, "weights"))
    model = VisionTransformer(size, size // patches, layers, heads, width, hidden, num_classes=classes)
    if channels != 3:
        model.conv_proj = nn.Conv2d(channels, width, size // patches, size // patches)
        nn.init.trunc_normal_(model.conv_proj.weight, std=(1 / model.conv_proj.weight[0].numel()) ** 0.5)
    nn.init.trunc_normal_(model.heads.head.weight, std=0.02)
    return model


def build(
    name: str,
    shortcut: str,
    shape: tuple[int, int, int],
    classes: int,
    seed: int,
    init: str = "kaiming_normal",
    affine: bool = True,
    hidden: int = 0,
    gain: float = 1.0,
) -> nn.Module:
    """The network ``name`` for images of ``shape`` (C, H, W): weights drawn from ``seed``, batch norm at scale 1 and shift
    0, biases 0. Leaves the global random state alone.

    init    kaiming_normal: deviation sqrt(2 / fan in); signed_constant: plus or minus that very number (Ramanujan et al. 2020);
            glorot_normal: deviation sqrt(2 / (fan in + fan out))
    affine  False: batch norm without scale and shift, no biases anywhere (Sreenivasan et al. 2022)
    gain    every weight is multiplied by it; where batch norm follows a layer, only its gradients feel it (Ramanujan et al. 2020)
    hidden  of a VGG: width of two hidden linear layers; theirs and the head's weights then have deviation 0.01 (Tanaka et al.)
    """
    channels, size = shape[0], min(shape[1:])
    one_of("model", name, MODELS)
    one_of("shortcut", shortcut, SHORTCUTS)
    one_of("model.init", init, INITS)
    if hidden and name not in VGGS:
        raise BenchError(f"model.hidden is {hidden}, but only {', '.join(VGGS)} can have hidden linear layers, not {name}")
    if name in VGGS and size < (32 if hidden else 16):
        raise BenchError(
            f"{name} halves the image {'five' if hidden else 'four'} times and needs {32 if hidden else 16} pixels, "
            f"not {size}: take a resnet, or other data"
        )
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation draws, only to be overwritten
        if name in RESNETS:
            model = ResNet(*RESNETS[name], shortcut, channels, classes)
        elif name in VGGS:
            model = VGG(VGGS[name], channels, size, classes, hidden)
        elif name == "mobilenet_v2":
            model = mobilenet_v2(channels, classes)
        elif name in PLAIN:
            model = Plain(*PLAIN[name], channels, size, classes)
        else:
            if (init, affine, gain) != (INITS[0], True, 1.0):
                raise BenchError(f"{name} has an initialisation of its own: leave out model.init, model.affine and model.gain")
            return vit(name, channels, size, classes, seed)
    generator = torch.Generator().manual_seed(seed_for(seed, "weights"))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if init == "glorot_normal":
                nn.init.xavier_normal_(module.weight, generator=generator)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if init == "signed_constant":
                fan_in = module.weight[0].numel()
                module.weight.data = torch.copysign(torch.full_like(module.weight, (2 / fan_in) ** 0.5), module.weight)
            elif hidden and isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01, generator=generator)
            module.weight.data *= gain
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if not affine and isinstance(module, nn.Linear | nn.BatchNorm2d):
            module.bias = None
            if isinstance(module, nn.BatchNorm2d):
                module.weight, module.affine = None, False
    return model
