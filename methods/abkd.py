"""KD by the α-β-divergence: between forward and reverse KL, how hard errors and confident answers are pressed."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from methods.base import Dims, Float, Method, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy


def ab_divergence(zs: Tensor, zt: Tensor, *, alpha: float, beta: float, tau: float) -> Tensor:
    """-1/(αβ)·Σ_c [p^α·q^β - α/(α+β)·p^(α+β) - β/(α+β)·q^(α+β)], p the teacher's and q the student's softmax at τ.

    zs, zt: [B, C] float; α, β > 0 → [B]. arXiv 2505.04560. Its limits are KL(p ‖ q) at α = 1, β → 0 and KL(q ‖ p) at
    α → 0, β = 1. There is no factor τ².
    """
    log_q, log_p = (F.log_softmax(z / tau, dim=1) for z in (zs, zt))
    both = alpha + beta
    mixed = (alpha * log_p + beta * log_q).exp()
    own = (alpha * (both * log_p).exp() + beta * (both * log_q).exp()) / both
    return (own - mixed).sum(dim=1) / (alpha * beta)


class ABKD(Method):
    paper = Paper(
        title="ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge Distillation via α-β-Divergence",
        authors="Wang, Yang, Wang, Wang, Xu, Huang",
        venue="ICML",
        year=2025,
        url="https://arxiv.org/abs/2505.04560",
        code="github.com/ghwang-s/abkd @ df81318 standard_classification/distiller_zoo/abkl.py",
        licence="MIT",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.1, 200.0, log=True),
        "alpha": Float(0.05, 2.0),
        "beta": Float(0.05, 2.0),
        "tau": Float(1.0, 20.0, log=True),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "kd": 64.0, "alpha": 0.8, "beta": 0.3, "tau": 4.0},
            source="abkd @ df81318 standard_classification/train_ab.sh, its example (resnet56 → resnet20)",
            selection="unknown",
        ),
    }
    deviations = (
        "Only the example's setting is public; the other pairs take it, too.",
        "α and β are positive; the limits where one of them or their sum is 0, which the code has as cases of their"
        " own, are left out (kd is that of α = 1, β = 0, times τ²).",
    )

    def __init__(self, dims: Dims, *, ce: float, kd: float, alpha: float, beta: float, tau: float) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.alpha, self.beta, self.tau = ce, kd, alpha, beta, tau

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        divergence = ab_divergence(s.logits, t.logits, alpha=self.alpha, beta=self.beta, tau=self.tau)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "ab": self.kd * divergence.mean(),
        }
