"""Swapped logit distillation: a wrong answer is corrected by swapping it with the label, the student's own as well."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.base import Choice, Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy, kl_at, swap

STUDENT_TEACHES = "the student teaches, too"  # the phase after the switch
TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def sld_teacher(zs: Tensor, zt: Tensor, y: Tensor, *, temperatures: Tensor) -> Tensor:
    """Σ τ²·KL to the teacher's swapped logits. arXiv 2504.20108.

    zs, zt: [B, C] float; y: [B] int64; temperatures: [T] → [B] nats.
    """
    return kl_at(zs, swap(zt, y), temperatures).sum(dim=0)


def sld_student(zs: Tensor, y: Tensor, *, temperatures: Tensor, detach: bool) -> Tensor:
    """Σ τ²·KL to the student's own swapped logits, the second teacher; 0 where it is right. As above → [B] nats."""
    taught = swap(zs, y)
    return kl_at(zs, taught.detach() if detach else taught, temperatures).sum(dim=0)


class SLD(Method):
    temperatures: Tensor
    paper = Paper(
        title="Swapped Logit Distillation via Bi-level Teacher Alignment",
        authors="Limantoro, Lin, Wang, Tsai, Shuai, Huang, Cheng",
        venue="Multimedia Systems",
        year=2025,
        url="https://arxiv.org/abs/2504.20108",
        code="github.com/StephenEkaputra/Swapped-Logit-Distillation @ f035ede distillers/SLD.py",
        licence="-",
    )
    needs = Needs(views=("weak", "strong"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "switch": Float(0.0, 1.0, tune=False),  # share of all epochs after which the student teaches, too
        "detach": Choice((False, True), tune=False),  # no gradient through the student's swapped logits
    }
    ramp_end = "switch"
    recipes = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 0.9, "switch": 150 / 240, "detach": False},
            source="Swapped-Logit-Distillation @ f035ede distillers/SLD.py, configs",
            selection="best-epoch-on-test",
        ),
    }
    deviations = (
        "The reference code lets the student teach after epoch 150, whatever the schedule; here it is the same share of"
        " all epochs, which is epoch 150 of 240.",
        "The gradient goes through both the student's logits and its swapped ones, as in the reference code; whether"
        " the paper stops it could not be read, and 'detach' does.",
        "The reference runs its own learning rates (0.025 for pairs of one family); the protocol decides here.",
    )

    def __init__(self, dims: Dims, *, ce: float, kd: float, switch: float, detach: bool) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.switch, self.detach = ce, kd, switch, detach
        self.register_buffer("temperatures", torch.tensor(TEMPERATURES), persistent=False)

    def phase(self, epoch: int, epochs: int) -> str:
        return STUDENT_TEACHES if epoch > self.switch * epochs else "the teacher teaches"

    def transform_logits(self, z: Tensor) -> Tensor:
        """What the divergences see of logits."""
        return z

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        views = self.needs.views
        zs, zt = (torch.cat([network[view].logits for view in views]) for network in (s, t))  # [views·B, C]
        ys = y.repeat(len(views))
        ce = cross_entropy(zs, ys)
        zs, zt = self.transform_logits(zs), self.transform_logits(zt)
        soft = sld_teacher(zs, zt, ys, temperatures=self.temperatures)
        if self.phase(at.epoch, at.epochs) == STUDENT_TEACHES:
            soft = soft + sld_student(zs, ys, temperatures=self.temperatures, detach=self.detach)
        return {"ce": self.ce / len(y) * ce.sum(), "kd": self.kd / len(y) * soft.sum()}
