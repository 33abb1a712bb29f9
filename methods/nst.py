"""Neuron selectivity transfer: match the distribution of the channels' activation patterns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.adapters import match_sizes, require_stages, stage_pairs
from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy


def nst_loss(fs: Tensor, ft: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of the channels under (aᵀb)². arXiv 1707.01219.

    fs: [B, D, H, W] float; ft: [B, D', H', W'] → [B]. Each channel is a vector of unit length over the pixels; one
    that is zero stays so. The kernel is a product of matrices: nothing larger than [B, D, D'] arises.
    """
    a, b = (F.normalize(f.flatten(2), dim=2) for f in match_sizes(fs, ft))
    return _kernel(a, a) + _kernel(b, b) - 2 * _kernel(a, b)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Mean of (a_iᵀb_j)² over all pairs of channels. [B, D, N], [B, D', N] → [B]."""
    return (a @ b.mT).square().mean(dim=(1, 2))


class NST(Method):
    paper = Paper(
        title="Like What You Like: Knowledge Distill via Neuron Selectivity Transfer",
        authors="Huang, Wang",
        venue="arXiv",
        year=2017,
        url="https://arxiv.org/abs/1707.01219",
        code="github.com/HobbitLong/RepDistiller @ b84f547 distiller_zoo/NST.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(taps=("logits", "feats"))
    space = {"ce": Float(0.0, 1.0, tune=False), "nst": Float(1.0, 1000.0, log=True)}
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "nst": 50.0},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh, train_student.py",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 73.68,
                "cifar100/wrn_40_2->wrn_40_1": 72.24,
                "cifar100/resnet56->resnet20": 69.60,
                "cifar100/resnet110->resnet20": 69.53,
                "cifar100/resnet110->resnet32": 71.96,
                "cifar100/resnet32x4->resnet8x4": 73.30,
                "cifar100/vgg13->vgg8": 71.53,
                "cifar100/vgg13->MobileNetV2": 58.16,
                "cifar100/ResNet50->MobileNetV2": 64.96,
                "cifar100/ResNet50->vgg8": 71.28,
                "cifar100/resnet32x4->ShuffleV1": 74.12,
                "cifar100/resnet32x4->ShuffleV2": 74.68,
                "cifar100/wrn_40_2->ShuffleV1": 74.89,
            },
        ),
    }
    deviations = ("The loss is taken at every stage, as the reference code does; the paper uses the last one.",)

    def __init__(self, dims: Dims, *, ce: float, nst: float) -> None:
        super().__init__(dims)
        self.ce, self.nst, self.pairs = ce, nst, stage_pairs(dims)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        stages = [nst_loss(s.feats[i], t.feats[j]).mean() for i, j in self.pairs]
        return {"ce": self.ce * cross_entropy(s.logits, y).mean(), "nst": self.nst * torch.stack(stages).sum()}

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("nst", dims)
