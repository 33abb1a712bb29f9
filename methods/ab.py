"""Activation boundaries: the same neurons on and off, before the ReLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.adapters import require_stages, shrink, stage_pairs
from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal
from methods.fitnet import Regressor
from methods.functional import cross_entropy

SCALE = 3 / 1000  # the reference code's, for maps of CIFAR's sizes


def ab_loss(fs: Tensor, ft: Tensor, *, margin: float) -> Tensor:
    """Squared distance beyond the margin on the teacher's side of 0, summed over a map. arXiv 1811.03233.

    fs, ft: [B, D, H, W] float, before the ReLU → [B].
    """
    side = torch.where(ft > 0, -1.0, 1.0).to(fs.dtype)  # times fs: how far on the wrong side
    return (fs * side + margin).relu().square().flatten(1).sum(dim=1)


class AB(Method):
    paper = Paper(
        title="Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons",
        authors="Heo, Lee, Yun, Choi",
        venue="AAAI",
        year=2019,
        url="https://arxiv.org/abs/1811.03233",
        code="github.com/HobbitLong/RepDistiller @ b84f547 distiller_zoo/AB.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(teacher=False)
    pretrain_needs = Needs(taps=("preacts",))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "ab": Float(0.01, 100.0, log=True),
        "margin": Float(0.0, 10.0, tune=False),
        "before": Float(0.0, 1.0, tune=False),  # epochs before the first, as a share of all
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "ab": 1.0, "margin": 1.0, "before": 30 / 240},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh, helper/pretrain.py",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 72.50,
                "cifar100/wrn_40_2->wrn_40_1": 72.38,
                "cifar100/resnet56->resnet20": 69.47,
                "cifar100/resnet110->resnet20": 69.53,
                "cifar100/resnet110->resnet32": 70.98,
                "cifar100/resnet32x4->resnet8x4": 73.17,
                "cifar100/vgg13->vgg8": 70.94,
                "cifar100/vgg13->MobileNetV2": 66.06,
                "cifar100/ResNet50->MobileNetV2": 67.20,
                "cifar100/ResNet50->vgg8": 70.65,
                "cifar100/resnet32x4->ShuffleV1": 73.55,
                "cifar100/resnet32x4->ShuffleV2": 74.31,
                "cifar100/wrn_40_2->ShuffleV1": 73.34,
            },
        ),
    }
    deviations = (
        "Two stages, as in the paper and the reference code: boundaries alone in the epochs before the first, labels"
        " alone from then on.",
        "The 30 of 240 epochs before the first are a share of whatever schedule is run.",
        "The sum over a map is scaled by 0.003, and halved per stage towards the input, as in the reference code.",
    )

    def __init__(self, dims: Dims, *, ce: float, ab: float, margin: float, before: float) -> None:
        super().__init__(dims)
        self.ce, self.ab, self.margin, self.pretrain_share, self.pairs = ce, ab, margin, before, stage_pairs(dims)
        s, t = dims.student.feats, dims.teacher.feats
        self.connectors = nn.ModuleList(
            nn.Identity() if s[i] == t[j] else Regressor(s[i], t[j], relu=False) for i, j in self.pairs
        )

    def pretrain_loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        total = torch.zeros((), device=y.device)
        for depth, ((i, j), connector) in enumerate(zip(self.pairs, self.connectors, strict=True)):
            fs, ft = s.preacts[i], t.preacts[j]
            assert fs is not None and ft is not None  # by check
            fs = connector(fs)
            loss = ab_loss(fs, shrink(ft, (fs.shape[2], fs.shape[3])), margin=self.margin)
            total = total + 2.0 ** (depth - len(self.pairs) + 1) * loss.mean()
        return {"ab": self.ab * SCALE * total}

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {"ce": self.ce * cross_entropy(s.logits, y).mean()}

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("ab", dims)
        for i, j in stage_pairs(dims):
            for whose, shown in (("student", dims.student.preacts[i]), ("teacher", dims.teacher.preacts[j])):
                if shown is None:
                    raise Refusal(f"ab compares maps before their ReLU, and the {whose} shows none at its stages")
