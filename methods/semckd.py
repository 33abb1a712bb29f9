"""Semantic calibration: attention decides, per example, which stage of the teacher a stage follows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.adapters import BatchNorm, match_sizes, require_stages
from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal
from methods.fitnet import fitnet_loss
from methods.functional import cross_entropy, kl


class Embedding(nn.Module):
    """Rows of a batch's Gram matrix [B, B] to vectors of unit length [B, B // 4]."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        out = batch_size // 4
        self.linear1, self.linear2 = nn.Linear(batch_size, 2 * out), nn.Linear(2 * out, out)

    def forward(self, f: Tensor) -> Tensor:
        q = f.flatten(1)
        return F.normalize(self.linear2(self.linear1(q @ q.T).relu()))


class Regressor(nn.Module):
    """1x1 → 3x3 → 1x1 convolutions without bias, the first two with BN and ReLU, 2·C_t wide."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        mid = 2 * n_out
        self.conv1, self.bn1 = nn.Conv2d(n_in, mid, 1, bias=False), BatchNorm(mid)
        self.conv2, self.bn2 = nn.Conv2d(mid, mid, 3, padding=1, bias=False), BatchNorm(mid)
        self.conv3 = nn.Conv2d(mid, n_out, 1, bias=False)

    def forward(self, f: Tensor) -> Tensor:
        return self.conv3(self.bn2(self.conv2(self.bn1(self.conv1(f)).relu())).relu())


class SemCKD(Method):
    paper = Paper(
        title="Cross-Layer Distillation with Semantic Calibration",
        authors="Chen, Mei, Zhang, Wang, Feng, Chen",
        venue="AAAI",
        year=2021,
        url="https://arxiv.org/abs/2012.03236",
        code="github.com/DefangChen/SimKD @ 2b389c3 distiller_zoo/SemCKD.py, models/util.py",
        licence="-",
    )
    needs = Needs(taps=("logits", "feats"), full_batches=True)
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "sem": Float(10.0, 10000.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "kd": 1.0, "sem": 400.0, "tau": 4.0},
            source="SimKD @ 2b389c3 scripts, distiller_zoo/SemCKD.py",
            selection="best-epoch-on-test",
            reported={
                "cifar100/resnet32x4->resnet8x4": 76.23,
                "cifar100/resnet32x4->vgg8": 75.27,
                "cifar100/resnet32x4->ShuffleNetV2_1.5x": 79.13,
            },
        ),
    }
    deviations = (
        "Attention reads the rows of a batch's Gram matrix, so its first layer is as wide as the batch: a partial last"
        " batch is left out for this method, as in the reference code.",
        "The reference code accumulates the stages' losses in float32; here they keep their precision.",
    )

    def __init__(self, dims: Dims, *, ce: float, kd: float, sem: float, tau: float) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.sem, self.tau, self.batch_size = ce, kd, sem, tau, dims.batch_size
        s, t = ([shape[0] for shape in net.feats[1:]] for net in (dims.student, dims.teacher))
        self.queries = nn.ModuleList(Embedding(dims.batch_size) for _ in s)
        self.keys = nn.ModuleList(Embedding(dims.batch_size) for _ in t)
        self.regressors = nn.ModuleList(nn.ModuleList(Regressor(a, b) for b in t) for a in s)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "kd": self.kd * kl(s.logits, t.logits, self.tau).mean(),
            "sem": self.sem * self.distance(s.feats[1:], t.feats[1:]).mean(),
        }

    def attention(self, fs: tuple[Tensor, ...], ft: tuple[Tensor, ...]) -> Tensor:
        """[B, n_s, n_t]: how much each stage of the student follows each of the teacher's; sums to 1 over the last."""
        if len(fs[0]) != self.batch_size:
            raise ValueError(f"semckd was built for batches of {self.batch_size}, got one of {len(fs[0])}")
        query = torch.stack([embed(f) for embed, f in zip(self.queries, fs, strict=True)], dim=1)
        key = torch.stack([embed(f) for embed, f in zip(self.keys, ft, strict=True)], dim=1)
        return (query @ key.mT).softmax(dim=2)

    def distance(self, fs: tuple[Tensor, ...], ft: tuple[Tensor, ...]) -> Tensor:
        """Squared distances weighed by attention, summed over the teacher's stages, averaged over the student's → [B].

        fs, ft: [B, D, H, W] float each. arXiv 2012.03236.
        """
        weight, total = self.attention(fs, ft), fs[0].new_zeros(len(fs[0]))
        for i, a in enumerate(fs):
            for j, b in enumerate(ft):
                small, target = match_sizes(a, b)
                total = total + weight[:, i, j] * fitnet_loss(self.regressors[i][j](small), target)  # type: ignore[index]
        return total / len(fs)

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("semckd", dims)
        if dims.batch_size < 4:
            raise Refusal(f"semckd compares the examples of a batch of 4 or more, not {dims.batch_size}")
