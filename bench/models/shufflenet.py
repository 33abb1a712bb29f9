"""ShuffleNet V1 (Zhang et al. 2018; 3 groups, 240 to 960 channels) and V2 (Ma et al. 2018; 1x), for small images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.base import Network, Tap

NAMES = ("ShuffleV1", "ShuffleV2")
STEM, DEPTHS = 24, (4, 8, 4)


def conv(n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """The channels dealt out over the groups: channel g·n + j goes to j·groups + g."""
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class UnitV1(nn.Module):
    """A V1 unit before its last ReLU. With stride 2 the pooled input is appended, not added."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        n_new = n_out - n_in if stride == 2 else n_out
        width = n_new // 4
        self.groups = 1 if n_in == STEM else 3
        self.conv1, self.bn1 = conv(n_in, width, 1, groups=self.groups), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride, groups=width), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, n_new, 1, groups=3), nn.BatchNorm2d(n_new)

    def forward(self, x: Tensor) -> Tensor:
        out = shuffle(F.relu(self.bn1(self.conv1(x)), inplace=True), self.groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)), inplace=True)))
        return out + x if self.stride == 1 else torch.cat([out, F.avg_pool2d(x, 3, 2, 1)], 1)


class DownV2(nn.Module):
    """Halves the map: two branches on the whole input, joined and shuffled, before their common ReLU."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        half = n_out // 2
        self.conv1, self.bn1 = conv(n_in, n_in, 3, 2, groups=n_in), nn.BatchNorm2d(n_in)
        self.conv2, self.bn2 = conv(n_in, half, 1), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = conv(n_in, half, 1), nn.BatchNorm2d(half)
        self.conv4, self.bn4 = conv(half, half, 3, 2, groups=half), nn.BatchNorm2d(half)
        self.conv5, self.bn5 = conv(half, half, 1), nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        right = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)), inplace=True)))
        return shuffle(torch.cat([left, self.bn5(self.conv5(right))], 1), 2)


class UnitV2(nn.Module):
    """Half the channels pass by, half are convolved; joined and shuffled, before the ReLU.

    The passing half comes out of a ReLU, so one ReLU after the join gives the same as one on the other half alone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.conv1, self.bn1 = conv(half, half, 1), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = conv(half, half, 3, groups=half), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = conv(half, half, 1), nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        passing, out = x.chunk(2, 1)
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(out)), inplace=True)))
        return shuffle(torch.cat([passing, self.bn3(self.conv3(out))], 1), 2)


class ShuffleNet(Network):
    def __init__(self, arch: str, in_channels: int, size: int, n_classes: int) -> None:
        super().__init__(arch, in_channels, size, n_classes, relu=(True,) * 4)
        v1 = arch == "ShuffleV1"
        self.conv1, self.bn1 = conv(in_channels, STEM, 1), nn.BatchNorm2d(STEM)
        n_in = STEM
        for i, (depth, width) in enumerate(zip(DEPTHS, (240, 480, 960) if v1 else (116, 232, 464), strict=True)):
            down: nn.Module = UnitV1(n_in, width, 2) if v1 else DownV2(n_in, width)
            unit: Callable[[], nn.Module] = _repeat(v1, width)
            self.add_module(f"layer{i + 1}", nn.Sequential(down, *(unit() for _ in range(depth - 1))))
            n_in = width
        if not v1:
            self.conv2, self.bn2 = conv(n_in, 1024, 1), nn.BatchNorm2d(1024)
        self.linear = nn.Linear(n_in if v1 else 1024, n_classes)

    def stem(self, x: Tensor) -> Tap:
        f = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return f, f  # the reference shows the stem's output in both lists

    def stage(self, i: int, f: Tensor) -> Tap:
        units = getattr(self, f"layer{i}")
        last = len(units) - 1
        for j, unit in enumerate(units):
            preact = unit(f)
            f = F.relu(preact, inplace=j < last)  # the last one is a tap, and stays
        return f, preact

    def head(self, f: Tensor) -> tuple[Tensor, Tensor]:
        if self.arch == "ShuffleV2":
            f = F.relu(self.bn2(self.conv2(f)), inplace=True)
        pooled = f.mean((2, 3))
        return self.linear(pooled), pooled


def _repeat(v1: bool, width: int) -> Callable[[], nn.Module]:
    return (lambda: UnitV1(width, width, 1)) if v1 else (lambda: UnitV2(width))


def make(name: str, in_channels: int, size: int, n_classes: int) -> Network | None:
    """The network of that name, or None where it is another's."""
    return ShuffleNet(name, in_channels, size, n_classes) if name in NAMES else None
