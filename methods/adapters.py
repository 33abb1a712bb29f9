"""Modules that fit a student's maps to a teacher's, shared by several methods."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Dims, Refusal

Size = tuple[int, int]
"""Height, width."""


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm2d that also answers where one value per channel leaves no variance: from its running statistics.

    Only a batch of one example on a 1x1 map is such a case, where torch raises; every other number is torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def is_double(large: Size, small: Size) -> bool:
    return large[0] == 2 * small[0] and large[1] == 2 * small[1]


def smaller(a: Size, b: Size) -> Size:
    """The smaller of two sizes, side by side."""
    return min(a[0], b[0]), min(a[1], b[1])


def shrink(x: Tensor, size: Size) -> Tensor:
    """Adaptive average pooling of x: [B, D, H, W] to `size`; x itself where it has that size."""
    return x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size)


def match_sizes(fs: Tensor, ft: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the smaller of their sizes. fs: [B, D, H, W]; ft: [B, D', H', W']."""
    size = smaller((fs.shape[2], fs.shape[3]), (ft.shape[2], ft.shape[3]))
    return shrink(fs, size), shrink(ft, size)


def stage_pairs(dims: Dims) -> list[tuple[int, int]]:
    """Stages (student's, teacher's) that belong together, shallow to deep, aligned at the deepest."""
    n = min(dims.student.n_stages, dims.teacher.n_stages)
    return [(dims.student.n_stages - k, dims.teacher.n_stages - k) for k in reversed(range(n))]


def require_stages(name: str, dims: Dims) -> None:
    """Refuse a pair with a network that has no stages."""
    if min(dims.student.n_stages, dims.teacher.n_stages) < 1:
        raise Refusal(f"{name} compares the maps of stages; one of these networks has none")
