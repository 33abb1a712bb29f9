"""Class attention transfer: where in the image the student sees each class, as the teacher does."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from methods.adapters import require_stages
from methods.base import Choice, Dims, Float, Int, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy


def class_maps(head: Callable[[Tensor], Tensor], f: Tensor) -> Tensor:
    """Logits of every cell of a map on its own. f: [B, D, H, W] float → [B, C, H, W].

    head: logits [N, C] of maps [N, D, h, w]. What it does before its pooling acts on each cell alone, and it is linear
    behind it, so that the maps' spatial mean is the logits.
    """
    b, d, h, w = f.shape
    z = head(f.permute(0, 2, 3, 1).reshape(b * h * w, d, 1, 1))
    return z.reshape(b, h, w, -1).permute(0, 3, 1, 2)


def student_maps(s: NetworkView, last: int) -> Tensor:
    """Class maps of the student's last stage; BatchNorms of its head keep the statistics of its own forward pass."""
    return class_maps(lambda f: s.tail(last, f, batch_stats=True), s.feats[last])


def teacher_maps(t: NetworkView, last: int) -> Tensor:
    """Class maps of the teacher's last stage."""
    return class_maps(lambda f: t.tail(last, f), t.feats[last])


def cat_loss(ms: Tensor, mt: Tensor, *, grid: int, normalise: bool) -> Tensor:
    """Mean squared difference of class maps pooled to grid x grid. ms: [B, C, H, W]; mt: [B, C, H', W'] → [B].

    Normalised, every class's map has length 1 (a map of zeros stays zero). arXiv 2304.12777.
    """
    ms, mt = (F.adaptive_avg_pool2d(m, grid) for m in (ms, mt))
    if normalise:
        ms, mt = (F.normalize(m, dim=(2, 3)) for m in (ms, mt))  # type: ignore[arg-type]
    return (ms - mt).square().flatten(1).mean(dim=1)


class CATKD(Method):
    paper = Paper(
        title="Class Attention Transfer Based Knowledge Distillation",
        authors="Guo, Yan, Li, Lin",
        venue="CVPR",
        year=2023,
        url="https://arxiv.org/abs/2304.12777",
        code="github.com/GzyAftermath/CAT-KD @ 4467073 mdistiller/distillers/CAT_KD.py",
        licence="-",
    )
    needs = Needs(taps=("logits", "feats", "tail"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "beta": Float(0.1, 1000.0, log=True),
        "grid": Int(1, 16, tune=False),
        "normalise": Choice((False, True), tune=False),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "beta": 15.0, "grid": 2, "normalise": False},
            source="CAT-KD @ 4467073 configs/cifar100/CAT_KD/*.yaml; other pairs take those of resnet32x4 → resnet8x4",
            selection="best-epoch-on-test",
            pairs={
                "resnet110->resnet32": {"beta": 1.8},
                "resnet56->resnet20": {"beta": 0.7},
                "vgg13->vgg8": {"beta": 4.5},
                "wrn_40_2->wrn_16_2": {"beta": 12.0},
                "wrn_40_2->wrn_40_1": {"beta": 1.5},
                "vgg13->MobileNetV2": {"normalise": True},
                "ResNet50->MobileNetV2": {"beta": 40.0, "normalise": True},
                "resnet32x4->ShuffleV1": {"beta": 600.0, "grid": 4, "normalise": True},
                "resnet32x4->ShuffleV2": {"beta": 600.0, "grid": 4, "normalise": True},
                "wrn_40_2->ShuffleV1": {"beta": 80.0, "grid": 4, "normalise": True},
            },
            reported={"cifar100/resnet32x4->ShuffleV1": 78.26},
        ),
    }
    deviations = (
        "The loss is a mean over classes, as in the code, so that a β for 100 classes weighs ten times as much on 10;"
        " there, maps that are not normalised take a smaller one.",
        "The authors rebuild both networks with a classifier of 1x1 convolution without bias; here the networks stay as"
        " they are, and every cell of a map goes through the head, whose bias is in every cell.",
        "Where the head does more than pool before its linear layer (BatchNorm and ReLU, a convolution), a cell's value"
        " is what the whole head makes of it alone.",
    )

    def __init__(self, dims: Dims, *, ce: float, beta: float, grid: int, normalise: bool) -> None:
        super().__init__(dims)
        self.ce, self.beta, self.grid, self.normalise = ce, beta, grid, normalise
        self.last = dims.student.n_stages, dims.teacher.n_stages

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        ms, mt = student_maps(s, self.last[0]), teacher_maps(t, self.last[1])
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "cat": self.beta * cat_loss(ms, mt, grid=self.grid, normalise=self.normalise).mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("cat_kd", dims)
