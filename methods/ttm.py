"""Transformed teacher matching: the temperature stays with the teacher, and the student answers at its own."""

from __future__ import annotations

from torch import Tensor

from methods.base import Dims, Float, Method, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy, kl


def ttm_loss(zs: Tensor, zt: Tensor, *, gamma: float) -> Tensor:
    """KL(p_t^γ / Σ p_t^γ ‖ p_s), the student at τ = 1. zs, zt: [B, C] float → [B] nats. arXiv 2402.11148, §3.

    The power γ of a softmax is the softmax at the temperature 1/γ. There is no factor τ².
    """
    return kl(zs, gamma * zt, 1.0)


class TTM(Method):
    paper = Paper(
        title="Knowledge Distillation Based on Transformed Teacher Matching",
        authors="Zheng, Yang",
        venue="ICLR",
        year=2024,
        url="https://arxiv.org/abs/2402.11148",
        code="github.com/zkxufo/TTM @ fe457b3 distiller_zoo/ttm.py",
        licence="MIT",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "beta": Float(0.1, 200.0, log=True),
        "gamma": Float(0.01, 1.0, log=True),  # 1/temperature
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "beta": 45.0, "gamma": 0.1},
            source="TTM @ fe457b3 README, its example (vgg13 → vgg8); wrn_40_2 → wrn_40_1 from ABKD @ df81318"
            " standard_classification/train_ttm.sh",
            selection="unknown",
            pairs={"wrn_40_2->wrn_40_1": {"beta": 76.0}},
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 76.23,
                "cifar100/wrn_40_2->wrn_40_1": 74.32,
                "cifar100/resnet56->resnet20": 71.83,
                "cifar100/resnet110->resnet20": 71.46,
                "cifar100/resnet110->resnet32": 73.97,
                "cifar100/resnet32x4->resnet8x4": 76.17,
                "cifar100/vgg13->vgg8": 74.33,
                "cifar100/vgg13->MobileNetV2": 68.98,
                "cifar100/ResNet50->MobileNetV2": 69.24,
                "cifar100/ResNet50->vgg8": 74.87,
                "cifar100/resnet32x4->ShuffleV1": 74.18,
                "cifar100/resnet32x4->ShuffleV2": 76.57,
                "cifar100/wrn_40_2->ShuffleV1": 75.39,
            },
        ),
    }
    deviations = (
        "The paper lists β and γ of every pair in its appendix, which could not be read; pairs without published code"
        " take the values of the repository's example.",
    )

    def __init__(self, dims: Dims, *, ce: float, beta: float, gamma: float) -> None:
        super().__init__(dims)
        self.ce, self.beta, self.gamma = ce, beta, gamma

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "ttm": self.beta * ttm_loss(s.logits, t.logits, gamma=self.gamma).mean(),
        }
