"""Swapped logit distillation with one view of an image and one temperature."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.base import Choice, Dims, Float, Method, NetworkView, Progress, Recipe
from methods.functional import cross_entropy
from methods.sld import SLD, STUDENT_TEACHES, sld_student, sld_teacher


class SLDSingle(Method):
    temperatures: Tensor
    paper = SLD.paper
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
        "switch": Float(0.0, 1.0, tune=False),  # share of all epochs after which the student teaches, too
        "detach": Choice((False, True), tune=False),  # no gradient through the student's swapped logits
    }
    ramp_end = "switch"
    recipes = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 4.0, "tau": 4.0, "switch": 150 / 240, "detach": False},
            source="Swapped-Logit-Distillation @ f035ede distillers/KD.py (its weight 4 is written into the code)",
            selection="best-epoch-on-test",
        ),
    }
    deviations = SLD.deviations[:2]

    def __init__(self, dims: Dims, *, ce: float, kd: float, tau: float, switch: float, detach: bool) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.switch, self.detach = ce, kd, switch, detach
        self.register_buffer("temperatures", torch.tensor([tau]), persistent=False)

    def phase(self, epoch: int, epochs: int) -> str:
        return STUDENT_TEACHES if epoch > self.switch * epochs else "the teacher teaches"

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        soft = sld_teacher(s.logits, t.logits, y, temperatures=self.temperatures)
        if self.phase(at.epoch, at.epochs) == STUDENT_TEACHES:
            soft = soft + sld_student(s.logits, y, temperatures=self.temperatures, detach=self.detach)
        return {"ce": self.ce * cross_entropy(s.logits, y).mean(), "kd": self.kd * soft.mean()}
