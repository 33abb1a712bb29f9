"""Normalised KD: the teacher's confidence weighs the label, and the other classes are normalised on their own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from methods.base import Dims, Float, Method, NetworkView, Paper, Progress, Recipe, Refusal
from methods.dkd import non_target_logits
from methods.functional import cross_entropy


def nkd_target(zs: Tensor, zt: Tensor, y: Tensor) -> Tensor:
    """-p_t,y·log p_s,y at τ = 1. zs, zt: [B, C] float; y: [B] int64 → [B] nats. arXiv 2303.13005."""
    return zt.softmax(dim=1).gather(1, y[:, None]).squeeze(1).detach() * cross_entropy(zs, y)


def nkd_others(zs: Tensor, zt: Tensor, y: Tensor, *, tau: float) -> Tensor:
    """τ²·cross entropy of the C - 1 other classes, renormalised. Arguments as `nkd_target` → [B] nats."""
    log_s = F.log_softmax(non_target_logits(zs, y) / tau, dim=1)
    return -(tau**2) * (F.softmax(non_target_logits(zt, y) / tau, dim=1) * log_s).sum(dim=1)


class NKD(Method):
    paper = Paper(
        title="From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and"
        " Customized Soft Labels",
        authors="Yang, Zeng, Li, Zhang, Yuan, Li",
        venue="ICCV",
        year=2023,
        url="https://arxiv.org/abs/2303.13005",
        code="github.com/yzd-v/cls_KD @ 1e5d48f mmcls/models/dis_losses/nkd.py",
        licence="-",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "target": Float(0.1, 10.0, log=True),
        "gamma": Float(0.1, 20.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "target": 1.0, "gamma": 3.5, "tau": 3.0},
            source="cls_KD @ 1e5d48f, its CIFAR-100 configuration (ResNet34 → ResNet18)",
            selection="unknown",
        ),
        "imagenet": Recipe(
            values={"ce": 1.0, "target": 1.0, "gamma": 1.5, "tau": 1.0},
            source="cls_KD @ 1e5d48f mmcls/models/dis_losses/nkd.py, its defaults",
            selection="unknown",
        ),
    }

    def __init__(self, dims: Dims, *, ce: float, target: float, gamma: float, tau: float) -> None:
        super().__init__(dims)
        self.ce, self.target, self.gamma, self.tau = ce, target, gamma, tau

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "target": self.target * nkd_target(s.logits, t.logits, y).mean(),
            "others": self.gamma * nkd_others(s.logits, t.logits, y, tau=self.tau).mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        if dims.n_classes < 2:
            raise Refusal(
                f"nkd normalises the classes beside the right one; it takes 2 classes or more, not {dims.n_classes}"
            )
