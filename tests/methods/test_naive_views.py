"""Methods that no reference file covers, against plain loops from the formulas; gradients, against differences."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import methods
from methods.base import NetworkView, Out
from tests.methods.golden import at_epoch, dims_of_logits
from tests.methods.test_naive import naive_kl, softmax

B, C = 4, 5
Y = [0, 3, 1, 4]
Logits = dict[str, list[list[float]]]  # of every view


def drawn(views: tuple[str, ...], seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {view: 2 * torch.randn(B, C, generator=draw, dtype=torch.float64) for view in views}


def divergence(zs: list[float], zt: list[float], tau: float) -> float:
    return naive_kl(torch.tensor([zt], dtype=torch.float64), torch.tensor([zs], dtype=torch.float64), 0, tau)


def labels(zs: Logits) -> float:
    """Mean over the batch of the views' cross entropies, summed."""
    return sum(-math.log(softmax(z[b])[Y[b]]) for z in zs.values() for b in range(B)) / B


def z_score(row: list[float]) -> list[float]:
    mean, spread = statistics.fmean(row), statistics.stdev(row)
    return [(v - mean) / (spread + 1e-7) for v in row]


def swapped(row: list[float], y: int) -> list[float]:
    top, row = row.index(max(row)), list(row)
    row[top], row[y] = row[y], row[top]
    return row


def kd_two_view(zs: Logits, zt: Logits) -> float:
    kd = sum(divergence(zs[v][b], zt[v][b], 4.0) for v in zs for b in range(B)) / B
    return 0.1 * labels(zs) + 0.9 * kd


def mlkd(zs: Logits, zt: Logits) -> float:
    sure = [softmax(row) for row in zt["weak"]]
    of_class = [sum(p[c] for p in sure) for c in range(C)]
    examples = [b for b in range(B) if max(sure[b]) <= statistics.median(max(p) for p in sure)]
    classes = [c for c in range(C) if of_class[c] <= statistics.median(of_class)]
    assert 0 < len(examples) < B and 0 < len(classes) < C  # both masks choose
    kd, batch, by_class = 0.0, 0.0, 0.0
    for tau in (4.0, 3.0, 5.0, 2.0, 6.0):
        s, t = ([softmax([v / tau for v in row]) for row in z["weak"]] for z in (zs, zt))
        for b in range(B):
            kd += divergence(zs["strong"][b], zt["strong"][b], tau) / B
        for b in examples:
            kd += divergence(zs["weak"][b], zt["weak"][b], tau) / B
            for k in range(B):
                both = [sum(p[b][c] * p[k][c] for c in range(C)) for p in (s, t)]
                batch += (both[0] - both[1]) ** 2 / B
        for c in classes:
            for k in range(C):
                both = [sum(p[b][c] * p[b][k] for b in range(B)) for p in (s, t)]
                by_class += (both[0] - both[1]) ** 2 / C
    return 0.1 * labels(zs) + 0.9 * (kd + batch + by_class)


def lskd_sld(zs: Logits, zt: Logits) -> float:
    """After the switch: the student's own swapped logits teach, too, and gradients go through them."""
    soft = 0.0
    for v in zs:
        for b in range(B):
            s, t = z_score(zs[v][b]), z_score(zt[v][b])
            for tau in range(1, 7):
                soft += divergence(s, swapped(t, Y[b]), tau) + divergence(s, swapped(s, Y[b]), tau)
    return 0.1 * labels(zs) + 0.9 * soft / B


def lskd_ctkd(zs: Logits, zt: Logits, theta: float = 1.0) -> float:
    tau = 1 + 20 / (1 + math.exp(-theta))
    kd = sum(divergence(z_score(zs["weak"][b]), z_score(zt["weak"][b]), tau) for b in range(B)) / B
    return 0.1 * labels(zs) + 9.0 * kd


@pytest.mark.parametrize("naive", [kd_two_view, mlkd, lskd_sld, lskd_ctkd], ids=lambda f: f.__name__)
def test_whole_method(naive: Callable[[Logits, Logits], float]) -> None:
    kind = methods.get(naive.__name__)
    zs, zt = drawn(kind.needs.views, 0), drawn(kind.needs.views, 1)
    method = kind(dims_of_logits(zs["weak"]), **kind.resolve("")).double()
    leaves = {view: z.clone().requires_grad_() for view, z in zs.items()}
    s, t = (NetworkView({v: Out(z, (), (), z) for v, z in side.items()}, kind.needs.taps) for side in (leaves, zt))
    at = at_epoch(5 if naive is lskd_ctkd else 240, 240)  # within the curriculum; after the switch
    total = torch.stack(list(method.loss(s, t, torch.tensor(Y), at).values())).sum()
    s_lists, t_lists = ({v: z.tolist() for v, z in side.items()} for side in (zs, zt))
    assert total.item() == pytest.approx(naive(s_lists, t_lists), rel=1e-9)
    gradients = torch.autograd.grad(total, [*leaves.values(), *method.parameters()])
    for (view, rows), gradient in zip(s_lists.items(), gradients, strict=False):
        for b, c in itertools.product(range(B), range(C)):

            def shifted(by: float, view: str = view, rows: list[list[float]] = rows, b: int = b, c: int = c) -> float:
                return naive(s_lists | {view: moved(rows, b, c, by)}, t_lists)

            assert gradient[b, c].item() == pytest.approx(slope(shifted), rel=1e-5, abs=1e-7)
    if naive is lskd_ctkd:
        reversed_by = -0.5 * (1 - math.cos(math.pi * 5 / 10))  # epoch 5 of a curriculum of 10 of 240
        expected = reversed_by * slope(lambda by: lskd_ctkd(s_lists, t_lists, 1.0 + by))
        assert gradients[-1].item() == pytest.approx(expected, rel=1e-5)


def moved(rows: list[list[float]], b: int, c: int, by: float) -> list[list[float]]:
    return [[v + by if (i, j) == (b, c) else v for j, v in enumerate(row)] for i, row in enumerate(rows)]


def slope(f: Callable[[float], float], step: float = 1e-5) -> float:
    return (f(step) - f(-step)) / (2 * step)
