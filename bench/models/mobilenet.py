"""MobileNetV2 (Sandler et al. 2018) at half width, expansion 6, for small images.

Its maps are the linear bottlenecks' outputs: no ReLU ends a stage, so there is no map before one.
"""

from __future__ import annotations

from torch import Tensor, nn

from bench.models.base import Network, Tap, fan_out_normal

NAMES = ("MobileNetV2",)
STEM, LAST = 16, 1280
GROUPS = (  # expansion, channels, blocks, first stride
    (1, 8, 1, 1),
    (6, 12, 2, 1),
    (6, 16, 3, 2),
    (6, 32, 4, 2),
    (6, 48, 3, 1),
    (6, 80, 3, 2),
    (6, 160, 1, 1),
)
STAGES = ((0, 1), (2,), (3, 4), (5, 6))  # which groups make stage 1..4


def conv_bn_relu(n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]


class Bottleneck(nn.Module):
    """Widen, filter by depth, narrow without a ReLU; a sum where the shape stays."""

    def __init__(self, n_in: int, n_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = n_in * expansion
        narrow = conv_bn_relu(width, n_out, 1)[:2]
        self.conv = nn.Sequential(
            *conv_bn_relu(n_in, width, 1), *conv_bn_relu(width, width, 3, stride, groups=width), *narrow
        )
        self.residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(Network):
    def __init__(self, arch: str, in_channels: int, size: int, n_classes: int) -> None:
        super().__init__(arch, in_channels, size, n_classes, relu=(True, False, False, False, False))
        self.conv1 = nn.Sequential(*conv_bn_relu(in_channels, STEM, 3, 2))
        groups, n_in = [], STEM
        for expansion, width, depth, stride in GROUPS:
            blocks = []
            for j in range(depth):
                blocks.append(Bottleneck(n_in, width, stride if j == 0 else 1, expansion))
                n_in = width
            groups.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*groups)
        self.conv2 = nn.Sequential(*conv_bn_relu(n_in, LAST, 1))
        self.classifier = nn.Sequential(nn.Linear(LAST, n_classes))
        fan_out_normal(self, linear_std=0.01)

    def stem(self, x: Tensor) -> Tap:
        return self.conv1(x), None

    def stage(self, i: int, f: Tensor) -> Tap:
        for group in STAGES[i - 1]:
            f = self.blocks[group](f)
        return f, None

    def head(self, f: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.conv2(f).mean((2, 3))
        return self.classifier(pooled), pooled


def make(name: str, in_channels: int, size: int, n_classes: int) -> Network | None:
    """The network of that name, or None where it is another's."""
    return MobileNetV2(name, in_channels, size, n_classes) if name in NAMES else None
