"""Curriculum temperature: a temperature that learns to make distillation harder, little by little."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import Dims, Float, Method, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy, kl


class GradientReversal(torch.autograd.Function):
    """The value as it is, its gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.saved_tensors[0], None


def curriculum(progress: Tensor) -> Tensor:
    """λ, from 0 to -1 by half a cosine, then constant. progress: float, 1 where the curriculum ends → same shape.

    arXiv 2211.16231.
    """
    return -0.5 * (1 - torch.cos(math.pi * progress.clamp(max=1.0)))


def temperature(theta: Tensor, factor: Tensor, *, low: float, span: float) -> Tensor:
    """low + span·sigmoid(θ); what reaches θ is the gradient times `factor`. theta: [1] float; factor: [] → [1]."""
    return low + span * GradientReversal.apply(theta, factor).sigmoid()


class CTKD(Method):
    paper = Paper(
        title="Curriculum Temperature for Knowledge Distillation",
        authors="Li, Li, Yang, Zhao, Song, Luo, Li, Yang",
        venue="AAAI",
        year=2023,
        url="https://arxiv.org/abs/2211.16231",
        code="github.com/zhengli97/CTKD @ 7d52522 models/temp_global.py, train_student.py",
        licence="-",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "low": Float(0.1, 10.0, tune=False),  # the temperature lies between low and low + span
        "span": Float(0.1, 100.0, tune=False),
        "curriculum": Float(0.0, 1.0, tune=False),  # share of all epochs
    }
    ramp_end = "curriculum"
    recipes = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 0.9, "low": 1.0, "span": 20.0, "curriculum": 10 / 240},
            source="CTKD @ 7d52522 scripts, train_student.py (global temperature)",
            selection="unknown",
            reported={
                "cifar100/resnet56->resnet20": 71.19,
                "cifar100/resnet110->resnet32": 73.52,
                "cifar100/resnet110->resnet20": 70.99,
                "cifar100/wrn_40_2->wrn_16_2": 75.45,
                "cifar100/wrn_40_2->wrn_40_1": 73.93,
                "cifar100/vgg13->vgg8": 73.52,
            },
        ),
    }
    deviations = (
        "The global temperature alone; the variant with a temperature per example is described only in words.",
        "The curriculum of 10 of 240 epochs is a share of whatever schedule is run.",
    )

    def __init__(self, dims: Dims, *, ce: float, kd: float, low: float, span: float, curriculum: float) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.low, self.span, self.curriculum = ce, kd, low, span, curriculum
        self.theta = nn.Parameter(torch.ones(1))

    def transform_logits(self, z: Tensor) -> Tensor:
        """What the divergence sees of logits."""
        return z

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        tau = temperature(self.theta, curriculum(at.ramp(self.curriculum)), low=self.low, span=self.span)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "kd": self.kd * kl(self.transform_logits(s.logits), self.transform_logits(t.logits), tau).mean(),
        }
