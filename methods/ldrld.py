"""Local dense relations of logits: pairs among the classes that the student ranks first, and the rest apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Dims, Float, Int, Method, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy, kl

DECAY, SHIFT, SCALE = 0.05, 1.5, 2.0  # of the pairs' weights


def pair_weights(d: int, device: torch.device) -> Tensor:
    """2·exp(-0.05·(i + j))/(1.5 + |i - j|) above the diagonal, ranks i, j from 1; 0 elsewhere. → [d, d] float64.

    Near and high ranks count more. arXiv 2507.15911.
    """
    rank = torch.arange(1, d + 1, device=device, dtype=torch.float64)
    i, j = rank[:, None], rank[None, :]
    return (SCALE * torch.exp(-DECAY * (i + j)) / (SHIFT + (i - j).abs())).triu(1)


def dense_relations(zs: Tensor, zt: Tensor, *, tau: float) -> Tensor:
    """Mean over all pairs of τ²·weight·KL of the pair alone, and the KL of all d classes together.

    zs, zt: [B, d ≥ 2] float, the student's d greatest logits in descending order and the teacher's of the same classes
    → [B] nats. arXiv 2507.15911.
    """
    d = zs.shape[1]
    ms, mt = ((z[:, :, None] - z[:, None, :]) / tau for z in (zs, zt))  # [B, d, d]: margins of all pairs, both ways
    # a pair's second probability is its first one's of the reverse pair, so both are sigmoids of ±m
    each = mt.sigmoid() * (F.logsigmoid(mt) - F.logsigmoid(ms))
    pairs = tau**2 * (each + each.transpose(1, 2)) * pair_weights(d, zs.device).to(zs.dtype)
    return (pairs.sum(dim=(1, 2)) + kl(zs, zt, tau)) / (d * (d - 1) // 2 + 1)


class LDRLD(Method):
    paper = Paper(
        title="Local Dense Logit Relations for Enhanced Knowledge Distillation",
        authors="Xu, Liu, Liu, Wang, Xu, Cheng",
        venue="ICCV",
        year=2025,
        url="https://arxiv.org/abs/2507.15911",
        code="github.com/yema-web/LDRLD @ b4dcfc9 distiller_zoo/LDRLD.py",
        licence="BSD-2-Clause",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "alpha": Float(0.1, 100.0, log=True),  # of the pairs
        "beta": Float(0.1, 100.0, log=True),  # of the rest
        "tau": Float(1.0, 20.0, log=True),
        "d": Int(2, 100, tune=False),  # classes among which pairs are made
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "alpha": 10.5, "beta": 7.0, "tau": 4.0, "d": 7},
            source="LDRLD @ b4dcfc9 README (resnet32x4 → resnet8x4), train_student.py; results: a third party's notes",
            selection="best-epoch-on-test",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 76.35,
                "cifar100/resnet56->resnet20": 72.20,
                "cifar100/resnet110->resnet20": 71.98,
                "cifar100/resnet32x4->resnet8x4": 77.20,
                "cifar100/vgg13->vgg8": 75.06,
                "cifar100/resnet32x4->ShuffleV1": 76.46,
            },
        ),
    }
    deviations = (
        "The code leaves classes out by lowering their scaled logits by 1000; here they are left out, which is equal"
        " while scaled logits stay far below 1000.",
        "With fewer classes than d, d is their number.",
        "The reference warms its learning rate up for 20 epochs; the protocol decides here.",
    )

    def __init__(self, dims: Dims, *, ce: float, alpha: float, beta: float, tau: float, d: int) -> None:
        super().__init__(dims)
        self.ce, self.alpha, self.beta, self.tau, self.d = ce, alpha, beta, tau, min(d, dims.n_classes)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        order = s.logits.argsort(dim=1, descending=True)
        zs, zt = s.logits.gather(1, order), t.logits.gather(1, order)
        d = self.d
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "pairs": self.alpha * dense_relations(zs[:, :d], zt[:, :d], tau=self.tau).mean(),
            "rest": self.beta * kl(zs[:, d:], zt[:, d:], self.tau).mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        if dims.n_classes < 2:
            raise Refusal(f"ldrld compares pairs of classes; it takes 2 classes or more, not {dims.n_classes}")
