"""Residual networks for small images (He et al. 2016), with the public checkpoints' tensor names.

Three-stage ones (basic blocks): `resnet{6n+2}`, `resnet{6n+2}x{k}` (stem 8k, stages 16k, 32k, 64k), and
`resnet{6n+2}w{a}` (a, a, 2a, 4a). Four-stage ones (64 to 512 channels): `ResNet18`, `ResNet50`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.base import Network, Tap, affordable, nearest_depths

NAMES = (
    *("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"),
    *("resnet8x4", "resnet32x4", "ResNet18", "ResNet50"),
)
FOUR_STAGES = {"ResNet18": ((2, 2, 2, 2), False), "ResNet50": ((3, 4, 6, 3), True)}


def conv(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """A residual block up to the sum; the ReLU after it is the stage's, which shows both."""

    def __init__(self, n_in: int, width: int, stride: int, bottleneck: bool, shortcut: str) -> None:
        super().__init__()
        n_out = width * 4 if bottleneck else width
        if bottleneck:
            self.conv1, self.bn1 = conv(n_in, width, 1), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
            self.conv3, self.bn3 = conv(width, n_out, 1), nn.BatchNorm2d(n_out)
        else:
            self.conv1, self.bn1 = conv(n_in, width, 3, stride), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.bottleneck = bottleneck
        self.shortcut_name = shortcut if stride != 1 or n_in != n_out else ""
        if self.shortcut_name:
            self.add_module(shortcut, nn.Sequential(conv(n_in, n_out, 1, stride), nn.BatchNorm2d(n_out)))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        if self.bottleneck:
            out = self.bn3(self.conv3(F.relu(out, inplace=True)))
        return out + (getattr(self, self.shortcut_name)(x) if self.shortcut_name else x)


class ResNet(Network):
    def __init__(
        self,
        arch: str,
        in_channels: int,
        size: int,
        n_classes: int,
        *,
        depths: Sequence[int],
        stem: int,
        widths: Sequence[int],
        bottleneck: bool = False,
        shortcut: str = "downsample",
        linear: str = "fc",
    ) -> None:
        super().__init__(arch, in_channels, size, n_classes, relu=(True,) * (len(depths) + 1))
        self.conv1, self.bn1 = conv(in_channels, stem, 3), nn.BatchNorm2d(stem)
        n_in = stem
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            blocks = []
            for j in range(depth):
                blocks.append(Block(n_in, width, 2 if i > 1 and j == 0 else 1, bottleneck, shortcut))
                n_in = width * 4 if bottleneck else width
            self.add_module(f"layer{i}", nn.Sequential(*blocks))
        self.linear_name = linear
        self.add_module(linear, nn.Linear(n_in, n_classes))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, x: Tensor) -> Tap:
        f = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return f, f  # the reference shows the stem's output in both lists

    def stage(self, i: int, f: Tensor) -> Tap:
        blocks = getattr(self, f"layer{i}")
        last = len(blocks) - 1
        for j, block in enumerate(blocks):
            preact = block(f)
            f = F.relu(preact, inplace=j < last)  # the last sum is a tap, and stays
        return f, preact

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        blocks = [getattr(self, f"layer{i}")[-1] for i in range(1, self.n_stages + 1)]
        return (self.bn1, *(block.bn3 if block.bottleneck else block.bn2 for block in blocks))

    def head(self, f: Tensor) -> tuple[Tensor, Tensor]:
        pooled = f.mean((2, 3))
        return getattr(self, self.linear_name)(pooled), pooled


def make(name: str, in_channels: int, size: int, n_classes: int) -> Network | None:
    """The network of that name, or None where the name is no ResNet's."""
    if name in FOUR_STAGES:
        depths, bottleneck = FOUR_STAGES[name]
        return ResNet(
            *(name, in_channels, size, n_classes),
            depths=depths,
            stem=64,
            widths=(64, 128, 256, 512),
            bottleneck=bottleneck,
            shortcut="shortcut",
            linear="linear",
        )
    match = re.fullmatch(r"resnet([1-9]\d{0,3})(?:([xw])([1-9]\d{0,3}))?", name)
    if match is None:
        return None
    depth, kind, k = int(match[1]), match[2], int(match[3] or 1)
    if depth < 8 or depth % 6 != 2:
        raise nearest_depths(name, depth, 6, 2, 8)
    stem, first = {None: (16, 16), "x": (8 * k, 16 * k), "w": (k, k)}[kind]
    widths = (first, 2 * first, 4 * first)
    affordable(name, (depth - 2) / 6 * 18 * sum(width**2 for width in widths))
    return ResNet(name, in_channels, size, n_classes, depths=((depth - 2) // 6,) * 3, stem=stem, widths=widths)
