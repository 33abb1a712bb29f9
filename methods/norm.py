"""N-to-one matching: the student's last map, widened by a transform that it keeps, holds N copies of the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from methods.adapters import BatchNorm, require_stages, shrink, smaller
from methods.base import Dims, Float, Int, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy
from methods.kd import kd_loss


def n_to_one_loss(wide: Tensor, ft: Tensor) -> Tensor:
    """N times the mean squared difference of N groups of channels, each to the teacher's map. ICLR 2023.

    wide: [B, N·D, H, W] float; ft: [B, D, H, W] → [B].
    """
    groups = wide.unflatten(1, (-1, ft.shape[1]))
    return groups.shape[1] * (groups - ft[:, None]).square().flatten(1).mean(dim=1)


def layer_normalise(z: Tensor, *, scale: float) -> Tensor:
    """scale·(z - mean)/√(variance + 1e-7) over the classes, the biased variance. z: [B, C] float → [B, C]."""
    return scale * F.layer_norm(z, z.shape[1:], eps=1e-7)


class Transform(nn.Module):
    """Two linear steps, 1x1 convolution → BN each, up to N times the teacher's channels and back, beside the map."""

    def __init__(self, n_in: int, n_wide: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(n_in, n_wide, 1, bias=False), BatchNorm(n_wide)
        self.conv2, self.bn2 = nn.Conv2d(n_wide, n_in, 1, bias=False), BatchNorm(n_in)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """The wide map, and what the classifier is given."""
        wide = self.bn1(self.conv1(f))
        return wide, f + self.bn2(self.conv2(wide))


class NORM(Method):
    paper = Paper(
        title="NORM: Knowledge Distillation via N-to-One Representation Matching",
        authors="Liu, Li, Li, Yao",
        venue="ICLR",
        year=2023,
        url="https://openreview.net/forum?id=CRNwGauQpb6",
        code="github.com/OSVAI/NORM @ c6dfc39 helper/loops.py, models/cifar/resnet_student.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(taps=("logits", "feats", "tail"), tails=("student",))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "norm": Float(0.01, 100.0, log=True),
        "kd": Float(0.0, 20.0, tune=False),
        "tau": Float(1.0, 20.0, log=True, tune=False),  # of kd
        "n": Int(1, 64, log=True, tune=False),
        "scale": Float(0.1, 20.0, log=True, tune=False),  # of both networks' normalised logits
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 0.1, "norm": 1.0, "kd": 0.0, "tau": 4.0, "n": 8, "scale": 2.5},
            source="NORM @ c6dfc39 README (resnet32x4 → resnet8x4), train_cifar_student.py",
            selection="best-epoch-on-test",
            reported={
                "cifar100/resnet56->resnet20": 71.35,
                "cifar100/resnet110->resnet20": 71.55,
                "cifar100/resnet110->resnet32": 73.67,
                "cifar100/resnet32x4->resnet8x4": 76.49,
                "cifar100/vgg13->vgg8": 73.95,
                "cifar100/ResNet50->vgg8": 75.17,
                "cifar100/resnet32x4->ShuffleV1": 77.42,
            },
        ),
    }
    deviations = (
        "The weight of the labels is tried from 0.0625 to 0.5 in the authors' scripts, pair by pair; only the README's"
        " example is taken.",
        "Both networks' logits are normalised and scaled by 2.5 for every loss and at test, as in the code; the paper"
        " was not read.",
        "The transform stands between the last map and the pooling. Students whose head does more than pool (a"
        " BatchNorm, a convolution) are refused: its running statistics would be of both maps.",
        "The larger of two maps is pooled to the smaller: the teacher's by its maxima, as in the code, the student's by"
        " its means.",
    )

    def __init__(self, dims: Dims, *, ce: float, norm: float, kd: float, tau: float, n: int, scale: float) -> None:
        super().__init__(dims)
        self.ce, self.norm, self.kd, self.tau, self.scale = ce, norm, kd, tau, scale
        self.last = dims.student.n_stages
        self.transform = Transform(dims.student.feats[-1][0], n * dims.teacher.feats[-1][0])

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        wide, f = self.transform(s.feats[-1])
        ft = t.feats[-1]
        size = smaller((wide.shape[2], wide.shape[3]), (ft.shape[2], ft.shape[3]))
        ft = ft if ft.shape[2:] == size else F.adaptive_max_pool2d(ft, size)
        zs = layer_normalise(s.tail(self.last, f), scale=self.scale)
        terms = {
            "ce": self.ce * cross_entropy(zs, y).mean(),
            "norm": self.norm * n_to_one_loss(shrink(wide, size), ft).mean(),
        }
        if self.kd:
            zt = layer_normalise(t.logits, scale=self.scale)
            terms["kd"] = self.kd * kd_loss(zs, zt, tau=self.tau).mean()
        return terms

    def predict(self, s: NetworkView, t: NetworkView) -> Tensor:
        _, f = self.transform(s.feats[-1])
        return layer_normalise(s.tail(self.last, f), scale=self.scale)

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("norm", dims)
        if not dims.student.relu[-1] or dims.student.pooled != dims.student.feats[-1][0]:
            raise Refusal(
                "norm keeps a transform between the student's last map and its pooling; this student's head does more"
                " than pool that map"
            )
