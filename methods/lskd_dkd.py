"""DKD on standardised logits."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from methods.base import Dims, Recipe
from methods.dkd import DKD
from methods.functional import standardise
from methods.lskd import LSKD, require_classes


class LSKDDKD(DKD):
    paper = LSKD.paper
    recipes: ClassVar = {
        "paper": Recipe(
            values={"ce": 1.0, "alpha": 9.0, "beta": 72.0, "tau": 2.0, "warmup": 20 / 240},
            source="logit-standardization-KD @ f6e5aa5 distillers/DKD.py: α and β of DKD times 9",
            selection="best-epoch-on-test",
            pairs={
                "resnet56->resnet20": {"beta": 18.0},
                "resnet110->resnet32": {"beta": 18.0},
                "wrn_40_2->wrn_16_2": {"beta": 54.0},
                "wrn_40_2->wrn_40_1": {"beta": 54.0},
                "vgg13->vgg8": {"beta": 54.0},
                "vgg13->MobileNetV2": {"beta": 54.0},
            },
            reported={
                "cifar100/resnet32x4->resnet8x4": 77.01,
                "cifar100/vgg13->vgg8": 74.81,
                "cifar100/wrn_40_2->wrn_40_1": 74.89,
                "cifar100/wrn_40_2->wrn_16_2": 76.39,
                "cifar100/resnet56->resnet20": 72.32,
                "cifar100/resnet110->resnet32": 74.29,
                "cifar100/resnet110->resnet20": 71.85,
                "cifar100/resnet32x4->ShuffleV2": 77.37,
                "cifar100/resnet32x4->wrn_16_2": 76.19,
                "cifar100/resnet32x4->wrn_40_2": 78.95,
                "cifar100/wrn_40_2->resnet8x4": 76.75,
                "cifar100/wrn_40_2->MobileNetV2": 70.01,
                "cifar100/vgg13->MobileNetV2": 69.98,
                "cifar100/ResNet50->MobileNetV2": 70.45,
            },
        ),
    }
    deviations = LSKD.deviations + DKD.deviations  # type: ignore[assignment]

    def transform_logits(self, z: Tensor) -> Tensor:
        return standardise(z)

    @classmethod
    def check(cls, dims: Dims) -> None:
        super().check(dims)
        require_classes(dims)
