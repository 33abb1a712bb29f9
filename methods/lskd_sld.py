"""SLD on standardised logits."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from methods.base import Dims, Recipe
from methods.functional import standardise
from methods.lskd import LSKD, require_classes
from methods.sld import SLD


class LSKDSLD(SLD):
    paper = LSKD.paper
    recipes: ClassVar = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 0.9, "switch": 150 / 240, "detach": False},
            source="SLD's recipe; no reference combines the two",
            selection="unknown",
        ),
    }
    deviations = LSKD.deviations + SLD.deviations  # type: ignore[assignment]

    def transform_logits(self, z: Tensor) -> Tensor:
        return standardise(z)

    @classmethod
    def check(cls, dims: Dims) -> None:
        super().check(dims)
        require_classes(dims)
