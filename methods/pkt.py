"""Probabilistic knowledge transfer: the same probabilities of being neighbours."""

from __future__ import annotations

from torch import Tensor

from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy


def neighbours(h: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Cosine similarities of a batch, moved to 0..1, every row a distribution. h: [B, D] float → [B, B]."""
    u = h / (h.norm(dim=1, keepdim=True) + eps)
    k = (u @ u.T + 1) / 2
    return k / k.sum(dim=1, keepdim=True)


def pkt_loss(hs: Tensor, ht: Tensor, *, eps: float = 1e-7) -> Tensor:
    """P·log(P/Q), the mean of all B² entries, P of the teacher. arXiv 1803.10837.

    hs: [B, D] float; ht: [B, D'] → []: it relates the examples of a batch.
    """
    q, p = neighbours(hs, eps=eps), neighbours(ht, eps=eps)
    return (p * ((p + eps) / (q + eps)).log()).mean()


class PKT(Method):
    paper = Paper(
        title="Learning Deep Representations with Probabilistic Knowledge Transfer",
        authors="Passalis, Tefas",
        venue="ECCV",
        year=2018,
        url="https://arxiv.org/abs/1803.10837",
        code="github.com/HobbitLong/RepDistiller @ b84f547 distiller_zoo/PKT.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(taps=("logits", "pooled"))
    space = {"ce": Float(0.0, 1.0, tune=False), "pkt": Float(1000.0, 1000000.0, log=True)}
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "pkt": 30000.0},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh, train_student.py",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 74.54,
                "cifar100/wrn_40_2->wrn_40_1": 73.45,
                "cifar100/resnet56->resnet20": 70.34,
                "cifar100/resnet110->resnet20": 70.25,
                "cifar100/resnet110->resnet32": 72.61,
                "cifar100/resnet32x4->resnet8x4": 73.64,
                "cifar100/vgg13->vgg8": 72.88,
                "cifar100/vgg13->MobileNetV2": 67.13,
                "cifar100/ResNet50->MobileNetV2": 66.52,
                "cifar100/ResNet50->vgg8": 73.01,
                "cifar100/resnet32x4->ShuffleV1": 74.10,
                "cifar100/resnet32x4->ShuffleV2": 74.69,
                "cifar100/wrn_40_2->ShuffleV1": 73.89,
            },
        ),
    }
    deviations = (
        "The mean over all B² entries is taken, as in the reference code, which explains the weight of 30000; the paper"
        " sums them.",
    )

    def __init__(self, dims: Dims, *, ce: float, pkt: float) -> None:
        super().__init__(dims)
        self.ce, self.pkt = ce, pkt

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "pkt": self.pkt * pkt_loss(s.pooled, t.pooled),
        }
