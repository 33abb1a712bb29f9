"""Similarity-preserving distillation: find the same images of a batch alike."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from methods.adapters import require_stages
from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy


def similarities(f: Tensor) -> Tensor:
    """Inner products of a batch's maps, every row of unit length. f: [B, D, H, W] float → [B, B]."""
    q = f.flatten(1)
    return F.normalize(q @ q.T)


def sp_loss(fs: Tensor, ft: Tensor) -> Tensor:
    """‖G_s - G_t‖² / B², a scalar: it relates the examples of a batch. arXiv 1907.09682.

    fs: [B, D, H, W] float; ft: [B, D', H', W'] → []. Channels and sizes may differ.
    """
    return (similarities(fs) - similarities(ft)).square().mean()


class SP(Method):
    paper = Paper(
        title="Similarity-Preserving Knowledge Distillation",
        authors="Tung, Mori",
        venue="ICCV",
        year=2019,
        url="https://arxiv.org/abs/1907.09682",
        code="github.com/HobbitLong/RepDistiller @ b84f547 distiller_zoo/SP.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(taps=("logits", "feats"))
    space = {"ce": Float(0.0, 1.0, tune=False), "sp": Float(100.0, 100000.0, log=True)}
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "sp": 3000.0},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh, train_student.py",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 73.83,
                "cifar100/wrn_40_2->wrn_40_1": 72.43,
                "cifar100/resnet56->resnet20": 69.67,
                "cifar100/resnet110->resnet20": 70.04,
                "cifar100/resnet110->resnet32": 72.69,
                "cifar100/resnet32x4->resnet8x4": 72.94,
                "cifar100/vgg13->vgg8": 72.68,
                "cifar100/vgg13->MobileNetV2": 66.30,
                "cifar100/ResNet50->MobileNetV2": 68.08,
                "cifar100/ResNet50->vgg8": 73.34,
                "cifar100/resnet32x4->ShuffleV1": 73.48,
                "cifar100/resnet32x4->ShuffleV2": 74.56,
                "cifar100/wrn_40_2->ShuffleV1": 74.52,
            },
        ),
    }
    deviations = ("The last stage's maps alone are compared, as in the reference code.",)

    def __init__(self, dims: Dims, *, ce: float, sp: float) -> None:
        super().__init__(dims)
        self.ce, self.sp = ce, sp

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "sp": self.sp * sp_loss(s.feats[-1], t.feats[-1]),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("sp", dims)
