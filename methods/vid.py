"""Variational information distillation: raise a bound on the mutual information of the maps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.adapters import match_sizes, require_stages, stage_pairs
from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy


def vid_loss(mu: Tensor, ft: Tensor, rho: Tensor, *, eps: float = 1e-5) -> Tensor:
    """½[(μ - f_t)²/σ² + log σ²], the mean over a map; it may be negative. arXiv 1904.05835.

    mu, ft: [B, D, H, W] float; rho: [D], with σ² = log(1 + exp ρ) + eps the variance of a channel → [B] nats.
    """
    variance = F.softplus(rho) + eps
    distance = (mu - ft).square().mean(dim=(2, 3))  # before the variance, which is the same all over a channel
    return 0.5 * (distance / variance + variance.log()).mean(dim=1)


class Gaussian(nn.Module):
    """A student's map to the mean of the teacher's (three 1x1 convolutions), and the variance of its channels."""

    def __init__(self, n_in: int, n_out: int, variance: float, eps: float = 1e-5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 1, bias=False)
        self.conv3 = nn.Conv2d(n_out, n_out, 1, bias=False)
        self.rho = nn.Parameter(torch.full((n_out,), math.log(math.expm1(variance - eps))))

    def forward(self, fs: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.conv1(fs).relu()).relu())


class VID(Method):
    paper = Paper(
        title="Variational Information Distillation for Knowledge Transfer",
        authors="Ahn, Hu, Damianou, Lawrence, Dai",
        venue="CVPR",
        year=2019,
        url="https://arxiv.org/abs/1904.05835",
        code="github.com/HobbitLong/RepDistiller @ b84f547 distiller_zoo/VID.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(taps=("logits", "feats"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "vid": Float(0.01, 100.0, log=True),
        "variance": Float(0.01, 100.0, log=True, tune=False),  # of every channel, at the start
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "vid": 1.0, "variance": 5.0},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh, distiller_zoo/VID.py",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 74.11,
                "cifar100/wrn_40_2->wrn_40_1": 73.30,
                "cifar100/resnet56->resnet20": 70.38,
                "cifar100/resnet110->resnet20": 70.16,
                "cifar100/resnet110->resnet32": 72.61,
                "cifar100/resnet32x4->resnet8x4": 73.09,
                "cifar100/vgg13->vgg8": 71.23,
                "cifar100/vgg13->MobileNetV2": 65.56,
                "cifar100/ResNet50->MobileNetV2": 67.57,
                "cifar100/ResNet50->vgg8": 70.30,
                "cifar100/resnet32x4->ShuffleV1": 73.38,
                "cifar100/resnet32x4->ShuffleV2": 73.40,
                "cifar100/wrn_40_2->ShuffleV1": 73.61,
            },
        ),
    }
    deviations = (
        "The variances are trained, as in the paper and in RepDistiller; mdistiller keeps them in a list that its"
        " optimiser never sees, so there they stay at 5.",
    )

    def __init__(self, dims: Dims, *, ce: float, vid: float, variance: float) -> None:
        super().__init__(dims)
        self.ce, self.vid, self.pairs = ce, vid, stage_pairs(dims)
        s, t = dims.student.feats, dims.teacher.feats
        self.gaussians = nn.ModuleList(Gaussian(s[i][0], t[j][0], variance) for i, j in self.pairs)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        total = torch.zeros((), device=y.device)
        for (i, j), gaussian in zip(self.pairs, self.gaussians, strict=True):
            assert isinstance(gaussian, Gaussian)
            fs, ft = match_sizes(s.feats[i], t.feats[j])
            total = total + vid_loss(gaussian(fs), ft, gaussian.rho).mean()
        return {"ce": self.ce * cross_entropy(s.logits, y).mean(), "vid": self.vid * total}

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("vid", dims)
