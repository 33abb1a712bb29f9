"""Correlation congruence: the same correlations between the images of a batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Choice, Dims, Float, Int, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy


def cc_loss(hs: Tensor, ht: Tensor, *, gamma: float, order: int) -> Tensor:
    """Mean squared difference of correlations, the Gaussian kernel by its Taylor series. arXiv 1904.01802.

    hs: [B, D] float; ht: [B, D'] → []: K = Σ_{p ≤ order} exp(-2γ)(2γ)^p/p!·(u uᵀ)^p, u of unit length.
    """
    return (_correlation(hs, gamma, order) - _correlation(ht, gamma, order)).square().mean()


def _correlation(h: Tensor, gamma: float, order: int) -> Tensor:
    u = F.normalize(h)
    cosine, k = u @ u.T, torch.zeros((), device=h.device, dtype=h.dtype)
    for p in range(order + 1):
        k = k + math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * cosine**p
    return k


def neighbour_loss(es: Tensor, et: Tensor) -> Tensor:
    """Σ_d δ_i·δ_{i+1} of batch neighbours, δ = |e_s - e_t|, their mean. es, et: [B, d] float → []; 0 for B = 1."""
    d = (es - et).abs()
    return (d[:-1] * d[1:]).sum() / max(1, len(d) - 1)


class CC(Method):
    paper = Paper(
        title="Correlation Congruence for Knowledge Distillation",
        authors="Peng, Jin, Liu, Li, Wu, Liu, Zhou, Zhang",
        venue="ICCV",
        year=2019,
        url="https://arxiv.org/abs/1904.01802",
        code="github.com/AberHu/Knowledge-Distillation-Zoo @ 65470c8 kd_losses/cc.py",
        licence="-",
    )
    needs = Needs(taps=("logits", "pooled"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "cc": Float(0.001, 1000.0, log=True),
        "form": Choice(("kernel", "neighbours"), tune=False),
        "gamma": Float(0.01, 10.0, log=True, tune=False),  # of the kernel
        "order": Int(1, 6, tune=False),  # of its series
        "dim": Int(8, 1024, log=True, tune=False),  # of the embeddings that neighbours are compared by
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "cc": 100.0, "form": "kernel", "gamma": 0.4, "order": 2, "dim": 128},
            source="arXiv 1904.01802 for kernel, γ and order; its weight could not be read: 100 is a default of ours",
            selection="unknown",
        ),
        "repdistiller": Recipe(
            values={"ce": 1.0, "cc": 0.02, "form": "neighbours", "gamma": 0.4, "order": 2, "dim": 128},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh, distiller_zoo/CC.py",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 73.56,
                "cifar100/wrn_40_2->wrn_40_1": 72.21,
                "cifar100/resnet56->resnet20": 69.63,
                "cifar100/resnet110->resnet20": 69.48,
                "cifar100/resnet110->resnet32": 71.48,
                "cifar100/resnet32x4->resnet8x4": 72.97,
                "cifar100/vgg13->vgg8": 70.71,
                "cifar100/vgg13->MobileNetV2": 64.86,
                "cifar100/ResNet50->MobileNetV2": 65.43,
                "cifar100/ResNet50->vgg8": 70.25,
                "cifar100/resnet32x4->ShuffleV1": 71.14,
                "cifar100/resnet32x4->ShuffleV2": 71.29,
                "cifar100/wrn_40_2->ShuffleV1": 71.38,
            },
        ),
    }
    deviations = (
        "RepDistiller multiplies differences of batch neighbours after two trained embeddings, which is not the paper's"
        " formula and depends on the order of a batch; it is the recipe 'repdistiller'.",
        "The paper adds the congruence to KD; here the term stands beside the labels alone, as in the code, and"
        " 'cc + kd' in a suite is their sum.",
    )

    def __init__(self, dims: Dims, *, ce: float, cc: float, form: str, gamma: float, order: int, dim: int) -> None:
        super().__init__(dims)
        self.ce, self.cc, self.form, self.gamma, self.order = ce, cc, form, gamma, order
        if form == "neighbours":
            self.embed_s, self.embed_t = nn.Linear(dims.student.pooled, dim), nn.Linear(dims.teacher.pooled, dim)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        if self.form == "neighbours":
            loss = neighbour_loss(self.embed_s(s.pooled), self.embed_t(t.pooled))
        else:
            loss = cc_loss(s.pooled, t.pooled, gamma=self.gamma, order=self.order)
        return {"ce": self.ce * cross_entropy(s.logits, y).mean(), "cc": self.cc * loss}
