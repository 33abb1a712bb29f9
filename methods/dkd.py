"""Decoupled knowledge distillation: weigh what the teacher says of the right class and of the others separately."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Dims, Float, Method, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy, kl


def tckd(zs: Tensor, zt: Tensor, y: Tensor, *, tau: float) -> Tensor:
    """τ²·KL between (p_y, 1 - p_y) of teacher and student. zs, zt: [B, C] float; y: [B] int64 → [B] nats.

    p_y = sigmoid(m) with the margin m = z_y/τ - logsumexp(other z/τ), so both logarithms are log-sigmoids of ±m:
    no 1 - p and no log 0, however sure either network is.
    """
    ms, mt = (_margin(z, non_target_logits(z, y), y, tau) for z in (zs, zt))
    return _margin_kl(ms, mt, tau)


def _margin_kl(ms: Tensor, mt: Tensor, tau: float) -> Tensor:
    pairs = torch.stack([ms, -ms], 1), torch.stack([mt, -mt], 1)
    log_s, log_t = (F.logsigmoid(pair) for pair in pairs)
    return tau**2 * (log_t.exp() * (log_t - log_s)).sum(dim=1)


def nckd(zs: Tensor, zt: Tensor, y: Tensor, *, tau: float) -> Tensor:
    """τ²·KL over the C - 1 classes that are not y, renormalised; 0 for two classes. Arguments as `tckd` → [B] nats."""
    return kl(non_target_logits(zs, y), non_target_logits(zt, y), tau)


def dkd_loss(zs: Tensor, zt: Tensor, y: Tensor, *, alpha: float, beta: float, tau: float) -> Tensor:
    """α·TCKD + β·NCKD. zs, zt: [B, C] float; y: [B] int64 → [B] nats. arXiv 2203.08679, eq. 7."""
    others_s, others_t = non_target_logits(zs, y), non_target_logits(zt, y)
    ms, mt = _margin(zs, others_s, y, tau), _margin(zt, others_t, y, tau)
    return alpha * _margin_kl(ms, mt, tau) + beta * kl(others_s, others_t, tau)


def non_target_logits(z: Tensor, y: Tensor) -> Tensor:
    """z without column y: [B, C] → [B, C - 1]. The classes are dropped, not masked by a large negative number."""
    column = torch.arange(z.shape[1] - 1, device=z.device).expand(len(z), -1)
    return z.gather(1, column + (column >= y[:, None]))


def _margin(z: Tensor, others: Tensor, y: Tensor, tau: float) -> Tensor:
    return z.gather(1, y[:, None]).squeeze(1) / tau - (others / tau).logsumexp(dim=1)


class DKD(Method):
    paper = Paper(
        title="Decoupled Knowledge Distillation",
        authors="Zhao, Cui, Song, Qiu, Liang",
        venue="CVPR",
        year=2022,
        url="https://arxiv.org/abs/2203.08679",
        code="github.com/megvii-research/mdistiller @ a08d46f mdistiller/distillers/DKD.py",
        licence="MIT",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "alpha": Float(0.1, 20.0, log=True),
        "beta": Float(0.1, 100.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
        "warmup": Float(0.0, 1.0, tune=False),  # share of all epochs
    }
    ramp_end = "warmup"
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "alpha": 1.0, "beta": 8.0, "tau": 4.0, "warmup": 20 / 240},
            source="mdistiller @ a08d46f configs/cifar100/dkd/*.yaml",
            selection="best-epoch-on-test",
            pairs={
                "resnet56->resnet20": {"beta": 2.0},
                "resnet110->resnet32": {"beta": 2.0},
                "wrn_40_2->wrn_16_2": {"beta": 6.0},
                "wrn_40_2->wrn_40_1": {"beta": 6.0},
                "vgg13->vgg8": {"beta": 6.0},
                "vgg13->MobileNetV2": {"beta": 6.0},
            },
            reported={
                "cifar100/resnet56->resnet20": 71.97,
                "cifar100/resnet110->resnet32": 74.11,
                "cifar100/resnet32x4->resnet8x4": 76.32,
                "cifar100/wrn_40_2->wrn_16_2": 76.23,
                "cifar100/wrn_40_2->wrn_40_1": 74.81,
                "cifar100/vgg13->vgg8": 74.68,
                "cifar100/resnet32x4->ShuffleV1": 76.45,
                "cifar100/resnet32x4->ShuffleV2": 77.07,  # its README heads this column MobileNetV2; others cite V2
                "cifar100/wrn_40_2->ShuffleV1": 76.70,
                "cifar100/vgg13->MobileNetV2": 69.71,
                "cifar100/ResNet50->MobileNetV2": 70.35,
            },
        ),
    }
    deviations = (
        "The code drops the target class by lowering its scaled logit by 1000; here the class is left out, which is"
        " equal while scaled logits stay far below 1000.",
        "The code takes the logarithm of probabilities, which can reach log 0; here every logarithm is a log-sigmoid or"
        " a log-softmax.",
        "The warm-up of 20 of 240 epochs is a share of whatever schedule is run.",
    )

    def __init__(self, dims: Dims, *, ce: float, alpha: float, beta: float, tau: float, warmup: float) -> None:
        super().__init__(dims)
        self.ce, self.alpha, self.beta, self.tau, self.warmup = ce, alpha, beta, tau, warmup

    def transform_logits(self, z: Tensor) -> Tensor:
        """What the distillation terms see of logits."""
        return z

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        loss = dkd_loss(
            self.transform_logits(s.logits),
            self.transform_logits(t.logits),
            y,
            alpha=self.alpha,
            beta=self.beta,
            tau=self.tau,
        )
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "dkd": at.ramp(self.warmup) * loss.mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        if dims.n_classes < 2:
            raise Refusal(
                f"dkd compares the right class with the others; it takes 2 classes or more, not {dims.n_classes}"
            )
