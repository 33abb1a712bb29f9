"""Knowledge distillation: match the teacher's softened class probabilities."""

from __future__ import annotations

from torch import Tensor

from methods.base import Dims, Float, Method, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy, kl


def kd_loss(zs: Tensor, zt: Tensor, *, tau: float) -> Tensor:
    """τ²·KL(p_t ‖ p_s) at temperature τ. zs, zt: [B, C] float → [B] nats. arXiv 1503.02531, §2."""
    return kl(zs, zt, tau)


class KD(Method):
    paper = Paper(
        title="Distilling the Knowledge in a Neural Network",
        authors="Hinton, Vinyals, Dean",
        venue="NIPS Deep Learning Workshop",
        year=2015,
        url="https://arxiv.org/abs/1503.02531",
        code="github.com/HobbitLong/RepDistiller @ b84f547 distiller_zoo/KD.py",
        licence="BSD-2-Clause",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 0.9, "tau": 4.0},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh (the paper gives no CIFAR-100 setting)",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 74.92,
                "cifar100/wrn_40_2->wrn_40_1": 73.54,
                "cifar100/resnet56->resnet20": 70.66,
                "cifar100/resnet110->resnet20": 70.67,
                "cifar100/resnet110->resnet32": 73.08,
                "cifar100/resnet32x4->resnet8x4": 73.33,
                "cifar100/vgg13->vgg8": 72.98,
                "cifar100/vgg13->MobileNetV2": 67.37,
                "cifar100/ResNet50->MobileNetV2": 67.35,
                "cifar100/ResNet50->vgg8": 73.81,
                "cifar100/resnet32x4->ShuffleV1": 74.07,
                "cifar100/resnet32x4->ShuffleV2": 74.45,
                "cifar100/wrn_40_2->ShuffleV1": 74.83,
            },
        ),
        "simkd-repo": Recipe(
            values={"ce": 1.0, "kd": 1.0, "tau": 4.0},
            source="github.com/DefangChen/SimKD @ 2b389c3 README (KD with weights 1 and 1)",
            selection="best-epoch-on-test",
            reported={"cifar100/resnet32x4->resnet8x4": 74.42},
        ),
    }

    def __init__(self, dims: Dims, *, ce: float, kd: float, tau: float) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.tau = ce, kd, tau

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "kd": self.kd * kd_loss(s.logits, t.logits, tau=self.tau).mean(),
        }
