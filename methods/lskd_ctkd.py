"""CTKD on standardised logits."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from methods.base import Dims, Recipe
from methods.ctkd import CTKD
from methods.functional import standardise
from methods.lskd import LSKD, require_classes


class LSKDCTKD(CTKD):
    paper = LSKD.paper
    recipes: ClassVar = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 9.0, "low": 1.0, "span": 20.0, "curriculum": 10 / 240},
            source="logit-standardization-KD @ f6e5aa5, the temperature learnt as in CTKD",
            selection="best-epoch-on-test",
            reported={
                "cifar100/resnet32x4->resnet8x4": 76.67,
                "cifar100/vgg13->vgg8": 74.47,
                "cifar100/wrn_40_2->wrn_40_1": 74.58,
                "cifar100/wrn_40_2->wrn_16_2": 76.08,
                "cifar100/resnet56->resnet20": 71.34,
                "cifar100/resnet110->resnet32": 74.01,
                "cifar100/resnet110->resnet20": 71.39,
                "cifar100/resnet32x4->ShuffleV2": 76.18,
                "cifar100/resnet32x4->wrn_16_2": 75.16,
                "cifar100/resnet32x4->wrn_40_2": 77.99,
                "cifar100/wrn_40_2->resnet8x4": 77.03,
                "cifar100/wrn_40_2->MobileNetV2": 69.53,
                "cifar100/vgg13->MobileNetV2": 68.98,
                "cifar100/ResNet50->MobileNetV2": 69.36,
            },
        ),
    }
    deviations = LSKD.deviations + CTKD.deviations  # type: ignore[assignment]

    def transform_logits(self, z: Tensor) -> Tensor:
        return standardise(z)

    @classmethod
    def check(cls, dims: Dims) -> None:
        super().check(dims)
        require_classes(dims)
