"""Teacher-free KD: a teacher made by hand, right in 99 of 100 and indifferent to the rest. A control."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy, kl


def virtual_teacher(y: Tensor, n_classes: int, *, a: float) -> Tensor:
    """a at y, (1 - a)/(C - 1) elsewhere. y: [B] int64 → [B, C ≥ 2] float32. arXiv 1909.11723, eq. 8."""
    right = torch.arange(n_classes, device=y.device) == y[:, None]
    return torch.where(right, a, (1 - a) / (n_classes - 1))


def tf_kd_loss(zs: Tensor, y: Tensor, *, a: float, tau: float) -> Tensor:
    """KL(softmax(p_d/τ) ‖ p_s), the student at its own temperature. zs: [B, C] float; y: [B] int64 → [B] nats."""
    return kl(zs, virtual_teacher(y, zs.shape[1], a=a).to(zs.dtype) / tau, 1.0)


class TfKD(Method):
    paper = Paper(
        title="Revisiting Knowledge Distillation via Label Smoothing Regularization",
        authors="Yuan, Tay, Li, Wang, Feng",
        venue="CVPR",
        year=2020,
        url="https://arxiv.org/abs/1909.11723",
        code="github.com/yuanli2333/Teacher-free-Knowledge-Distillation @ d000ab3 my_loss_function.py",
        licence="MIT",
    )
    needs = Needs(teacher=False)
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "reg": Float(0.001, 20.0, log=True),
        "a": Float(0.5, 0.9999, tune=False),
        "tau": Float(1.0, 100.0, log=True),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 0.9, "reg": 0.1, "a": 0.99, "tau": 20.0},
            source="Teacher-free-Knowledge-Distillation @ d000ab3 experiments/base_experiments/base_resnet18",
            selection="best-epoch-on-test",
        ),
    }
    deviations = (
        "This is Tf-KD_reg; Tf-KD_self is KD with a trained copy of the student as the teacher.",
        "The temperature divides the hand-made probabilities before a softmax, as in the code; where they were logits,"
        " the teacher would be less uniform.",
        "The code averages over classes as well and multiplies by 100, which for 100 classes is the sum used here.",
    )

    def __init__(self, dims: Dims, *, ce: float, reg: float, a: float, tau: float) -> None:
        super().__init__(dims)
        self.ce, self.reg, self.a, self.tau = ce, reg, a, tau

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "reg": self.reg * tf_kd_loss(s.logits, y, a=self.a, tau=self.tau).mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        if dims.n_classes < 2:
            raise Refusal(f"tf_kd has no other class to be indifferent to; it takes 2 or more, not {dims.n_classes}")
