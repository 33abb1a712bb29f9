"""Relational knowledge distillation: the same distances between images, and the same angles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy


def distances(h: Tensor) -> Tensor:
    """Euclidean distances of a batch over their mean; zero on the diagonal. h: [B, D] float → [B, B]."""
    square = h.square().sum(dim=1)
    d = (square[:, None] + square[None, :] - 2 * h @ h.T).clamp(min=1e-12).sqrt()
    d = d.masked_fill(torch.eye(len(h), dtype=torch.bool, device=h.device), 0.0)
    return d / (d.sum() / max(1, len(h) * (len(h) - 1))).clamp(min=1e-12)


def angles(h: Tensor) -> Tensor:
    """Cosine of the angle at j between i and k, for all three. h: [B, D] float → [B, B, B], j first."""
    e = F.normalize(h[None, :, :] - h[:, None, :], dim=2)
    return e @ e.mT


def rkd_distance_loss(hs: Tensor, ht: Tensor) -> Tensor:
    """Huber loss (δ = 1) between distances, the mean of B². hs: [B, D]; ht: [B, D'] → []. arXiv 1904.05068."""
    return F.smooth_l1_loss(distances(hs), distances(ht))


def rkd_angle_loss(hs: Tensor, ht: Tensor) -> Tensor:
    """Huber loss (δ = 1) between angles, the mean of B³. hs: [B, D]; ht: [B, D'] → []. arXiv 1904.05068."""
    return F.smooth_l1_loss(angles(hs), angles(ht))


class RKD(Method):
    paper = Paper(
        title="Relational Knowledge Distillation",
        authors="Park, Kim, Lu, Cho",
        venue="CVPR",
        year=2019,
        url="https://arxiv.org/abs/1904.05068",
        code="github.com/HobbitLong/RepDistiller @ b84f547 distiller_zoo/RKD.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(taps=("logits", "pooled"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "distance": Float(1.0, 1000.0, log=True),
        "angle": Float(1.0, 1000.0, log=True),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "distance": 25.0, "angle": 50.0},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh, distiller_zoo/RKD.py",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 73.35,
                "cifar100/wrn_40_2->wrn_40_1": 72.22,
                "cifar100/resnet56->resnet20": 69.61,
                "cifar100/resnet110->resnet20": 69.25,
                "cifar100/resnet110->resnet32": 71.82,
                "cifar100/resnet32x4->resnet8x4": 71.90,
                "cifar100/vgg13->vgg8": 71.48,
                "cifar100/vgg13->MobileNetV2": 64.52,
                "cifar100/ResNet50->MobileNetV2": 64.43,
                "cifar100/ResNet50->vgg8": 71.50,
                "cifar100/resnet32x4->ShuffleV1": 72.28,
                "cifar100/resnet32x4->ShuffleV2": 73.21,
                "cifar100/wrn_40_2->ShuffleV1": 72.21,
            },
        ),
    }

    def __init__(self, dims: Dims, *, ce: float, distance: float, angle: float) -> None:
        super().__init__(dims)
        self.ce, self.distance, self.angle = ce, distance, angle

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "distance": self.distance * rkd_distance_loss(s.pooled, t.pooled),
            "angle": self.angle * rkd_angle_loss(s.pooled, t.pooled),
        }
