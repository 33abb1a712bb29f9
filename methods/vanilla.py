"""The student alone, trained on the labels: what every method has to beat."""

from __future__ import annotations

from torch import Tensor

from methods.base import Dims, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy


class Vanilla(Method):
    paper = Paper(
        title="(no distillation)",
        authors="-",
        venue="-",
        year=0,
        url="",
    )
    needs = Needs(teacher=False)
    space = {}
    recipes = {
        "paper": Recipe(
            values={},
            source="RepDistiller README @ b84f547",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 73.26,
                "cifar100/wrn_40_2->wrn_40_1": 71.98,
                "cifar100/resnet56->resnet20": 69.06,
                "cifar100/resnet110->resnet20": 69.06,
                "cifar100/resnet110->resnet32": 71.14,
                "cifar100/resnet32x4->resnet8x4": 72.50,
                "cifar100/vgg13->vgg8": 70.36,
                "cifar100/vgg13->MobileNetV2": 64.60,
                "cifar100/ResNet50->MobileNetV2": 64.60,
                "cifar100/ResNet50->vgg8": 70.36,
                "cifar100/resnet32x4->ShuffleV1": 70.50,
                "cifar100/resnet32x4->ShuffleV2": 71.82,
                "cifar100/wrn_40_2->ShuffleV1": 70.50,
            },
        )
    }

    def __init__(self, dims: Dims) -> None:
        super().__init__(dims)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {"ce": cross_entropy(s.logits, y).mean()}
