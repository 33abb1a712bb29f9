"""Attention transfer: look at the same places, measured by the energy over channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.adapters import match_sizes, require_stages, stage_pairs
from methods.base import Dims, Float, Int, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy


def attention(f: Tensor, *, p: int) -> Tensor:
    """Where a map's energy sits: the mean over channels of f^p as a unit vector. f: [B, D, H, W] float → [B, H·W]."""
    return F.normalize(f.pow(p).mean(dim=1).flatten(1))


def at_loss(fs: Tensor, ft: Tensor, *, p: int) -> Tensor:
    """Mean squared difference of attention maps, at the smaller size. fs, ft: [B, D, H, W] → [B]. arXiv 1612.03928."""
    fs, ft = match_sizes(fs, ft)
    return (attention(fs, p=p) - attention(ft, p=p)).square().mean(dim=1)


class AT(Method):
    paper = Paper(
        title="Paying More Attention to Attention: Improving the Performance of CNNs via Attention Transfer",
        authors="Zagoruyko, Komodakis",
        venue="ICLR",
        year=2017,
        url="https://arxiv.org/abs/1612.03928",
        code="github.com/HobbitLong/RepDistiller @ b84f547 distiller_zoo/AT.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(taps=("logits", "feats"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "at": Float(10.0, 10000.0, log=True),
        "p": Int(1, 4, tune=False),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "at": 1000.0, "p": 2},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh, train_student.py",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 74.08,
                "cifar100/wrn_40_2->wrn_40_1": 72.77,
                "cifar100/resnet56->resnet20": 70.55,
                "cifar100/resnet110->resnet20": 70.22,
                "cifar100/resnet110->resnet32": 72.31,
                "cifar100/resnet32x4->resnet8x4": 73.44,
                "cifar100/vgg13->vgg8": 71.43,
                "cifar100/vgg13->MobileNetV2": 59.40,
                "cifar100/ResNet50->MobileNetV2": 58.58,
                "cifar100/ResNet50->vgg8": 71.84,
                "cifar100/resnet32x4->ShuffleV1": 71.73,
                "cifar100/resnet32x4->ShuffleV2": 72.73,
                "cifar100/wrn_40_2->ShuffleV1": 73.32,
            },
        ),
    }
    deviations = (
        "The paper sums norms of differences; like the reference code, we take the mean squared difference, which its"
        " weight of 1000 belongs to.",
        "For odd p the map keeps its sign, as in the reference code; the paper takes the absolute value.",
    )

    def __init__(self, dims: Dims, *, ce: float, at: float, p: int) -> None:
        super().__init__(dims)
        self.ce, self.at, self.p, self.pairs = ce, at, p, stage_pairs(dims)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        stages = [at_loss(s.feats[i], t.feats[j], p=self.p).mean() for i, j in self.pairs]
        return {"ce": self.ce * cross_entropy(s.logits, y).mean(), "at": self.at * torch.stack(stages).sum()}

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("at", dims)
