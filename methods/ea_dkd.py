"""DKD with every example weighted by the entropies of both answers to it."""

from __future__ import annotations

from torch import Tensor

from methods.base import Choice, Dims, Float, Method, NetworkView, Progress, Recipe
from methods.dkd import DKD, dkd_loss
from methods.ea_kd import BOUNDS, EAKD, ea_weight, two_classes
from methods.functional import cross_entropy


class EADKD(Method):
    paper = EAKD.paper
    space = {
        **DKD.space,
        "tau_w": Float(1.0, 20.0, log=True),  # of the weight
        "bound": Choice(BOUNDS, tune=False),
    }
    ramp_end = "warmup"
    recipes = {
        "paper": Recipe(
            values={**DKD.recipes["paper"].values, "tau_w": 3.0, "bound": "entropy"},
            source="EA-KD @ 6fb4c06 configs/cifar100/EA/dkd.yaml and DKD's recipe, the bound as in the paper",
            selection="best-epoch-on-test",
            pairs=DKD.recipes["paper"].pairs,
        ),
        "reference": Recipe(
            values={**DKD.recipes["paper"].values, "tau_w": 3.0, "bound": "classes"},
            source="EA-KD @ 6fb4c06 configs/cifar100/EA/dkd.yaml, its code for CIFAR-100",
            selection="best-epoch-on-test",
            pairs=DKD.recipes["paper"].pairs,
        ),
    }
    deviations = EAKD.deviations + DKD.deviations

    def __init__(
        self,
        dims: Dims,
        *,
        ce: float,
        alpha: float,
        beta: float,
        tau: float,
        warmup: float,
        tau_w: float,
        bound: str,
    ) -> None:
        super().__init__(dims)
        self.ce, self.alpha, self.beta, self.tau, self.warmup = ce, alpha, beta, tau, warmup
        self.tau_w, self.bound = tau_w, bound

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        each = dkd_loss(s.logits, t.logits, y, alpha=self.alpha, beta=self.beta, tau=self.tau)
        weight = ea_weight(s.logits, t.logits, tau=self.tau_w, bound=self.bound)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "dkd": at.ramp(self.warmup) * (weight * each).mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        two_classes("ea_dkd", dims)
