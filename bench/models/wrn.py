"""Wide residual networks (Zagoruyko & Komodakis 2016): `wrn_{6n+4}_{k}`, stages of 16k, 32k, 64k channels.

The maps are raw residual sums. The one before the ReLU of stage i is what the next stage's first BatchNorm makes of
it; each BatchNorm runs once per forward pass, and that value is both the tap and the next stage's input.
"""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.base import Network, Tap, affordable, fan_out_normal, nearest_depths
from bench.models.resnet import conv
from methods.base import Out

NAMES = ("wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2")


class Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(n_in), conv(n_in, n_out, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(n_out), conv(n_out, n_out, 3)
        self.convShortcut = conv(n_in, n_out, 1, stride) if n_in != n_out else None

    def forward(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        """`normed`: bn1(x), where it was computed already (and is a tap, so not to be overwritten)."""
        out = F.relu(self.bn1(x), inplace=True) if normed is None else F.relu(normed)
        identity = x if self.convShortcut is None else self.convShortcut(out)
        return identity + self.conv2(F.relu(self.bn2(self.conv1(out)), inplace=True))


class Stage(nn.Module):
    def __init__(self, depth: int, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        first = Block(n_in, n_out, stride)
        self.layer = nn.Sequential(first, *(Block(n_out, n_out, 1) for _ in range(depth - 1)))


class WideResNet(Network):
    def __init__(self, arch: str, in_channels: int, size: int, n_classes: int, *, depth: int, k: int) -> None:
        super().__init__(arch, in_channels, size, n_classes, relu=(False,) * 4)
        self.conv1 = conv(in_channels, 16, 3)
        self.block1 = Stage(depth, 16, 16 * k, 1)
        self.block2 = Stage(depth, 16 * k, 32 * k, 2)
        self.block3 = Stage(depth, 32 * k, 64 * k, 2)
        self.bn1 = nn.BatchNorm2d(64 * k)
        self.fc = nn.Linear(64 * k, n_classes)
        fan_out_normal(self, linear_std=None)

    def forward(self, x: Tensor) -> Out:
        f = self.conv1(x)
        feats, preacts = [f], [f]  # the reference shows the stem's output in both lists
        for i in range(1, 4):
            normed = self._norm(i)(f)
            if i > 1:
                preacts.append(normed)
            f = self._stage(i, f, normed)
            feats.append(f)
        preacts.append(self.bn1(f))
        pooled = F.relu(preacts[-1]).mean((2, 3))
        return Out(self.fc(pooled), tuple(feats), tuple(preacts), pooled)

    def stage(self, i: int, f: Tensor) -> Tap:
        return self._stage(i, f, self._norm(i)(f)), None

    def head(self, f: Tensor) -> tuple[Tensor, Tensor]:
        pooled = F.relu(self.bn1(f), inplace=True).mean((2, 3))
        return self.fc(pooled), pooled

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        return (None, self._norm(2), self._norm(3), self.bn1)

    def _norm(self, i: int) -> nn.BatchNorm2d:
        """The BatchNorm that opens stage i."""
        return getattr(self, f"block{i}").layer[0].bn1

    def _stage(self, i: int, f: Tensor, normed: Tensor) -> Tensor:
        first, *rest = getattr(self, f"block{i}").layer
        f = first(f, normed)
        for block in rest:
            f = block(f)
        return f


def make(name: str, in_channels: int, size: int, n_classes: int) -> Network | None:
    """The network of that name, or None where the name is no wide ResNet's."""
    match = re.fullmatch(r"wrn_([1-9]\d{0,3})_([1-9]\d{0,3})", name)
    if match is None:
        return None
    depth, k = int(match[1]), int(match[2])
    if depth < 10 or depth % 6 != 4:
        raise nearest_depths(name, depth, 6, 4, 10)
    affordable(name, (depth - 4) / 6 * 18 * sum((width * k) ** 2 for width in (16, 32, 64)))
    return WideResNet(name, in_channels, size, n_classes, depth=(depth - 4) // 6, k=k)
