"""VGG with BatchNorm (Simonyan & Zisserman 2015) and one linear layer, for small images: vgg8 to vgg19.

Block 0 is the stem, blocks 1 to 4 the stages; a map is taken before the max-pool that follows its block. Maps of
4x4 or less are not pooled further: 32x32 inputs see three max-pools, 64x64 ones four, 8x8 ones a single one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bench.models.base import Network, Tap, fan_out_normal

DEPTHS = {
    "vgg8": (1, 1, 1, 1, 1),
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
NAMES = tuple(DEPTHS)
WIDTHS = (64, 128, 256, 512, 512)


def block(n_in: int, width: int, depth: int) -> nn.Sequential:
    """Convolutions with BatchNorm and ReLU, without the last ReLU."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(n_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        n_in = width
    return nn.Sequential(*layers[:-1])


class VGG(Network):
    fast_in_channels_last = False  # its max pooling goes backward slowly in it

    def __init__(self, arch: str, in_channels: int, size: int, n_classes: int) -> None:
        super().__init__(arch, in_channels, size, n_classes, relu=(True,) * 5)
        for i, (n_in, width) in enumerate(zip((in_channels, *WIDTHS), WIDTHS, strict=False)):
            self.add_module(f"block{i}", block(n_in, width, DEPTHS[arch][i]))
        self.classifier = nn.Linear(WIDTHS[-1], n_classes)
        fan_out_normal(self, linear_std=0.01)

    def stem(self, x: Tensor) -> Tap:
        f = F.relu(self.get_submodule("block0")(x), inplace=True)
        return f, f  # the reference shows the stem's output in both lists

    def stage(self, i: int, f: Tensor) -> Tap:
        if f.shape[-1] > 4:
            f = F.max_pool2d(f, 2)
        preact = getattr(self, f"block{i}")(f)
        return F.relu(preact), preact

    def norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        return tuple(self.get_submodule(f"block{i}")[-1] for i in range(5))  # type: ignore[index]

    def head(self, f: Tensor) -> tuple[Tensor, Tensor]:
        pooled = f.mean((2, 3))
        return self.classifier(pooled), pooled


def make(name: str, in_channels: int, size: int, n_classes: int) -> Network | None:
    """The network of that name, or None where the name is no VGG's."""
    return VGG(name, in_channels, size, n_classes) if name in DEPTHS else None
