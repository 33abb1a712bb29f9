"""Scale-decoupled distillation: the teacher's answer to parts of the image, beside that to the whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.adapters import require_stages
from methods.base import Choice, Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.cat_kd import student_maps, teacher_maps
from methods.functional import cross_entropy
from methods.kd import kd_loss

SCALES = ("1,2", "1,2,4")


def cell_logits(m: Tensor, *, scales: tuple[int, ...]) -> Tensor:
    """Logits of the cells of every scale k: means over a grid of k x k. m: [B, C, H, W] → [N, B, C], N = Σ k².

    arXiv 2403.13512. The classifier is linear behind the pooling, so that means of class maps are its answers to means
    of features.
    """
    return torch.cat([F.adaptive_avg_pool2d(m, k).flatten(2) for k in scales], dim=2).permute(2, 0, 1)


def cell_weights(zt: Tensor, y: Tensor, *, complementary: float = 2.0) -> Tensor:
    """`complementary` where the teacher is right of a cell and wrong of the whole, or the reverse; else 1.

    zt: [N, B, C] float, the first cell being the whole image; y: [B] int64 → [N, B] float. arXiv 2403.13512.
    """
    right = zt.argmax(dim=2) == y
    return torch.where(right == right[0], 1.0, complementary).to(zt.dtype)


def sdd_loss(each: Tensor, weights: Tensor) -> Tensor:
    """Mean over the cells of weighted losses. each: [N·B], cell by cell, nats; weights: [N, B] → [B] nats."""
    return (weights * each.reshape(weights.shape)).mean(dim=0)


class Cells:
    """The cells of both networks' last maps, and how they are compared."""

    def __init__(self, dims: Dims, scales: str) -> None:
        self.scales = tuple(int(k) for k in scales.split(","))
        self.last = dims.student.n_stages, dims.teacher.n_stages

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, compare: Callable[..., Tensor]) -> Tensor:
        """The weighted mean over the cells of compare(zs, zt, y), a loss of logits [N·B, C] → [N·B]. → [B]"""
        ms, mt = student_maps(s, self.last[0]), teacher_maps(t, self.last[1])
        zs, zt = (cell_logits(m, scales=self.scales) for m in (ms, mt))
        each = compare(zs.flatten(0, 1), zt.flatten(0, 1), y.repeat(len(zs)))
        return sdd_loss(each, cell_weights(zt, y))


class SDD(Method):
    paper = Paper(
        title="Scale Decoupled Distillation",
        authors="Wei, Luo, Luo",
        venue="CVPR",
        year=2024,
        url="https://arxiv.org/abs/2403.13512",
        code="github.com/shicaiwei123/SDD-CVPR2024 @ e412036 mdistiller/distillers/KD.py",
        licence="MIT",
    )
    needs = Needs(taps=("logits", "feats", "tail"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
        "scales": Choice(SCALES, tune=False),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 0.9, "tau": 4.0, "scales": "1,2,4"},
            source="SDD-CVPR2024 @ e412036 mdistiller/engine/cfg.py, teacher_*.sh; results read off cifar100.png",
            selection="best-epoch-on-test",
            pairs={"resnet32x4->resnet8x4": {"scales": "1,2"}},
            reported={
                "cifar100/vgg13->MobileNetV2": 68.79,
                "cifar100/ResNet50->MobileNetV2": 69.55,
                "cifar100/ResNet50->vgg8": 74.89,
                "cifar100/resnet32x4->ShuffleV1": 76.30,
                "cifar100/resnet32x4->ShuffleV2": 76.67,
                "cifar100/wrn_40_2->ShuffleV1": 76.65,
            },
        ),
    }
    deviations = (
        "A scale's cells are means of class maps over the last map itself; the code pools it to 4x4 first, which is"
        " equal where 4 divides its sides.",
        "A map smaller than a scale's grid gives some of its cells more than once.",
        "A loss that is not finite is not replaced by zero.",
    )

    def __init__(self, dims: Dims, *, ce: float, kd: float, tau: float, scales: str) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.tau, self.cells = ce, kd, tau, Cells(dims, scales)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        loss = self.cells.loss(s, t, y, lambda zs, zt, y: kd_loss(zs, zt, tau=self.tau))
        return {"ce": self.ce * cross_entropy(s.logits, y).mean(), "sdd": self.kd * loss.mean()}

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("sdd", dims)
