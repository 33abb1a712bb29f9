"""MLKD on standardised logits."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from methods.base import Dims, Recipe
from methods.functional import standardise
from methods.lskd import LSKD, require_classes
from methods.mlkd import MLKD


class LSKDMLKD(MLKD):
    paper = LSKD.paper
    recipes: ClassVar = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 9.0, "relation": 9.0, "tau": 2.0, "form": "code"},
            source="logit-standardization-KD @ f6e5aa5 distillers/MLKD.py",
            selection="best-epoch-on-test",
            reported={
                "cifar100/resnet32x4->resnet8x4": 78.28,
                "cifar100/vgg13->vgg8": 75.22,
                "cifar100/wrn_40_2->wrn_40_1": 75.56,
                "cifar100/wrn_40_2->wrn_16_2": 76.95,
                "cifar100/resnet56->resnet20": 72.33,
                "cifar100/resnet110->resnet32": 74.32,
                "cifar100/resnet110->resnet20": 72.27,
                "cifar100/resnet32x4->ShuffleV2": 78.76,
                "cifar100/resnet32x4->wrn_16_2": 77.53,
                "cifar100/resnet32x4->wrn_40_2": 79.66,
                "cifar100/wrn_40_2->resnet8x4": 77.68,
                "cifar100/wrn_40_2->MobileNetV2": 71.61,
                "cifar100/vgg13->MobileNetV2": 70.94,
                "cifar100/ResNet50->MobileNetV2": 71.19,
            },
        ),
    }
    deviations: ClassVar[tuple[str, ...]] = (  # type: ignore[assignment]
        *LSKD.deviations,
        "MLKD's reference code is followed (its form 'code'): masks scale whole terms, and at τ = 2 and 6 the strong"
        " term takes the weak view's logits.",
    )

    def transform_logits(self, z: Tensor) -> Tensor:
        return standardise(z)

    @classmethod
    def check(cls, dims: Dims) -> None:
        super().check(dims)
        require_classes(dims)
