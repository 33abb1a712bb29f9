"""NKD on the cells of several scales."""

from __future__ import annotations

from torch import Tensor

from methods.adapters import require_stages
from methods.base import Choice, Dims, Float, Method, NetworkView, Progress, Recipe
from methods.functional import cross_entropy
from methods.nkd import NKD, nkd_others, nkd_target
from methods.sdd import SCALES, SDD, Cells


class SDDNKD(Method):
    paper = SDD.paper
    needs = SDD.needs
    space = {
        **NKD.space,
        "warmup": Float(0.0, 1.0, tune=False),  # share of all epochs
        "scales": Choice(SCALES, tune=False),
    }
    ramp_end = "warmup"
    recipes = {
        "paper": Recipe(
            values={
                **{"ce": 1.0, "target": 1.0, "gamma": 8.0, "tau": 4.0},
                **{"warmup": 20 / 240, "scales": "1,2,4"},
            },
            source="SDD-CVPR2024 @ e412036 configs/cifar100/sdd_nkd/*.yaml, teacher_*.sh; results: cifar100.png",
            selection="best-epoch-on-test",
            pairs={
                "resnet32x4->resnet8x4": {"scales": "1,2"},
                "ResNet50->vgg8": {"scales": "1,2"},
                "resnet56->resnet20": {"gamma": 2.0},
                "resnet110->resnet32": {"gamma": 2.0},
                "vgg13->MobileNetV2": {"gamma": 6.0},
                "vgg13->vgg8": {"gamma": 6.0},
                "wrn_40_2->MobileNetV2": {"gamma": 6.0},
                "wrn_40_2->wrn_16_2": {"gamma": 6.0},
                "wrn_40_2->wrn_40_1": {"gamma": 6.0},
            },
            reported={
                "cifar100/vgg13->MobileNetV2": 69.50,
                "cifar100/ResNet50->MobileNetV2": 70.25,
                "cifar100/ResNet50->vgg8": 74.62,
                "cifar100/resnet32x4->ShuffleV1": 76.34,
                "cifar100/resnet32x4->ShuffleV2": 77.07,
                "cifar100/wrn_40_2->ShuffleV1": 76.81,
            },
        ),
    }
    deviations = (
        *SDD.deviations,
        "The code's mask of the other classes keeps the right one, too; here it is left out, as in NKD's own code.",
        "The warm-up of 20 of 240 epochs is a share of whatever schedule is run.",
    )

    def __init__(
        self, dims: Dims, *, ce: float, target: float, gamma: float, tau: float, warmup: float, scales: str
    ) -> None:
        super().__init__(dims)
        self.ce, self.target, self.gamma, self.tau, self.warmup = ce, target, gamma, tau, warmup
        self.cells = Cells(dims, scales)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        loss = self.cells.loss(s, t, y, self.compare).mean()
        return {"ce": self.ce * cross_entropy(s.logits, y).mean(), "sdd": at.ramp(self.warmup) * loss}

    def compare(self, zs: Tensor, zt: Tensor, y: Tensor) -> Tensor:
        """NKD's loss of logits [N, C] → [N] nats."""
        return self.target * nkd_target(zs, zt, y) + self.gamma * nkd_others(zs, zt, y, tau=self.tau)

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("sdd_nkd", dims)
        NKD.check(dims)
