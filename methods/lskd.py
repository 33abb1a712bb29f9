"""Logit standardisation: distil the relations of logits, not their level and scale."""

from __future__ import annotations

from torch import Tensor

from methods.base import Dims, Float, Method, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy, standardise
from methods.kd import kd_loss


def require_classes(dims: Dims) -> None:
    """Refuse a single class: it has no spread."""
    if dims.n_classes < 2:
        raise Refusal(f"standardised logits need 2 classes or more, not {dims.n_classes}")


class LSKD(Method):
    paper = Paper(
        title="Logit Standardization in Knowledge Distillation",
        authors="Sun, Ren, Li, Wang, Cao",
        venue="CVPR",
        year=2024,
        url="https://arxiv.org/abs/2403.01427",
        code="github.com/sunshangquan/logit-standardization-KD @ f6e5aa5 distillers/KD.py",
        licence="-",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 9.0, "tau": 2.0},
            source="logit-standardization-KD @ f6e5aa5 configs and names of its logs",
            selection="best-epoch-on-test",
            pairs={
                "vgg13->vgg8": {"tau": 3.0},
                "resnet110->resnet20": {"tau": 4.0, "kd": 12.0},
                "resnet32x4->wrn_16_2": {"tau": 3.0},
                "resnet32x4->wrn_40_2": {"tau": 3.0},
                "wrn_40_2->MobileNetV2": {"tau": 3.0},
                "vgg13->MobileNetV2": {"tau": 3.0},
                "ResNet50->MobileNetV2": {"tau": 3.0, "kd": 1.0},
            },
            reported={
                "cifar100/resnet32x4->resnet8x4": 76.62,
                "cifar100/vgg13->vgg8": 74.36,
                "cifar100/wrn_40_2->wrn_40_1": 74.37,
                "cifar100/wrn_40_2->wrn_16_2": 76.11,
                "cifar100/resnet56->resnet20": 71.43,
                "cifar100/resnet110->resnet32": 74.17,
                "cifar100/resnet110->resnet20": 71.48,
                "cifar100/resnet32x4->ShuffleV2": 75.56,
                "cifar100/resnet32x4->wrn_16_2": 75.26,
                "cifar100/resnet32x4->wrn_40_2": 77.92,
                "cifar100/wrn_40_2->resnet8x4": 77.11,
                "cifar100/wrn_40_2->MobileNetV2": 69.23,
                "cifar100/vgg13->MobileNetV2": 68.61,
                "cifar100/ResNet50->MobileNetV2": 69.02,
                "cifar100/resnet56->DeiT-Tiny": 78.55,
                "cifar100/resnet56->T2T-ViT-7": 78.43,
                "cifar100/resnet56->PiT-Tiny": 78.76,
                "cifar100/resnet56->PVT-Tiny": 78.43,
            },
        ),
    }
    deviations = ("A constant row of logits is given no gradient, where the reference code's would be ten million.",)

    def __init__(self, dims: Dims, *, ce: float, kd: float, tau: float) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.tau = ce, kd, tau

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        zs, zt = standardise(s.logits), standardise(t.logits)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "kd": self.kd * kd_loss(zs, zt, tau=self.tau).mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_classes(dims)
