"""Knowledge review: a stage of the teacher supervises all stages of the student up to its depth, fused."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.adapters import BatchNorm, Size, require_stages, stage_pairs
from methods.base import Dims, Float, Int, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy


def hcl(fs: Tensor, ft: Tensor) -> Tensor:
    """Hierarchical context loss: squared differences at full size and pooled to 4, 2 and 1. arXiv 2104.09044.

    fs, ft: [B, D, H, W] float → [B]. A level below H weighs half of the one before it; the weights sum to 1.
    """
    difference = fs - ft  # pooled once for both: pooling is linear
    total, weights, weight = _mean_square(difference), 1.0, 1.0
    for level in (4, 2, 1):
        if level < fs.shape[2]:
            weight /= 2
            total = total + weight * _mean_square(F.adaptive_avg_pool2d(difference, level))
            weights += weight
    return total / weights


def _mean_square(difference: Tensor) -> Tensor:
    return difference.square().flatten(1).mean(dim=1)


class Fusion(nn.Module):
    """Attention-based fusion of a student's map with what came from the deeper ones, and its view of the teacher's."""

    def __init__(self, n_in: int, mid: int, n_out: int, size: Size, deepest: bool) -> None:
        super().__init__()
        self.size = size  # of the teacher's map
        self.conv1x1, self.bn1 = nn.Conv2d(n_in, mid, 1, bias=False), BatchNorm(mid)
        self.conv3x3, self.bn2 = nn.Conv2d(mid, n_out, 3, padding=1, bias=False), BatchNorm(n_out)
        self.att_conv = None if deepest else nn.Conv2d(2 * mid, 2, 1)
        for conv in (self.conv1x1, self.conv3x3):
            nn.init.kaiming_uniform_(conv.weight, a=1)

    def forward(self, f: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """The map in the teacher's channels, and what goes to the next shallower stage."""
        x = self.bn1(self.conv1x1(f))
        if self.att_conv is not None and deeper is not None:
            deeper = F.interpolate(deeper, x.shape[2:], mode="nearest")
            a, b = self.att_conv(torch.cat([x, deeper], dim=1)).sigmoid().split(1, dim=1)
            x = x * a + deeper * b
        if x.shape[2:] != self.size:
            x = F.interpolate(x, self.size, mode="nearest")
        return self.bn2(self.conv3x3(x)), x


class ReviewKD(Method):
    paper = Paper(
        title="Distilling Knowledge via Knowledge Review",
        authors="Chen, Liu, Zhao, Jia",
        venue="CVPR",
        year=2021,
        url="https://arxiv.org/abs/2104.09044",
        code="github.com/megvii-research/mdistiller @ a08d46f mdistiller/distillers/ReviewKD.py",
        licence="MIT",
    )
    needs = Needs(taps=("logits", "feats", "preacts", "pooled"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "review": Float(0.1, 50.0, log=True),
        "warmup": Float(0.0, 1.0, tune=False),  # share of all epochs
        "max_mid": Int(8, 4096, log=True, tune=False),  # channels of the fused maps, at most
    }
    ramp_end = "warmup"
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "review": 5.0, "warmup": 20 / 240, "max_mid": 512},
            source="the official repository's commands, as mdistiller @ a08d46f configs/cifar100/reviewkd.yaml",
            selection="unknown",
            pairs={
                "resnet56->resnet20": {"review": 0.6},
                "resnet110->resnet32": {"review": 1.0},
                "resnet32x4->ShuffleV2": {"review": 8.0},
            },
            reported={
                "cifar100/resnet56->resnet20": 71.89,
                "cifar100/wrn_40_2->wrn_40_1": 75.09,
                "cifar100/resnet32x4->resnet8x4": 75.63,
                "cifar100/ResNet50->MobileNetV2": 69.89,
                "cifar100/resnet32x4->ShuffleV1": 77.45,
                "cifar100/resnet32x4->ShuffleV2": 77.78,
            },
        ),
    }
    deviations = (
        "The warm-up of 20 of 240 epochs is a share of whatever schedule is run; it begins at 1/20, as in mdistiller,"
        " where the official code's first epoch has weight 0.",
        "Where a teacher shows no map before its ReLU, the method is refused.",
    )

    def __init__(self, dims: Dims, *, ce: float, review: float, warmup: float, max_mid: int) -> None:
        super().__init__(dims)
        self.ce, self.review, self.warmup = ce, review, warmup
        self.pairs = stage_pairs(dims)[::-1]  # deep to shallow, as the review goes
        s, t = dims.student, dims.teacher
        mid = min(max_mid, s.pooled)
        fusions = [Fusion(s.pooled, mid, t.pooled, (1, 1), deepest=True)]
        for i, j in self.pairs:
            c_t, *hw = t.feats[j]
            fusions.append(Fusion(s.feats[i][0], mid, c_t, (hw[0], hw[1]), deepest=False))
        self.fusions = nn.ModuleList(fusions)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        own = [s.pooled[:, :, None, None], *(s.feats[i] for i, _ in self.pairs)]
        asked = [t.pooled[:, :, None, None], *(t.preacts[j] for _, j in self.pairs)]
        loss = self.distance(own, asked).mean()  # type: ignore[arg-type]  # by check there is a map before every ReLU
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "review": self.review * at.ramp(self.warmup) * loss,
        }

    def distance(self, fs: Sequence[Tensor], ft: Sequence[Tensor]) -> Tensor:
        """Sum over the stages of the hierarchical context loss. fs, ft: [B, D, H, W] each, deep to shallow → [B]."""
        total, residual = fs[0].new_zeros(len(fs[0])), None
        for fusion, a, b in zip(self.fusions, fs, ft, strict=True):
            out, residual = fusion(a, residual)
            total = total + hcl(out, b)
        return total

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("reviewkd", dims)
        if any(dims.teacher.preacts[j] is None for _, j in stage_pairs(dims)):
            raise Refusal("reviewkd reads the teacher's maps before their ReLU; this teacher shows none at its stages")
