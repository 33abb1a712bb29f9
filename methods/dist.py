"""DIST: keep the relations of a prediction, by correlation, instead of its exact values."""

from __future__ import annotations

from torch import Tensor

from methods.base import Dims, Float, Method, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy


def correlation(a: Tensor, b: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Pearson's correlation of each row. a, b: [N, D] float → [N]; 0 for a constant row."""
    a, b = (x - x.mean(dim=1, keepdim=True) for x in (a, b))
    return (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1) + eps)


def inter(zs: Tensor, zt: Tensor, *, tau: float) -> Tensor:
    """τ²·(1 - correlation) over the classes of an example. zs, zt: [B, C] float → [B]. arXiv 2205.10536."""
    ps, pt = ((z / tau).softmax(dim=1) for z in (zs, zt))
    return tau**2 * (1 - correlation(ps, pt))


def intra(zs: Tensor, zt: Tensor, *, tau: float) -> Tensor:
    """τ²·(1 - correlation) over the examples of a class. zs, zt: [B, C] float → [C]. arXiv 2205.10536."""
    ps, pt = ((z / tau).softmax(dim=1) for z in (zs, zt))
    return tau**2 * (1 - correlation(ps.T, pt.T))


class DIST(Method):
    paper = Paper(
        title="Knowledge Distillation from A Stronger Teacher",
        authors="Huang, You, Wang, Qian, Xu",
        venue="NeurIPS",
        year=2022,
        url="https://arxiv.org/abs/2205.10536",
        code="github.com/hunto/image_classification_sota @ 6f7a70a lib/models/losses/dist_kd.py",
        licence="-",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "inter": Float(0.1, 20.0, log=True),
        "intra": Float(0.1, 20.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "inter": 2.0, "intra": 2.0, "tau": 4.0},
            source="DIST_KD @ 2418f18 README, image_classification_sota @ 6f7a70a (CIFAR-100)",
            selection="unknown",
            reported={
                "cifar100/wrn_40_2->wrn_40_1": 74.43,
                "cifar100/resnet56->resnet20": 71.75,
                "cifar100/resnet32x4->resnet8x4": 76.31,
                "cifar100/ResNet50->MobileNetV2": 68.66,
                "cifar100/resnet32x4->ShuffleV1": 76.34,
                "cifar100/resnet32x4->ShuffleV2": 77.35,
            },
        ),
    }
    deviations = ("The factor τ² stands in the code for CIFAR-100 and not in the one for segmentation; it is kept.",)

    def __init__(self, dims: Dims, *, ce: float, inter: float, intra: float, tau: float) -> None:
        super().__init__(dims)
        self.ce, self.inter, self.intra, self.tau = ce, inter, intra, tau

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "inter": self.inter * inter(s.logits, t.logits, tau=self.tau).mean(),
            "intra": self.intra * intra(s.logits, t.logits, tau=self.tau).mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        if dims.n_classes < 2:
            raise Refusal(f"dist correlates classes; it takes 2 or more, not {dims.n_classes}")
