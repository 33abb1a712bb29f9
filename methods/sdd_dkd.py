"""DKD on the cells of several scales."""

from __future__ import annotations

from torch import Tensor

from methods.adapters import require_stages
from methods.base import Choice, Dims, Method, NetworkView, Progress, Recipe
from methods.dkd import DKD, dkd_loss
from methods.functional import cross_entropy
from methods.sdd import SCALES, SDD, Cells


class SDDDKD(Method):
    paper = SDD.paper
    needs = SDD.needs
    space = {**DKD.space, "scales": Choice(SCALES, tune=False)}
    ramp_end = "warmup"
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "alpha": 1.0, "beta": 8.0, "tau": 4.0, "warmup": 20 / 240, "scales": "1,2,4"},
            source="SDD-CVPR2024 @ e412036 configs/cifar100/sdd_dkd/*.yaml, teacher_*.sh; results: cifar100.png",
            selection="best-epoch-on-test",
            pairs={
                "resnet56->resnet20": {"beta": 2.0},
                "resnet110->resnet32": {"beta": 2.0},
                "vgg13->MobileNetV2": {"beta": 6.0},
                "vgg13->vgg8": {"beta": 6.0, "scales": "1,2"},
                "wrn_40_2->MobileNetV2": {"beta": 6.0},
                "wrn_40_2->wrn_16_2": {"beta": 6.0},
                "wrn_40_2->wrn_40_1": {"beta": 6.0},
            },
            reported={
                "cifar100/vgg13->MobileNetV2": 70.25,
                "cifar100/ResNet50->MobileNetV2": 71.36,
                "cifar100/ResNet50->vgg8": 75.86,
                "cifar100/resnet32x4->ShuffleV1": 77.30,
                "cifar100/resnet32x4->ShuffleV2": 78.05,
                "cifar100/wrn_40_2->ShuffleV1": 77.21,
            },
        ),
    }
    deviations = SDD.deviations + DKD.deviations

    def __init__(
        self, dims: Dims, *, ce: float, alpha: float, beta: float, tau: float, warmup: float, scales: str
    ) -> None:
        super().__init__(dims)
        self.ce, self.alpha, self.beta, self.tau, self.warmup = ce, alpha, beta, tau, warmup
        self.cells = Cells(dims, scales)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        loss = self.cells.loss(s, t, y, self.compare).mean()
        return {"ce": self.ce * cross_entropy(s.logits, y).mean(), "sdd": at.ramp(self.warmup) * loss}

    def compare(self, zs: Tensor, zt: Tensor, y: Tensor) -> Tensor:
        """DKD's loss of logits [N, C] → [N] nats."""
        return dkd_loss(zs, zt, y, alpha=self.alpha, beta=self.beta, tau=self.tau)

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("sdd_dkd", dims)
        DKD.check(dims)
