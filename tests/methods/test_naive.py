"""Losses against plain loops written from the formulas, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from methods.adapters import stage_pairs
from methods.base import Dims, NetDims
from methods.block_kd import block_kd_loss
from methods.crd import crd_logits, crd_loss, crd_partition, draw_negatives
from methods.dkd import dkd_loss

B, C = 5, 4


def logits(seed: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(B, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    e = [math.exp(v - top) for v in row]
    return [v / sum(e) for v in e]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def naive_kl(zt: Tensor, zs: Tensor, b: int, tau: float) -> float:
    p, q = (softmax([v / tau for v in z[b].tolist()]) for z in (zt, zs))
    return tau**2 * divergence(p, q)


def test_dkd() -> None:
    zs, zt, y = logits(1), logits(2), torch.tensor([0, 3, 1, 2, 2])
    got = dkd_loss(zs, zt, y, alpha=0.7, beta=5.0, tau=3.0)
    for b in range(B):
        p, q = (softmax([v / 3.0 for v in z[b].tolist()]) for z in (zt, zs))
        k = int(y[b])
        target = divergence([p[k], 1 - p[k]], [q[k], 1 - q[k]])
        rest = [[v / (1 - r[k]) for i, v in enumerate(r) if i != k] for r in (p, q)]
        assert got[b].item() == pytest.approx(9.0 * (0.7 * target + 5.0 * divergence(*rest)), rel=1e-9)


def test_block_kd() -> None:
    zs, zt, stones, y = logits(1), logits(2), [logits(3), logits(4), logits(5)], torch.tensor([0, 3, 1, 2, 2])
    got = block_kd_loss(zs, stones, zt, y, alpha=0.5, beta=2.0, gamma=3.0, tau=4.0)
    mean = (stones[0] + stones[1] + stones[2]) / 3
    for b in range(B):
        total = 0.0
        for z, weight in [(zs, 1.0), (stones[0], 0.25), (stones[1], 0.5), (stones[2], 1.0)]:
            ce = -math.log(softmax(z[b].tolist())[int(y[b])])
            total += weight * (0.5 * ce + 2.0 * naive_kl(zt, z, b, 4.0) + 3.0 * naive_kl(mean, z, b, 4.0))
        assert got[b].item() == pytest.approx(total, rel=1e-9)


def test_stages_are_aligned_at_the_deepest() -> None:
    def pairs(*stages: int) -> list[tuple[int, int]]:
        s, t = (NetDims(((1, 1, 1),) * (n + 1), (None,) * (n + 1), (True,) * (n + 1), 1) for n in stages)
        return stage_pairs(Dims(s, t, 2, 4, torch.arange(4) % 2))

    assert pairs(3, 3) == [(1, 1), (2, 2), (3, 3)]
    assert pairs(3, 4) == [(1, 2), (2, 3), (3, 4)]
    assert pairs(4, 3) == [(2, 1), (3, 2), (4, 3)]


@pytest.mark.parametrize("n", [12, 400])  # scored against the whole memory, and by gathering rows
def test_crd(n: int) -> None:
    draw = torch.Generator().manual_seed(0)
    e = torch.nn.functional.normalize(torch.randn(B, 6, generator=draw, dtype=torch.float64))
    memory = torch.randn(n, 6, generator=draw, dtype=torch.float64)
    pick = torch.stack([torch.randperm(n, generator=draw)[:4] for _ in range(B)])
    v = crd_logits(e, memory, pick, tau=0.5)
    z = crd_partition(v, n=n)
    got = crd_loss(v, z, n=n)
    scores = [[math.exp(float(e[b] @ memory[i]) / 0.5) for i in pick[b]] for b in range(B)]
    total = n * sum(sum(row) for row in scores) / (B * 4)
    assert z.item() == pytest.approx(total, rel=1e-9)
    c = 3 / n
    for b in range(B):
        u = [score / total for score in scores[b]]
        expected = -math.log(u[0] / (u[0] + c + 1e-7)) - sum(math.log(c / (k + c + 1e-7)) for k in u[1:])
        assert got[b].item() == pytest.approx(expected, rel=1e-9)


def test_negatives_are_of_other_classes_and_never_twice() -> None:
    train_y = torch.arange(60) % 3
    y = torch.tensor([0, 1, 2, 0])
    counts = torch.zeros(60)
    for seed in range(200):
        negatives = draw_negatives(y, train_y, 10, torch.Generator().manual_seed(seed))
        assert (train_y[negatives] != y[:, None]).all()
        assert all(len(set(row.tolist())) == 10 for row in negatives)
        counts += torch.bincount(negatives[0], minlength=60)
    others = counts[train_y != 0]
    assert counts[train_y == 0].sum() == 0 and abs(others.mean() - 50) < 1e-4  # 200 draws of 10 among 40
    assert others.min() > 25 and others.max() < 80
