"""Wasserstein distillation of features: means and spreads of the last map's channels, as of Gaussians."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.adapters import Size, require_stages, shrink
from methods.base import Dims, Float, Int, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.fitnet import Regressor
from methods.functional import cross_entropy


def moments(f: Tensor, bessel: Tensor, *, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Mean and √(variance + ε) of every channel in every cell of a grid. f: [B, D, H, W] float; bessel: [k, k].

    → two [B, D, k, k]. `bessel` makes a cell's variance the unbiased one: n/(n - 1) of its n pixels, 1 for one pixel.
    """
    k = bessel.shape[0]
    centre = f.mean(dim=(2, 3), keepdim=True)  # what is subtracted before squaring, so that little cancels
    mean = F.adaptive_avg_pool2d(f - centre, k)
    variance = F.adaptive_avg_pool2d((f - centre).square(), k) - mean.square()
    return mean + centre, (bessel * variance.clamp(min=0.0) + eps).sqrt()


def wasserstein(fs: Tensor, ft: Tensor, bessel: Tensor, *, ratio: float) -> Tensor:
    """Mean over cells of ratio·Σ_d (μ_s - μ_t)² + Σ_d (σ_s - σ_t)². fs, ft: [B, D, H, W] float → [B].

    With ratio 1, W₂² of Gaussians with diagonal covariances. arXiv 2412.08139, §3.3.
    """
    (mean_s, std_s), (mean_t, std_t) = moments(fs, bessel), moments(ft, bessel)
    each = ratio * (mean_s - mean_t).square() + (std_s - std_t).square()
    return each.sum(dim=1).mean(dim=(1, 2))


def bessel_factors(size: Size, k: int) -> Tensor:
    """n/(n - 1) for the n pixels of every cell of adaptive pooling to k x k, and 1 for one pixel. → [k, k] float32."""
    rows, columns = ([-(-(i + 1) * length // k) - i * length // k for i in range(k)] for length in size)
    n = torch.tensor(rows)[:, None] * torch.tensor(columns)[None, :]
    return n / (n - 1).clamp(min=1)


def fade(at: Progress, after: float) -> Tensor:
    """[] float, 1 for a share of all epochs, then along a half cosine to 0 at the end."""
    if after >= 1:
        return torch.ones_like(at.share)
    gone = ((at.share - after) / (1 - after)).clamp(min=0.0)
    return 0.5 * (1 + torch.cos(math.pi * gone))


class WKDF(Method):
    paper = Paper(
        title="Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation",
        authors="Lv, Yang, Li",
        venue="NeurIPS",
        year=2024,
        url="https://arxiv.org/abs/2412.08139",
        code="github.com/JiamingLv/WKD @ 214cf88 mdistiller/distillers/WKD.py",
        licence="-",
    )
    needs = Needs(taps=("logits", "feats"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "wkd": Float(0.001, 10.0, log=True),
        "ratio": Float(0.1, 20.0, log=True),  # of the means to the spreads
        "grid": Int(1, 16, tune=False),
        "decay": Float(0.0, 1.0, tune=False),  # share of all epochs after which the term fades
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "wkd": 0.08, "ratio": 4.0, "grid": 1, "decay": 150 / 240},
            source="WKD @ 214cf88 configs/cifar100/wkd_f/*.yaml; other pairs take that of resnet32x4 → resnet8x4",
            selection="best-epoch-on-test",
            pairs={"wrn_40_2->ShuffleV1": {"wkd": 0.3, "ratio": 3.0, "grid": 4}},
            reported={"cifar100/resnet32x4->resnet8x4": 76.77, "cifar100/wrn_40_2->ShuffleV1": 77.36},
        ),
    }
    deviations = (
        "The fading from epoch 150 of 240 on begins after the same share of whatever schedule is run.",
        "A cell of one pixel has no spread; the code divides by zero there.",
        "Where the teacher's map is larger by a factor other than 2, it is pooled to the student's; the code refuses.",
    )

    bessel: Tensor

    def __init__(self, dims: Dims, *, ce: float, wkd: float, ratio: float, grid: int, decay: float) -> None:
        super().__init__(dims)
        self.ce, self.wkd, self.ratio, self.decay = ce, wkd, ratio, decay
        self.regress = Regressor(dims.student.feats[-1], dims.teacher.feats[-1])
        self.register_buffer("bessel", bessel_factors(self.regress.size, grid), persistent=False)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        ft = shrink(t.feats[-1], self.regress.size)
        loss = wasserstein(self.regress(s.feats[-1]), ft, self.bessel, ratio=self.ratio)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "wkd": self.wkd * fade(at, self.decay) * loss.mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("wkd_f", dims)
