"""Function-consistent features: a map, bridged into the other network, must go on as the teacher's own map does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.adapters import BatchNorm, Size, is_double, require_stages, shrink, smaller, stage_pairs
from methods.base import Dims, Float, Int, Method, Needs, NetworkView, Paper, Progress, Recipe, Shape
from methods.functional import cross_entropy
from methods.kd import kd_loss

SLOPE = 0.1  # of a bridge's LeakyReLU


def appearance(f: Tensor, ft: Tensor, *, last: bool) -> Tensor:
    """Mean squared difference of two maps, and for the last stage that of their pooled ReLUs as well.

    f, ft: [B, D, H, W] float → [B]. ICLR 2023.
    """
    loss = (f - ft).square().flatten(1).mean(dim=1)
    if last:
        loss = loss + (f.relu().mean(dim=(2, 3)) - ft.relu().mean(dim=(2, 3))).square().mean(dim=1)
    return loss


class Bridge(nn.Module):
    """3x3 convolution → BN (→ LeakyReLU where the other network's map is a ReLU's output) into another network's shape.

    Halves by stride 2, doubles by a transposed 4x4 convolution; by other factors, a mean or the nearest neighbour.
    """

    def __init__(self, source: Shape, to: Shape, *, relu: bool) -> None:
        super().__init__()
        (c, *hw), (c_to, *hw_to) = source, to
        size, self.size = (hw[0], hw[1]), (hw_to[0], hw_to[1])
        halves, doubles = is_double(size, self.size), is_double(self.size, size)
        self.small: Size = size if halves or doubles else smaller(size, self.size)
        self.conv: nn.Module = (
            nn.ConvTranspose2d(c, c_to, 4, stride=2, padding=1)
            if doubles
            else nn.Conv2d(c, c_to, 3, stride=1 + halves, padding=1, bias=halves)
        )
        self.bn, self.relu = BatchNorm(c_to), relu
        if not doubles:
            nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]

    def forward(self, f: Tensor) -> Tensor:
        f = self.bn(self.conv(shrink(f, self.small)))
        f = F.leaky_relu(f, SLOPE) if self.relu else f
        return f if f.shape[2:] == self.size else F.interpolate(f, self.size, mode="nearest")


class FCFD(Method):
    paper = Paper(
        title="Function-Consistent Feature Distillation",
        authors="Liu, Kan, Shan, Chen",
        venue="ICLR",
        year=2023,
        url="https://openreview.net/forum?id=pgHNOcxEdRI",
        code="github.com/LiuDongyang6/FCFD @ 2aefb7b classification/models/meta.py, cifar/main.py",
        licence="-",
    )
    needs = Needs(taps=("logits", "feats", "tail"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "mix": Float(0.01, 20.0, log=True),  # KL of the mixed paths
        "l2": Float(0.001, 100.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
        "paths": Int(0, 16, tune=False),  # mixed paths that a step of the reference draws
        "warmup": Float(0.0, 1.0, tune=False),  # share of all epochs, for the squared differences
    }
    ramp_end = "warmup"
    recipes = {
        "paper": Recipe(
            values={
                **{"ce": 1.0, "kd": 1.0, "mix": 1.0, "l2": 5.0, "tau": 4.0},
                **{"paths": 2, "warmup": 20 / 240},
            },
            source="FCFD @ 2aefb7b classification/experiments/cifar/*.yaml; results: third parties' notes",
            selection="best-epoch-on-test",
            pairs={
                "resnet56->resnet20": {"l2": 0.02},
                "wrn_40_2->wrn_16_2": {"mix": 0.2},
                "resnet32x4->ShuffleV1": {"tau": 8.0},
                "resnet32x4->ShuffleV2": {"tau": 8.0},
                "ResNet50->MobileNetV2": {"tau": 8.0},
            },
            reported={"cifar100/resnet32x4->resnet8x4": 76.62, "cifar100/resnet32x4->ShuffleV1": 78.12},
        ),
    }
    deviations = (
        "The code draws two of the mixed paths anew in every step; here every path is taken in every step, weighted by"
        " its chance to be drawn, which is the expectation of the same loss.",
        "In the code the teacher is in training mode: its own answers use the batch's statistics. Here it is in eval"
        " mode; mixed paths use the batch's statistics in both networks, as in the code.",
        "Where the networks have different numbers of stages, the deepest are paired; the code refuses.",
        "The warm-up of 20 of 240 epochs is a share of whatever schedule is run.",
        "The reference runs Nesterov momentum; the protocol decides here.",
    )

    def __init__(
        self, dims: Dims, *, ce: float, kd: float, mix: float, l2: float, tau: float, paths: int, warmup: float
    ) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.mix, self.l2, self.tau, self.warmup = ce, kd, mix, l2, tau, warmup
        s, t = dims.student, dims.teacher
        self.pairs = stage_pairs(dims)
        inner = self.pairs[:-1]  # where a path changes networks: behind the last stage there is no other way on
        self.chance = min(1.0, paths / max(1, 2 * len(inner)))
        self.to_teacher = nn.ModuleList(Bridge(s.feats[i], t.feats[j], relu=t.relu[j]) for i, j in self.pairs)
        self.to_student = nn.ModuleList(Bridge(t.feats[j], s.feats[i], relu=s.relu[i]) for i, j in inner if self.chance)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        at_teacher = [bridge(s.feats[i]) for bridge, (i, _) in zip(self.to_teacher, self.pairs, strict=True)]
        l2 = self.to_own_maps(at_teacher, t.feats[self.pairs[0][1] :])
        mix = torch.zeros_like(l2)
        for f, to_student, (i, j) in zip(at_teacher, self.to_student, self.pairs, strict=False):
            maps: list[Tensor] = []
            through_teacher = t.tail(j, f, batch_stats=True, maps=maps)
            through_student = s.tail(i, to_student(t.feats[j]), batch_stats=True)
            l2 = l2 + self.chance * self.to_own_maps(maps, t.feats[j + 1 :])
            for z in (through_teacher, through_student):
                mix = mix + self.chance * kd_loss(z, t.logits, tau=self.tau)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "kd": self.kd * kd_loss(s.logits, t.logits, tau=self.tau).mean(),
            "l2": self.l2 * at.ramp(self.warmup) * l2.mean(),
            "mix": self.mix * mix.mean(),
        }

    def to_own_maps(self, maps: Sequence[Tensor], own: Sequence[Tensor]) -> Tensor:
        """Sum of `appearance` over stages up to the last. maps, own: [B, D, H, W] each, the teacher's shapes → [B]."""
        last = len(maps) - 1
        return torch.stack(
            [appearance(f, g, last=k == last) for k, (f, g) in enumerate(zip(maps, own, strict=True))]
        ).sum(0)

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("fcfd", dims)
