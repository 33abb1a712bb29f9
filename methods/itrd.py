"""Information-theoretic distillation: correlate features with the teacher's, and keep what their kernels share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy


def batch_standardise(h: Tensor) -> Tensor:
    """(h - mean)/std over the batch, the unbiased std; zeros where a feature is constant. h: [B, D] float → [B, D]."""
    centred = h - h.mean(dim=0)
    variance = centred.square().sum(dim=0) / max(1, len(h) - 1)
    flat = variance <= 1e-12 * h.square().mean(dim=0)  # what is left of a zero after rounding
    return torch.where(flat, 0.0, centred / torch.where(flat, 1.0, variance).sqrt())


def correlation_loss(hs: Tensor, ht: Tensor, *, alpha: float) -> Tensor:
    """log₂ Σ_d |c_d - 1|^2α, c_d: mean product of the standardised features d. hs, ht: [B, D] float → [] bits.

    arXiv 2112.00459, the correlation loss.
    """
    c = (batch_standardise(hs) * batch_standardise(ht)).mean(dim=0)
    return ((c - 1).square() ** alpha).sum().log2()


def mutual_loss(hs: Tensor, ht: Tensor) -> Tensor:
    """Σ_ij G_s² - Σ_ij G_st², both of trace 1: Rényi's entropies of order 2 without their logarithms, as in the code.

    hs, ht: [B, D], [B, D'] float, G = ĥĥᵀ of rows of length 1, G_st = G_s∘G_t → []. arXiv 2112.00459, the mutual
    information loss. It may be negative.
    """
    gs, gt = (F.normalize(h) @ F.normalize(h).T for h in (hs, ht))
    return _order_two(gs) - _order_two(gs * gt)


def _order_two(g: Tensor) -> Tensor:
    return (g / g.diagonal().sum().clamp(min=1e-12)).square().sum()


class ITRD(Method):
    paper = Paper(
        title="Information Theoretic Representation Distillation",
        authors="Miles, Lopez-Rodriguez, Mikolajczyk",
        venue="BMVC",
        year=2022,
        url="https://arxiv.org/abs/2112.00459",
        code="github.com/zkxufo/TTM @ fe457b3 distiller_zoo/itrd.py (from github.com/roymiles/ITRD @ 5d08c6b)",
        licence="MIT",
    )
    needs = Needs(taps=("logits", "pooled"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "corr": Float(0.01, 20.0, log=True),
        "mutual": Float(0.01, 20.0, log=True),
        "alpha": Float(1.0, 3.0),  # order of Rényi's entropy in the correlation loss
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "corr": 2.0, "mutual": 1.0, "alpha": 1.01},
            source="ITRD @ 5d08c6b README (wrn_40_2 → wrn_16_2); results: TTM @ fe457b3 README",
            selection="unknown",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 76.12,
                "cifar100/wrn_40_2->wrn_40_1": 75.18,
                "cifar100/resnet56->resnet20": 71.47,
                "cifar100/resnet110->resnet20": 71.99,
                "cifar100/resnet110->resnet32": 74.26,
                "cifar100/resnet32x4->resnet8x4": 76.19,
                "cifar100/vgg13->vgg8": 74.93,
                "cifar100/vgg13->MobileNetV2": 70.39,
                "cifar100/ResNet50->MobileNetV2": 71.41,
                "cifar100/ResNet50->vgg8": 75.71,
                "cifar100/resnet32x4->ShuffleV1": 76.91,
                "cifar100/resnet32x4->ShuffleV2": 77.40,
                "cifar100/wrn_40_2->ShuffleV1": 77.35,
            },
        ),
    }
    deviations = (
        "A feature that is constant in a batch has correlation 0, where the code divides zero by zero.",
        "The student's features go through one linear layer into the teacher's width; for the mutual information only"
        " where widths differ, as in the code.",
        "The code's default order is 1.5; only the README's example of 1.01 is said to give a published result.",
    )

    def __init__(self, dims: Dims, *, ce: float, corr: float, mutual: float, alpha: float) -> None:
        super().__init__(dims)
        self.ce, self.corr, self.mutual, self.alpha = ce, corr, mutual, alpha
        self.embed = nn.Linear(dims.student.pooled, dims.teacher.pooled)
        self.same = dims.student.pooled == dims.teacher.pooled

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        hs = self.embed(s.pooled)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "corr": self.corr * correlation_loss(hs, t.pooled, alpha=self.alpha),
            "mutual": self.mutual * mutual_loss(s.pooled if self.same else hs, t.pooled),
        }
