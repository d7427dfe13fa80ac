"""Seventeen small nets of the well-known families, and their exports to ONNX.

Written for this repository after the papers, with all their joints: downsampling shortcuts,
squeeze-and-excitation, chunks, shuffles, skips. Every vector that could be forgotten on
removal is random: statistics and affine parts of norms, layer scales, slopes of PReLU.
Needs torch; the dynamo exporter also needs onnxscript. Knows nothing of onnx_shapprune, so
that it runs where the peers are installed.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

Exporter = Literal["TorchScript", "dynamo"]
BatchNorm = Literal["folded", "kept"]
Activation = Callable[[], nn.Module]

TORCHSCRIPT_OPSET = 17
INPUT, OUTPUT = "image", "output"


@dataclass(frozen=True)
class Net:
    """One net: ``last`` are the modules whose channels are the model's outputs.

    ``is_large``: of its real size, to take times with; it is none of the seventeen.
    """

    title: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    last: tuple[str, ...]
    is_large: bool = False


NETS: dict[str, Net] = {}


def net(
    name: str,
    title: str,
    shape: tuple[int, ...] = (3, 32, 32),
    last: tuple[str, ...] = ("head",),
    *,
    is_large: bool = False,
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Register a net."""

    def register(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        NETS[name] = Net(title, build, shape, last, is_large)
        return build

    return register


# --- parts -----------------------------------------------------------------------------


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    groups: int = 1,
    act: Activation | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution of the same size (less the stride), BatchNorm, activation."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (size[0] // 2, size[1] // 2)
    conv = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([act()] if act else []))


def depthwise(
    channels: int, kernel: int = 3, stride: int = 1, act: Activation | None = nn.ReLU
) -> nn.Sequential:
    return conv_bn(channels, channels, kernel, stride, groups=channels, act=act)


class Pooled(nn.Module):
    """Features, global average pooling, one linear layer."""

    def __init__(self, features: nn.Module, channels: int, classes: int = 10) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.flatten(self.pool(self.features(x)), 1))
        return logits


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate that sees all of them."""

    def __init__(
        self,
        channels: int,
        squeezed: int,
        act: Activation = nn.ReLU,
        gate: Activation = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = act()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))


# --- plain and residual ------------------------------------------------------------------


@net("vgg", "VGG-BN", last=("head.4",))
class Vgg(nn.Module):
    """Pairs of convolutions, pools, and a classifier of two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 16, 32, 32, 64, 64)
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(itertools.pairwise(widths)):
            layers.append(conv_bn(before, after))
            if index % 2:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


class Residual(nn.Module):
    """ReLU of body plus shortcut, which is projected where shapes change."""

    def __init__(self, body: nn.Module, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = body
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = conv_bn(inputs, outputs, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def stages(
    block: Callable[[int, int, int], nn.Module], inputs: int, widths: Sequence[int], depth: int
) -> Iterator[nn.Module]:
    """``depth`` blocks per width; all stages but the first halve the image."""
    for stage, width in enumerate(widths):
        for index in range(depth):
            yield block(inputs, width, 2 if stage and not index else 1)
            inputs = width


def basic_block(inputs: int, outputs: int, stride: int) -> nn.Module:
    body = [conv_bn(inputs, outputs, 3, stride), conv_bn(outputs, outputs, act=None)]
    return Residual(nn.Sequential(*body), inputs, outputs, stride)


@net("resnet-basic", "ResNet, basic blocks")
def resnet_basic() -> nn.Module:
    blocks = stages(basic_block, 16, (16, 32, 48, 64), 2)
    return Pooled(nn.Sequential(conv_bn(3, 16), *blocks), 64)


@net("resnet-18", "ResNet-18", shape=(3, 224, 224), is_large=True)
def resnet_18() -> nn.Module:
    stem = nn.Sequential(conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
    blocks = stages(basic_block, 64, (64, 128, 256, 512), 2)
    return Pooled(nn.Sequential(stem, *blocks), 512, 1000)


@net("resnet-bottleneck", "ResNet, bottlenecks")
def resnet_bottleneck() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        inner = outputs // 4
        body = [
            conv_bn(inputs, inner, 1),
            conv_bn(inner, inner, 3, stride),
            conv_bn(inner, outputs, 1, act=None),
        ]
        return Residual(nn.Sequential(*body), inputs, outputs, stride)

    stem = nn.Sequential(conv_bn(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1))
    return Pooled(nn.Sequential(stem, *stages(block, 16, (64, 96, 128), 2)), 128)


class PreActivation(nn.Module):
    """BatchNorm and ReLU before each convolution; the shortcut starts behind the first."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        added: Tensor = kept + self.conv2(torch.relu(self.norm2(self.conv1(active))))
        return added


@net("resnet-preact", "ResNet, pre-activation")
def resnet_preact() -> nn.Module:
    stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    end = (nn.BatchNorm2d(64), nn.ReLU())
    return Pooled(nn.Sequential(stem, *stages(PreActivation, 16, (16, 32, 64), 2), *end), 64)


# --- mobile --------------------------------------------------------------------------------


@net("mobilenet-v1", "MobileNetV1")
def mobilenet_v1() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        return nn.Sequential(depthwise(inputs, 3, stride), conv_bn(inputs, outputs, 1))

    stem = conv_bn(3, 16, 3, 2)
    return Pooled(nn.Sequential(stem, *stages(block, 16, (32, 48, 64), 2)), 64)


class Inverted(nn.Module):
    """Inverted residual: expand, depthwise, maybe squeeze-and-excitation, project."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        expansion: int = 4,
        kernel: int = 3,
        act: Activation = nn.ReLU6,
        excite: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [conv_bn(inputs, inner, 1, act=act)] if expansion > 1 else []
        middle = [depthwise(inner, kernel, stride, act), *([excite(inner)] if excite else [])]
        self.body = nn.Sequential(*expand, *middle, conv_bn(inner, outputs, 1, act=None))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return x + found if self.adds else found


@net("mobilenet-v2", "MobileNetV2")
def mobilenet_v2() -> nn.Module:
    first = Inverted(16, 16, 1, expansion=1)
    blocks = stages(Inverted, 16, (16, 24, 32), 2)
    stem, end = conv_bn(3, 16, 3, 2, act=nn.ReLU6), conv_bn(32, 64, 1, act=nn.ReLU6)
    return Pooled(nn.Sequential(stem, first, *blocks, end), 64)


@net("mobilenet-v3", "MobileNetV3 (SE, hard swish)", last=("head.3",))
class MobileNetV3(nn.Module):
    """Hard swish and hard sigmoid, 5×5 kernels, a classifier of two layers."""

    def __init__(self) -> None:
        super().__init__()
        swish: Activation = nn.Hardswish

        def excite(channels: int) -> nn.Module:
            return SqueezeExcite(channels, channels // 4, gate=nn.Hardsigmoid)

        self.features = nn.Sequential(
            conv_bn(3, 16, 3, 2, act=swish),
            Inverted(16, 16, 1, 1, act=nn.ReLU, excite=excite),
            Inverted(16, 24, 2, act=nn.ReLU),
            Inverted(24, 24, 1, act=nn.ReLU),
            Inverted(24, 40, 2, 4, 5, swish, excite),
            Inverted(40, 40, 1, 4, 5, swish, excite),
            conv_bn(40, 64, 1, act=swish),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(
            nn.Linear(64, 64), nn.Hardswish(), nn.Dropout(), nn.Linear(64, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.flatten(self.pool(self.features(x)), 1))
        return logits


@net("efficientnet", "EfficientNet-like (SE, swish)")
def efficientnet() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int, kernel: int, expansion: int) -> nn.Module:
        def excite(channels: int) -> nn.Module:
            return SqueezeExcite(channels, inputs // 4, act=nn.SiLU)

        return Inverted(inputs, outputs, stride, expansion, kernel, nn.SiLU, excite)

    blocks = [
        block(16, 16, 1, 3, 1),
        block(16, 24, 2, 3, 4),
        block(24, 24, 1, 3, 4),
        block(24, 40, 2, 5, 4),
        block(40, 40, 1, 5, 4),
    ]
    stem, end = conv_bn(3, 16, 3, 2, act=nn.SiLU), conv_bn(40, 64, 1, act=nn.SiLU)
    return Pooled(nn.Sequential(stem, *blocks, end), 64)


# --- concatenation and splitting -----------------------------------------------------------


class DenseLayer(nn.Module):
    """A bottleneck whose few new channels are put behind all earlier ones."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(4 * growth)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat((x, self.conv2(torch.relu(self.norm2(inner)))), 1)


@net("densenet", "DenseNet")
def densenet() -> nn.Module:
    channels, growth = 24, 12
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, 1, 1, bias=False)]
    for block in range(3):
        for _ in range(4):
            layers.append(DenseLayer(channels, growth))
            channels += growth
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        if block < 2:
            halved = nn.Conv2d(channels, channels // 2, 1, bias=False)
            layers += [halved, nn.AvgPool2d(2)]
            channels //= 2
    return Pooled(nn.Sequential(*layers), channels)


class Branches(nn.Module):
    """Branches side by side, concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


@net("inception", "Inception")
def inception() -> nn.Module:
    def block(inputs: int, width: int) -> nn.Module:
        pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        return Branches(
            conv_bn(inputs, width, 1),
            nn.Sequential(conv_bn(inputs, 16, 1), conv_bn(16, width, 5)),
            nn.Sequential(conv_bn(inputs, 16, 1), conv_bn(16, 24), conv_bn(24, width)),
            nn.Sequential(pool, conv_bn(inputs, 16, 1)),
        )

    long = [conv_bn(64, 24, 1), conv_bn(24, 24, (1, 7)), conv_bn(24, 32, (7, 1))]
    reduction = Branches(
        conv_bn(64, 32, 3, 2), nn.Sequential(*long, conv_bn(32, 32, 3, 2)), nn.MaxPool2d(3, 2, 1)
    )
    stem = nn.Sequential(conv_bn(3, 16), conv_bn(16, 32), nn.MaxPool2d(3, 2, 1))
    return Pooled(nn.Sequential(stem, block(32, 16), reduction, block(128, 24)), 88)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channel k of every group beside channel k of the others."""
    batch, channels, height, width = x.size()
    apart = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(apart, 1, 2).contiguous().view(batch, -1, height, width)


class ShuffleUnit(nn.Module):
    """ShuffleNet's unit: grouped 1×1, shuffle, depthwise, grouped 1×1, join."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int = 4) -> None:
        super().__init__()
        inner, made = outputs // 4, outputs - inputs if stride > 1 else outputs
        first = groups if inputs > 24 else 1  # as in the paper: the first one isn't grouped
        self.groups, self.joins = groups, stride > 1
        self.squeeze = conv_bn(inputs, inner, 1, groups=first)
        self.middle = depthwise(inner, 3, stride, act=None)
        self.expand = conv_bn(inner, made, 1, groups=groups, act=None)
        self.pool = nn.AvgPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = self.expand(self.middle(shuffled(self.squeeze(x), self.groups)))
        joined = torch.cat((self.pool(x), found), 1) if self.joins else x + found
        return torch.relu(joined)


@net("shufflenet", "ShuffleNet (grouped, shuffle)")
def shufflenet() -> nn.Module:
    units = [
        ShuffleUnit(24, 64, 2),
        ShuffleUnit(64, 64, 1),
        ShuffleUnit(64, 128, 2),
        ShuffleUnit(128, 128, 1),
    ]
    return Pooled(nn.Sequential(conv_bn(3, 24), *units), 128)


class Res2Block(nn.Module):
    """A bottleneck whose inner channels are split; each part also sees the one before."""

    def __init__(self, inputs: int, outputs: int, stride: int, parts: int = 4) -> None:
        super().__init__()
        self.width, self.stride = outputs // 8, stride
        self.first = conv_bn(inputs, self.width * parts, 1)
        self.inner = nn.ModuleList(
            conv_bn(self.width, self.width, 3, stride) for _ in range(parts - 1)
        )
        self.pool = nn.AvgPool2d(3, stride, 1)
        self.last = conv_bn(self.width * parts, outputs, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        *parts, rest = torch.split(self.first(x), self.width, 1)
        found: list[Tensor] = []
        for part, conv in zip(parts, self.inner, strict=True):
            sees_before = found and self.stride == 1
            found.append(conv(part + found[-1] if sees_before else part))
        found.append(rest if self.stride == 1 else self.pool(rest))
        joined: Tensor = self.last(torch.cat(found, 1))
        return joined


@net("res2net", "Res2Net-like (split, concat)")
def res2net() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        return Residual(Res2Block(inputs, outputs, stride), inputs, outputs, stride)

    return Pooled(nn.Sequential(conv_bn(3, 32), *stages(block, 32, (64, 96), 2)), 96)


# --- detection -----------------------------------------------------------------------------


class C2f(nn.Module):
    """YOLOv8's block: two chunks, a chain of bottlenecks on the second, all concatenated."""

    def __init__(self, inputs: int, outputs: int, depth: int = 1, adds: bool = True) -> None:
        super().__init__()
        width = outputs // 2
        self.first = conv_bn(inputs, 2 * width, 1, act=nn.SiLU)
        self.last = conv_bn((2 + depth) * width, outputs, 1, act=nn.SiLU)
        self.adds = adds
        self.chain = nn.ModuleList(
            nn.Sequential(conv_bn(width, width, act=nn.SiLU), conv_bn(width, width, act=nn.SiLU))
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.chain:
            found = block(parts[-1])
            parts.append(parts[-1] + found if self.adds else found)
        joined: Tensor = self.last(torch.cat(parts, 1))
        return joined


class Sppf(nn.Module):
    """Three pools in a row, concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn(channels, channels // 2, 1, act=nn.SiLU)
        self.last = conv_bn(2 * channels, channels, 1, act=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        joined: Tensor = self.last(torch.cat(parts, 1))
        return joined


class Detect(nn.Module):
    """YOLOv8's head: boxes as distributions, their expectation by a 1×1 convolution."""

    def __init__(self, widths: Sequence[int], classes: int = 5, bins: int = 8) -> None:
        super().__init__()
        self.classes, self.bins = classes, bins
        self.boxes = nn.ModuleList(self.branch(width, 4 * bins) for width in widths)
        self.kinds = nn.ModuleList(self.branch(width, classes) for width in widths)
        self.expectation = nn.Conv2d(bins, 1, 1, bias=False)
        self.expectation.weight.data[:] = torch.arange(bins).view(1, bins, 1, 1)

    @staticmethod
    def branch(inputs: int, outputs: int) -> nn.Module:
        inner = [conv_bn(inputs, 16, act=nn.SiLU), conv_bn(16, 16, act=nn.SiLU)]
        return nn.Sequential(*inner, nn.Conv2d(16, outputs, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        found = [
            torch.cat((box(x), kind(x)), 1)
            for x, box, kind in zip(maps, self.boxes, self.kinds, strict=True)
        ]
        batch, channels = found[0].shape[:2]
        flat = torch.cat([x.view(batch, channels, -1) for x in found], 2)
        box, kind = flat.split((4 * self.bins, self.classes), 1)
        apart = box.view(batch, 4, self.bins, -1).transpose(2, 1).softmax(1)
        return torch.cat((self.expectation(apart).view(batch, 4, -1), kind.sigmoid()), 1)


@net(
    "yolo",
    "YOLO (C2f, SPPF, detection head)",
    last=(
        *("head.boxes.0.2", "head.boxes.1.2", "head.kinds.0.2", "head.kinds.1.2"),
        "head.expectation",
    ),
)
class Yolo(nn.Module):
    """A backbone, a neck that goes up and down, two scales."""

    def __init__(self) -> None:
        super().__init__()
        swish: Activation = nn.SiLU
        down = conv_bn(16, 32, 3, 2, act=swish)
        self.fine = nn.Sequential(conv_bn(3, 16, 3, 2, act=swish), down, C2f(32, 32, 2))
        self.coarse = nn.Sequential(conv_bn(32, 64, 3, 2, act=swish), C2f(64, 64), Sppf(64))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge_fine = C2f(96, 32, adds=False)
        self.down = conv_bn(32, 32, 3, 2, act=swish)
        self.merge_coarse = C2f(96, 64, adds=False)
        self.head = Detect((32, 64))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        coarse = self.coarse(fine)
        fine = self.merge_fine(torch.cat((self.up(coarse), fine), 1))
        coarse = self.merge_coarse(torch.cat((self.down(fine), coarse), 1))
        detected: Tensor = self.head((fine, coarse))
        return detected


# --- images to images ------------------------------------------------------------------------


@net("unet", "U-Net (ConvTranspose, skips)")
class UNet(nn.Module):
    """Pairs of convolutions down and up, skips concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self.pair(3, 16), self.pair(16, 32)])
        self.middle = self.pair(32, 64)
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)]
        )
        self.merge = nn.ModuleList([self.pair(64, 32), self.pair(32, 16)])
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(16, 2, 1)

    @staticmethod
    def pair(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(conv_bn(inputs, outputs), conv_bn(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for pair in self.down:
            skips.append(pair(x))
            x = self.pool(skips[-1])
        x = self.middle(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat((skips.pop(), up(x)), 1))
        mask: Tensor = self.head(x)
        return mask


@net("super-resolution", "SRResNet (PixelShuffle, PReLU)")
class SuperResolution(nn.Module):
    """Residual blocks without downsampling, one long skip, two pixel shuffles."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 9, 1, 4), nn.PReLU(width))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                conv_bn(width, width, act=lambda: nn.PReLU(width)),
                conv_bn(width, width, act=None),
            )
            for _ in range(3)
        )
        self.after = conv_bn(width, width, act=None)
        self.up = nn.Sequential(
            *(nn.Conv2d(width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU()),
            *(nn.Conv2d(width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU()),
        )
        self.head = nn.Conv2d(width, 3, 9, 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        start = found = self.stem(x)
        for block in self.blocks:
            found = found + block(found)
        image: Tensor = self.head(self.up(start + self.after(found)))
        return image


# --- LayerNorm and attention -------------------------------------------------------------------


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of an image."""

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7×7, LayerNorm and two linear layers with the channels last, layer scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, 1, 3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.project = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        found = self.scale * self.project(self.act(self.expand(inner)))
        return x + found.permute(0, 3, 1, 2)


@net("convnext", "ConvNeXt-like (LayerNorm)")
class ConvNeXt(nn.Module):
    """Patches, two stages, LayerNorm before every change of size."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 32, 4, 4), LayerNorm2d(32, eps=1e-6)),
            *(ConvNeXtBlock(32), ConvNeXtBlock(32)),
            *(LayerNorm2d(32, eps=1e-6), nn.Conv2d(32, 64, 2, 2)),
            *(ConvNeXtBlock(64), ConvNeXtBlock(64)),
        )
        self.norm = nn.LayerNorm(64, eps=1e-6)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.features(x).mean((-2, -1))))
        return logits


class Attention(nn.Module):
    """Self-attention with several heads, q, k and v from one product."""

    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, channels = x.shape
        parts = self.qkv(x).reshape(batch, steps, 3, self.heads, channels // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        found: Tensor = self.project((weights @ v).transpose(1, 2).reshape(batch, steps, channels))
        return found


@net("crnn", "CRNN (GRU, attention)", shape=(1, 32, 64))
class Crnn(nn.Module):
    """Reads a line of text: columns of an image as steps, GRU both ways, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(conv_bn(1, 16), nn.MaxPool2d(2)),
            *(conv_bn(16, 32), nn.MaxPool2d(2)),
            *(conv_bn(32, 48), nn.MaxPool2d((2, 1))),
            *(conv_bn(48, 64), nn.MaxPool2d((2, 1))),
            *(nn.Conv2d(64, 64, 2), nn.ReLU()),
        )
        self.gru = nn.GRU(64, 32, bidirectional=True, batch_first=True)
        self.attention = Attention(64)
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 20)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.features(x).squeeze(2).permute(0, 2, 1)
        read = self.gru(steps)[0]
        logits: Tensor = self.head(self.norm(read + self.attention(read)))
        return logits


# --- random where it counts --------------------------------------------------------------------


def build(name: str) -> nn.Module:
    """The net with seeded weights, ready for inference."""
    torch.manual_seed(list(NETS).index(name))
    module = NETS[name].build()
    with torch.no_grad():
        for part in module.modules():
            _season(part)
        module.train()
        module(images(name, 16))  # statistics as they are, so that values stay in range
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean += 0.1 * torch.randn_like(part.running_mean)
                part.running_var *= torch.empty_like(part.running_var).uniform_(0.8, 1.25)
    return module.eval()


def _season(part: nn.Module) -> None:
    """Random affine parts; BatchNorm takes over the next statistics whole."""
    if isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
        nn.init.uniform_(part.weight, 0.5, 1.5)
        nn.init.normal_(part.bias, std=0.3)
    if isinstance(part, nn.BatchNorm2d):
        part.momentum = 1.0
    if isinstance(part, nn.PReLU):
        nn.init.uniform_(part.weight, 0.05, 0.4)
    if isinstance(part, ConvNeXtBlock):
        nn.init.uniform_(part.scale, 0.2, 1.0)


def images(name: str, count: int, seed: int = 0) -> Tensor:
    """Random inputs."""
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(count, *NETS[name].shape, generator=chance)


# --- export ----------------------------------------------------------------------------------


def export(
    module: nn.Module, name: str, exporter: Exporter, batchnorm: BatchNorm, path: Path
) -> None:
    """Write ``module`` as ONNX, with a dynamic batch where the exporter can do that."""
    write = _torchscript if exporter == "TorchScript" else _dynamo
    try:
        _quietly(lambda: write(module, images(name, 2), batchnorm, path, dynamic=True))
    except Exception:  # the exporters' errors have no common base
        _quietly(lambda: write(module, images(name, 1), batchnorm, path, dynamic=False))


def _torchscript(
    module: nn.Module, example: Tensor, batchnorm: BatchNorm, path: Path, *, dynamic: bool
) -> None:
    kept = batchnorm == "kept"
    modes = torch.onnx.TrainingMode
    torch.onnx.export(
        module,
        (example,),
        path,
        dynamo=False,
        opset_version=TORCHSCRIPT_OPSET,
        input_names=[INPUT],
        output_names=[OUTPUT],
        training=modes.PRESERVE if kept else modes.EVAL,
        do_constant_folding=not kept,
        dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}} if dynamic else None,
    )


def _dynamo(
    module: nn.Module, example: Tensor, batchnorm: BatchNorm, path: Path, *, dynamic: bool
) -> None:
    torch.onnx.export(
        module,
        (example,),
        path,
        dynamo=True,
        optimize=batchnorm == "folded",
        external_data=False,
        verbose=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch")},) if dynamic else None,
    )


def _quietly(call: Callable[[], None]) -> None:
    """Without the warnings and the chatter of the exporters."""
    noise = io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(noise),
            contextlib.redirect_stderr(noise),
        ):
            warnings.simplefilter("ignore")
            call()
    finally:
        logging.disable(logging.NOTSET)
