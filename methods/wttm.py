"""Weighted TTM: an example counts the more, the smoother the teacher's transformed answer is."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from methods.base import Dims, Float, Method, NetworkView, Progress, Recipe
from methods.functional import cross_entropy
from methods.ttm import TTM, ttm_loss


def power_sum(zt: Tensor, *, gamma: float) -> Tensor:
    """U = Σ_c p_t,c^γ, from 1 (certain) to C^(1-γ) (uniform). zt: [B, C] float → [B]. arXiv 2402.11148, §4."""
    return (gamma * F.log_softmax(zt, dim=1)).exp().sum(dim=1)


def wttm_loss(zs: Tensor, zt: Tensor, *, gamma: float) -> Tensor:
    """U·KL(p_t^γ / U ‖ p_s). zs, zt: [B, C] float → [B] nats. arXiv 2402.11148, §4."""
    return power_sum(zt, gamma=gamma) * ttm_loss(zs, zt, gamma=gamma)


class WTTM(Method):
    paper = TTM.paper
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "beta": Float(0.01, 100.0, log=True),
        "gamma": Float(0.01, 1.0, log=True),  # 1/temperature
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "beta": 4.0, "gamma": 0.2},
            source="TTM @ fe457b3 README: β and γ of its example of CRD + WTTM (vgg13 → vgg8); WTTM alone has none",
            selection="unknown",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 76.37,
                "cifar100/wrn_40_2->wrn_40_1": 74.58,
                "cifar100/resnet56->resnet20": 71.92,
                "cifar100/resnet110->resnet20": 71.67,
                "cifar100/resnet110->resnet32": 74.13,
                "cifar100/resnet32x4->resnet8x4": 76.06,
                "cifar100/vgg13->vgg8": 74.44,
                "cifar100/vgg13->MobileNetV2": 69.16,
                "cifar100/ResNet50->MobileNetV2": 69.59,
                "cifar100/ResNet50->vgg8": 74.82,
                "cifar100/resnet32x4->ShuffleV1": 74.37,
                "cifar100/resnet32x4->ShuffleV2": 76.55,
                "cifar100/wrn_40_2->ShuffleV1": 75.42,
            },
        ),
    }
    deviations = TTM.deviations

    def __init__(self, dims: Dims, *, ce: float, beta: float, gamma: float) -> None:
        super().__init__(dims)
        self.ce, self.beta, self.gamma = ce, beta, gamma

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "wttm": self.beta * wttm_loss(s.logits, t.logits, gamma=self.gamma).mean(),
        }
