"""Overhaul of feature distillation: match maps before their ReLU, where the teacher's answer is positive."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from methods.adapters import BatchNorm, match_sizes, require_stages, stage_pairs
from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy


def margin(weight: Tensor, bias: Tensor) -> Tensor:
    """E[x | x < 0] of x ~ N(bias, weight²), or -3·|weight| where x < 0 is rarer than 0.001. arXiv 1904.01866.

    weight, bias: [D] float, of the teacher's BatchNorm → [D], at most 0.
    """
    s = weight.abs().clamp(min=1e-12)
    z = -bias / s
    below = 0.5 * torch.erfc(-z / math.sqrt(2))
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return torch.where(below > 0.001, bias - s * density / below.clamp(min=1e-3), -3 * s)


def ofd_loss(fs: Tensor, ft: Tensor, m: Tensor) -> Tensor:
    """Squared distance to max(f_t, m), but not where both are below it and it is not positive. arXiv 1904.01866.

    fs, ft: [B, D, H, W] float, before the ReLU; m: [D] → [B], the sum over a map.
    """
    target = torch.maximum(ft, m[:, None, None])
    counted = (fs > target) | (target > 0)
    return ((fs - target).square() * counted).flatten(1).sum(dim=1)


class Connector(nn.Module):
    """1x1 convolution → BN from the student's channels to the teacher's."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 1, bias=False)
        nn.init.normal_(self.conv.weight, 0.0, math.sqrt(2 / n_out))
        self.bn = BatchNorm(n_out)

    def forward(self, fs: Tensor) -> Tensor:
        return self.bn(self.conv(fs))


class OFD(Method):
    paper = Paper(
        title="A Comprehensive Overhaul of Feature Distillation",
        authors="Heo, Kim, Yun, Park, Kwak, Choi",
        venue="ICCV",
        year=2019,
        url="https://arxiv.org/abs/1904.01866",
        code="github.com/clovaai/overhaul-distillation @ 76344a8 CIFAR-100/distiller.py",
        licence="-",
    )
    needs = Needs(taps=("logits", "preacts"))
    space = {"ce": Float(0.0, 1.0, tune=False), "ofd": Float(0.00001, 0.1, log=True)}
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "ofd": 0.001},
            source="mdistiller @ a08d46f configs/cifar100/ofd.yaml; overhaul-distillation @ 76344a8",
            selection="unknown",
            reported={
                "cifar100/resnet56->resnet20": 70.98,
                "cifar100/wrn_40_2->wrn_40_1": 74.33,
                "cifar100/resnet32x4->resnet8x4": 74.95,
                "cifar100/ResNet50->MobileNetV2": 69.04,
                "cifar100/resnet32x4->ShuffleV1": 75.98,
                "cifar100/resnet32x4->ShuffleV2": 76.82,
            },
        ),
    }
    deviations = (
        "The reference code keeps the teacher in training mode, so that its running statistics drift; here the teacher"
        " answers in eval mode, as for every method.",
        "A channel whose BatchNorm has the weight 0 is treated as constant, where the reference code divides by zero.",
        "In residual networks the margin is of the last BatchNorm before the sum, which the other branch is ignored in,"
        " as in the reference code.",
    )

    def __init__(self, dims: Dims, *, ce: float, ofd: float) -> None:
        super().__init__(dims)
        self.ce, self.ofd, self.pairs = ce, ofd, stage_pairs(dims)
        s, t = dims.student.feats, dims.teacher.feats
        self.connectors = nn.ModuleList(Connector(s[i][0], t[j][0]) for i, j in self.pairs)
        for j in {j for _, j in self.pairs}:
            norm = dims.teacher.norms[j]
            assert norm is not None  # by check
            self.register_buffer(f"margin{j}", margin(*norm))

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        total = torch.zeros((), device=y.device)
        for depth, ((i, j), connector) in enumerate(zip(self.pairs, self.connectors, strict=True)):
            fs, ft = s.preacts[i], t.preacts[j]
            assert fs is not None and ft is not None  # by check
            fs, ft = match_sizes(connector(fs), ft)
            stage = ofd_loss(fs, ft, getattr(self, f"margin{j}")).mean()
            total = total + stage / 2 ** (len(self.pairs) - 1 - depth)
        return {"ce": self.ce * cross_entropy(s.logits, y).mean(), "ofd": self.ofd * total}

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("ofd", dims)
        for i, j in stage_pairs(dims):
            if dims.student.preacts[i] is None:
                raise Refusal("ofd compares maps before their ReLU, and the student shows none at its stages")
            if dims.teacher.preacts[j] is None or not dims.teacher.norms or dims.teacher.norms[j] is None:
                raise Refusal(
                    "ofd reads the BatchNorm before a stage's last ReLU; resnet*, wrn_* and vgg* teachers have it"
                )
