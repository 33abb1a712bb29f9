"""Block-wise distillation: stepping stones, networks that begin as the student and end as the teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.adapters import BatchNorm, Size, is_double, require_stages, shrink, smaller, stage_pairs
from methods.base import Choice, Dims, Float, Int, Method, Needs, NetworkView, Paper, Progress, Recipe, Shape
from methods.functional import cross_entropy, kl


def block_kd_terms(
    zs: Tensor,
    stones: Sequence[Tensor],
    zt: Tensor,
    y: Tensor,
    *,
    tau: float,
    detach_ensemble: bool = True,
    warm: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """L_task, L_distill, L_cross of the student and its stepping stones. arXiv 2411.01547.

    zs, zt: [B, C] float; stones: [B, C] each, shallow to deep; y: [B] int64 → three [B] in nats. A stone's part in each
    is divided by 2^(n - i): 1 for the deepest, halved with every step towards the input. `warm` scales the stones' part
    in the last two.
    """
    n, each = len(stones), torch.cat([zs, *stones])  # [(1 + n)·B, C]
    ensemble = each[len(zs) :].unflatten(0, (n, -1)).mean(dim=0)
    if detach_ensemble:
        ensemble = ensemble.detach()
    task = cross_entropy(each, y.repeat(1 + n))
    distill, cross = (kl(each, z.repeat(1 + n, 1), tau) for z in (zt, ensemble))
    terms = torch.stack([task, distill, cross]).unflatten(1, (1 + n, -1))  # [3, 1 + n, B]
    halving = 0.5 ** torch.arange(n - 1, -1, -1, device=zs.device)
    of_stones = (terms[:, 1:] * halving[:, None].to(zs.dtype)).sum(dim=1)
    task, distill, cross = terms[:, 0]
    return task + of_stones[0], distill + warm * of_stones[1], cross + warm * of_stones[2]


def block_kd_loss(
    zs: Tensor,
    stones: Sequence[Tensor],
    zt: Tensor,
    y: Tensor,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    tau: float,
    detach_ensemble: bool = True,
) -> Tensor:
    """α·L_task + β·L_distill + γ·L_cross. Arguments as `block_kd_terms` → [B] nats."""
    task, distill, cross = block_kd_terms(zs, stones, zt, y, tau=tau, detach_ensemble=detach_ensemble)
    return alpha * task + beta * distill + gamma * cross


class Connector(nn.Module):
    """conv → BN (→ ReLU) from a student's map into the teacher's space: a map the teacher's next stage can read.

    Half the size: a 3x3 convolution of stride 2. Other smaller sizes: average pooling before the convolution. Larger
    sizes: nearest neighbour after it (it commutes with 1x1 convolution, BN and ReLU, and is cheaper there).
    """

    def __init__(self, student: Shape, teacher: Shape, *, form: str, relu: bool) -> None:
        super().__init__()
        (c_s, *hw_s), (c_t, *hw_t) = student, teacher
        hs, self.size = (hw_s[0], hw_s[1]), (hw_t[0], hw_t[1])
        halves = is_double(hs, self.size)
        kernel = 3 if halves or form == "conv3x3" else 1
        bare = form == "bare"  # the 1x1 convolution alone
        self.small: Size = hs if halves else smaller(hs, self.size)
        self.conv = nn.Conv2d(c_s, c_t, kernel, stride=2 if halves else 1, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.bn = nn.Identity() if bare else BatchNorm(c_t)
        self.relu = relu and form != "linear" and not bare

    def forward(self, fs: Tensor) -> Tensor:
        f = self.bn(self.conv(shrink(fs, self.small)))
        f = f.relu() if self.relu else f
        return f if f.shape[2:] == self.size else F.interpolate(f, self.size, mode="nearest")


DEFAULTS: dict[str, str | bool | int | float] = {
    "alpha": 1.0,
    "beta": 1.0,
    "gamma": 1.0,
    "tau": 4.0,
    "connector": "conv1x1",
    "detach": True,
    "bn": "frozen",
    "keep_last": 0,
    "warmup": 0.0,
}
UNKNOWN = "arXiv 2411.01547 (objective and schedule); no weights, temperature or connector could be read: our defaults"


class BlockKD(Method):
    paper = Paper(
        title="Decoupling Dark Knowledge via Block-wise Logit Distillation for Feature-level Alignment",
        authors="Yu, Zhang, Chen, Wang, Liu, Tan, Li",
        venue="IEEE Transactions on Artificial Intelligence",
        year=2024,
        url="https://arxiv.org/abs/2411.01547",
        code="(none public)",
        licence="-",
    )
    needs = Needs(taps=("logits", "feats", "tail"), tails=("teacher",))
    space = {
        "alpha": Float(0.0, 10.0, tune=False),
        "beta": Float(0.1, 20.0, log=True),
        "gamma": Float(0.1, 20.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
        "connector": Choice(("conv1x1", "conv3x3", "linear", "bare"), tune=False),  # linear: no ReLU; bare: nor BN
        "detach": Choice((True, False), tune=False),  # no gradient through the ensemble
        "bn": Choice(("frozen", "batch"), tune=False),  # statistics of the teacher's BN layers inside a stone
        "keep_last": Int(0, 8, tune=False),  # deepest stones that are kept; 0: all
        "warmup": Float(0.0, 1.0, tune=False),  # share of all epochs, for the stones' soft terms
    }
    ramp_end = "warmup"
    recipes = {
        "paper": Recipe(values=DEFAULTS, source=UNKNOWN, selection="unknown"),
        "light": Recipe(
            values={**DEFAULTS, "keep_last": 2}, source=f"{UNKNOWN}; two deepest stones", selection="unknown"
        ),
    }
    deviations = (
        "No code is public and the paper's settings could not be read; connector, temperature, weights, gradient"
        " through the ensemble and BN statistics are named hyper-parameters with defaults of ours.",
        "Blocks are the networks' stages; where teacher and student have different numbers of them, the deepest are"
        " aligned and student stages without a partner get no stone.",
        "The ensemble is the mean of the stones' logits before the softmax, as the formula is written; it leaves the"
        " student out.",
        "The weight 1/2^(n-i) of a stone applies to its task, distillation and cross terms alike.",
        "The paper's lightweight variant is not described in what we could read; 'light' keeps two deepest stones.",
    )

    def __init__(
        self,
        dims: Dims,
        *,
        alpha: float,
        beta: float,
        gamma: float,
        tau: float,
        connector: str,
        detach: bool,
        bn: str,
        keep_last: int,
        warmup: float,
    ) -> None:
        super().__init__(dims)
        self.alpha, self.beta, self.gamma, self.tau = alpha, beta, gamma, tau
        self.detach, self.batch_stats, self.warmup = detach, bn == "batch", warmup
        s, t = dims.student, dims.teacher
        self.joined_stages = stage_pairs(dims)[-keep_last:]  # the stages that stones join
        self.connectors = nn.ModuleList(
            Connector(s.feats[i], t.feats[j], form=connector, relu=t.relu[j]) for i, j in self.joined_stages
        )

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        stones = [
            t.tail(j, connector(s.feats[i]), batch_stats=self.batch_stats)
            for (i, j), connector in zip(self.joined_stages, self.connectors, strict=True)
        ]
        task, distill, cross = block_kd_terms(
            s.logits,
            stones,
            t.logits,
            y,
            tau=self.tau,
            detach_ensemble=self.detach,
            warm=at.ramp(self.warmup),
        )
        return {
            "task": self.alpha * task.mean(),
            "distill": self.beta * distill.mean(),
            "cross": self.gamma * cross.mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("block_kd", dims)
