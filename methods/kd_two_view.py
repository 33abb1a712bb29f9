"""KD on the two views that MLKD and SLD use: the baseline that sees as many images as they do."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.base import Dims, Float, Method, Needs, NetworkView, Progress, Recipe
from methods.functional import cross_entropy
from methods.kd import KD, kd_loss


class KDTwoView(Method):
    paper = KD.paper
    needs = Needs(views=("weak", "strong"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 0.9, "tau": 4.0},
            source="KD's recipe in the terms of both views; a control of ours, not a published method",
            selection="unknown",
        ),
    }
    deviations = ("A control: no paper proposes it.",)

    def __init__(self, dims: Dims, *, ce: float, kd: float, tau: float) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.tau = ce, kd, tau

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        views = self.needs.views
        ce = torch.stack([cross_entropy(s[v].logits, y).mean() for v in views]).sum()
        kd = torch.stack([kd_loss(s[v].logits, t[v].logits, tau=self.tau).mean() for v in views]).sum()
        return {"ce": self.ce * ce, "kd": self.kd * kd}
