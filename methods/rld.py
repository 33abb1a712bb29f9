"""Refined logits: the teacher's confidence for the true class, and its order of those that it ranks below."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Dims, Float, Method, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy, masked_kl


def confidence(zs: Tensor, zt: Tensor, y: Tensor, *, tau: float) -> Tensor:
    """τ²·KL between (max p_t, rest) of the teacher and (p_y, rest) of the student: sample confidence distillation.

    zs, zt: [B, C] float; y: [B] int64 → [B] nats. arXiv 2408.07703. The teacher's greatest probability becomes the
    student's for the label, whichever class the teacher gives it to.
    """
    log_s, log_t = (log_pair(z / tau, column) for z, column in ((zs, y), (zt, zt.argmax(dim=1))))
    return tau**2 * (log_t.exp() * (log_t - log_s)).sum(dim=1)


def correlation(zs: Tensor, zt: Tensor, y: Tensor, *, tau: float) -> Tensor:
    """τ²·KL over the classes whose teacher's logit is below that of y: masked correlation distillation.

    Arguments as `confidence` → [B] nats, 0 where the teacher ranks y last. arXiv 2408.07703.
    """
    return masked_kl(zs, zt, zt < zt.gather(1, y[:, None]), tau)


def log_pair(z: Tensor, column: Tensor) -> Tensor:
    """(log p, log(1 - p)) of one class, as log-sigmoids of its margin. z: [B, C]; column: [B] int64 → [B, 2]."""
    chosen = torch.arange(z.shape[1], device=z.device) == column[:, None]
    margin = z.gather(1, column[:, None]).squeeze(1) - z.masked_fill(chosen, -torch.inf).logsumexp(dim=1)
    return F.logsigmoid(torch.stack([margin, -margin], dim=1))


class RLD(Method):
    paper = Paper(
        title="Knowledge Distillation with Refined Logits",
        authors="Sun, Chen, Lyu, Chen, Chen, Wang",
        venue="ICCV",
        year=2025,
        url="https://arxiv.org/abs/2408.07703",
        code="github.com/zju-SWJ/RLD @ d54578f mdistiller/distillers/RLD.py",
        licence="-",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "alpha": Float(0.1, 20.0, log=True),  # of the confidence
        "beta": Float(0.1, 100.0, log=True),  # of the classes below the label
        "tau": Float(1.0, 20.0, log=True),
        "tau_alpha": Float(1.0, 20.0, log=True),
        "warmup": Float(0.0, 1.0, tune=False),  # share of all epochs
    }
    ramp_end = "warmup"
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "alpha": 1.0, "beta": 8.0, "tau": 4.0, "tau_alpha": 4.0, "warmup": 20 / 240},
            source="RLD @ d54578f README, its command (--same-t); results: a third party's notes on the paper",
            selection="best-epoch-on-test",
            reported={
                "cifar100/wrn_40_2->wrn_40_1": 74.88,
                "cifar100/resnet56->resnet20": 72.00,
                "cifar100/resnet110->resnet20": 71.67,
                "cifar100/resnet110->resnet32": 74.02,
                "cifar100/resnet32x4->resnet8x4": 76.64,
                "cifar100/vgg13->vgg8": 74.93,
            },
        ),
        "imagenet": Recipe(
            values={"ce": 1.0, "alpha": 1.0, "beta": 0.5, "tau": 1.0, "tau_alpha": 1.0, "warmup": 1 / 100},
            source="RLD @ d54578f configs/imagenet/r34_r18/rld.yaml",
            selection="best-epoch-on-test",
        ),
    }
    deviations = (
        "Without --same-t the code's temperature of the confidence is 1; the README's command makes both 4.",
        "Classes are left out, where the code lowers their scaled logits to -1e9; equal where one is left.",
        "The warm-up of 20 of 240 epochs is a share of whatever schedule is run.",
    )

    def __init__(
        self, dims: Dims, *, ce: float, alpha: float, beta: float, tau: float, tau_alpha: float, warmup: float
    ) -> None:
        super().__init__(dims)
        self.ce, self.alpha, self.beta, self.warmup = ce, alpha, beta, warmup
        self.tau, self.tau_alpha = tau, tau_alpha

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        warm = at.ramp(self.warmup)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "confidence": warm * self.alpha * confidence(s.logits, t.logits, y, tau=self.tau_alpha).mean(),
            "correlation": warm * self.beta * correlation(s.logits, t.logits, y, tau=self.tau).mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        if dims.n_classes < 2:
            raise Refusal(f"rld orders classes; it takes 2 or more, not {dims.n_classes}")
