"""Entropy-based adaptive distillation: an example counts the more, the less certain teacher and student are of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from methods.base import Choice, Dims, Float, Method, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy
from methods.kd import kd_loss

BOUNDS = ("entropy", "classes")  # H_s is divided by log C, its greatest value, or by C


def entropy(z: Tensor, *, tau: float) -> Tensor:
    """Shannon entropy of softmax(z/τ). z: [B, C] float → [B] nats."""
    return torch.special.entr((z / tau).softmax(dim=1)).sum(dim=1)


def ea_weight(zs: Tensor, zt: Tensor, *, tau: float, bound: str = "entropy") -> Tensor:
    """½·H_t·(1 + H_s/log C), from 0 to log C; no gradient. zs, zt: [B, C ≥ 2] float → [B]. arXiv 2311.13621."""
    n_classes = zs.shape[1]
    greatest = math.log(n_classes) if bound == "entropy" else n_classes
    hs, ht = (entropy(z.detach(), tau=tau) for z in (zs, zt))
    return ht * (1 + hs / greatest) / 2


def two_classes(name: str, dims: Dims) -> None:
    """Refuse a single class: its entropy is 0, and so is the greatest one."""
    if dims.n_classes < 2:
        raise Refusal(f"{name} weighs by the entropy of classes; it takes 2 or more, not {dims.n_classes}")


class EAKD(Method):
    paper = Paper(
        title="EA-KD: Entropy-based Adaptive Knowledge Distillation",
        authors="Su, Tseng, Pu, Zhao, Yang, Chen, Lee",
        venue="ICCV",
        year=2025,
        url="https://arxiv.org/abs/2311.13621",
        code="github.com/cpsu00/EA-KD @ 6fb4c06 mdistiller/distillers/KD.py",
        licence="-",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
        "tau_w": Float(1.0, 20.0, log=True),  # of the weight
        "bound": Choice(BOUNDS, tune=False),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 0.9, "tau": 4.0, "tau_w": 3.0, "bound": "entropy"},
            source="EA-KD @ 6fb4c06 mdistiller/engine/cfg.py, configs/cifar100/EA/kd.yaml, the bound as in the paper",
            selection="best-epoch-on-test",
        ),
        "reference": Recipe(
            values={"ce": 0.1, "kd": 0.9, "tau": 4.0, "tau_w": 3.0, "bound": "classes"},
            source="EA-KD @ 6fb4c06, its code for CIFAR-100; result: a third party's notes on the paper",
            selection="best-epoch-on-test",
            reported={"cifar100/resnet32x4->resnet8x4": 75.46},
        ),
    }
    deviations = (
        "On CIFAR-100 the code divides the student's entropy by 100, the number of classes, where the paper (and the"
        " code on ImageNet) divides by its logarithm; the recipe 'reference' follows the code.",
        "0·log 0 is 0, where the code adds 1e-10 to every probability.",
    )

    def __init__(self, dims: Dims, *, ce: float, kd: float, tau: float, tau_w: float, bound: str) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.tau, self.tau_w, self.bound = ce, kd, tau, tau_w, bound

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        weight = ea_weight(s.logits, t.logits, tau=self.tau_w, bound=self.bound)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "kd": self.kd * (weight * kd_loss(s.logits, t.logits, tau=self.tau)).mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        two_classes("ea_kd", dims)
