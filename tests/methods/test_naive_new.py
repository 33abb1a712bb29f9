"""Methods of 2021 to 2025 that no reference file covers, written out step by step from the formulas, in float64."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import models
from bench.models.base import Network
from bench.seeds import fork_rng
from methods.base import Dims, NetworkView, Progress
from methods.cat_kd import class_maps
from methods.deepkd import DeepKD, ThreeMomenta
from methods.fcfd import FCFD
from methods.ft import ft_loss
from methods.wkd_f import fade
from tests.methods.golden import at_epoch, dims_of_logits, seen
from tests.methods.test_naive import divergence, logits, softmax
from tests.methods.test_naive_views import moved, slope

Y = torch.tensor([0, 3, 1, 2, 2])


def network(name: str) -> Network:
    with fork_rng("naive", name):
        return models.build(name, in_channels=1, size=16, n_classes=4).double()


class Walk:
    """Both networks on a batch, stage by stage; a mixed path goes through copies whose BatchNorms use the batch."""

    def __init__(self) -> None:
        self.student, self.teacher = network("resnet8w4").train(), network("resnet8w6").eval()
        self.teacher.requires_grad_(False)
        dims = Dims(self.student.dims(), self.teacher.dims(), 4, 5, torch.arange(40) % 4)
        fixed: dict[str, Any] = {"ce": 0.7, "kd": 0.9, "mix": 1.3, "l2": 5.0, "tau": 4.0, "paths": 2, "warmup": 0.5}
        with fork_rng("naive", "bridges"):
            self.method = FCFD(dims, **fixed).double()
        self.x = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def ours(self) -> Tensor:
        views = [NetworkView({"weak": net(self.x)}, FCFD.needs.taps, net.tail) for net in (self.student, self.teacher)]
        terms = self.method.loss(views[0], views[1], Y, at_epoch(2, 10))  # of 5 epochs of warm-up
        return torch.stack(list(terms.values())).sum()

    def naive(self, drawn: tuple[tuple[str, int], ...]) -> Tensor:
        """The loss of a step in which these paths were drawn: from which network, and behind which stage it changes."""
        own_s, own_t = self.student(self.x), self.teacher(self.x)
        l2, kl = torch.zeros(()), self.soft(own_s.logits, own_t.logits)
        total = 0.7 * F.cross_entropy(own_s.logits, Y) + 0.9 * kl
        for i in (1, 2, 3):
            l2 = l2 + self.difference(self.method.to_teacher[i - 1](own_s.feats[i]), own_t.feats[i], i)
        for source, i in drawn:
            if source == "student":
                f = self.method.to_teacher[i - 1](own_s.feats[i])
                other = copy.deepcopy(self.teacher).train()
            else:
                f = self.method.to_student[i - 1](own_t.feats[i])
                other = self.student  # its gradient counts; in training mode as it is
            for j in range(i + 1, 4):
                f, _ = other.stage(j, f)
                if source == "student":
                    l2 = l2 + self.difference(f, own_t.feats[j], j)
            total = total + 1.3 * self.soft(other.head(f)[0], own_t.logits)
        return total + 5.0 * (2 / 5) * l2

    def difference(self, f: Tensor, target: Tensor, stage: int) -> Tensor:
        out = F.mse_loss(f, target)
        return out + F.mse_loss(F.relu(f).mean((2, 3)), F.relu(target).mean((2, 3))) if stage == 3 else out

    def soft(self, zs: Tensor, zt: Tensor) -> Tensor:
        return 16 * F.kl_div(F.log_softmax(zs / 4, 1), F.softmax(zt / 4, 1), reduction="batchmean")


def test_fcfd_is_the_mean_over_all_draws_of_two_paths() -> None:
    """Value and gradient of student and bridges."""
    walk = Walk()
    parameters = [*walk.student.parameters(), *walk.method.parameters()]
    ours = walk.ours()
    got = torch.autograd.grad(ours, parameters)
    paths = [("student", 1), ("student", 2), ("teacher", 1), ("teacher", 2)]
    draws = list(itertools.combinations(paths, 2))
    expected = torch.stack([walk.naive(draw) for draw in draws]).mean()
    assert ours.item() == pytest.approx(expected.item(), rel=1e-9)
    for a, b in zip(got, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("k", [0, 1, 3])
def test_deepkd_by_loops(k: int) -> None:
    """The paper's form: of every example, 1 - p_t,y times the divergence of its other classes."""
    zs, zt = logits(1).requires_grad_(), logits(2)
    values: dict[str, Any] = DeepKD.resolve("", overrides={"ce": 0.5, "k": k})
    terms = DeepKD(dims_of_logits(zs), **values).loss(
        seen(DeepKD, logits=zs), seen(DeepKD, logits=zt), Y, at_epoch(1, 1)
    )
    target = others = 0.0
    for s, t, y in zip(zs.tolist(), zt.tolist(), Y.tolist(), strict=True):
        p, q = (softmax([v / 4.0 for v in row]) for row in (t, s))
        first = sorted(range(4), key=lambda c: -t[c])[: k or 4]
        kept = [c for c in first if c != y]
        target += 16 * divergence([p[y], 1 - p[y]], [q[y], 1 - q[y]]) / 5
        if kept:
            rest = [[row[c] / sum(row[j] for j in kept) for c in kept] for row in (p, q)]
            others += (1 - p[y]) * 16 * divergence(*rest) / 5
    assert terms["target"].item() == pytest.approx(target, rel=1e-9)
    assert terms["others"].item() == pytest.approx(others, rel=1e-9)


def test_deepkd_has_three_momenta() -> None:
    """Two steps of one parameter, by hand: decay goes with the right class's gradient, on the parameter as it moved."""
    zs, values = logits(1), DeepKD.resolve("", overrides={"task": 0.05, "target": -0.1, "others": 0.02})
    method: Any = DeepKD(dims_of_logits(zs), **values)  # type: ignore[arg-type]
    p = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = method.optimizer(torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.01))
    assert isinstance(optimizer, ThreeMomenta)
    x, buffers, momenta = 2.0, dict.fromkeys(("ce", "others", "target"), 0.0), (0.95, 0.92, 0.8)
    for step in (1, 2):
        terms = {"ce": step * p.sum(), "others": 3 * p.sum(), "target": -p.sum()}
        method.backward(terms, optimizer)
        optimizer.step()
        for (part, gradient), m in zip(
            {"ce": float(step), "others": 3.0, "target": -1.0}.items(), momenta, strict=True
        ):
            buffers[part] = m * buffers[part] + gradient + (0.01 * x if part == "target" else 0.0)
            x -= 0.1 * buffers[part]
        assert p.item() == pytest.approx(x, rel=1e-12)


@pytest.mark.parametrize("name", ["resnet8w4", "wrn_10_1", "MobileNetV2", "ShuffleV2"])
def test_the_mean_of_class_maps_is_the_logits(name: str) -> None:
    """Also where the head begins with BatchNorm or a convolution, and without a trace in its running statistics."""
    net = network(name).train()
    x = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = net(x)
    before = models.state_hash(net)
    maps = class_maps(lambda f: net.tail(net.n_stages, f, batch_stats=True), out.feats[-1])
    torch.testing.assert_close(maps.mean(dim=(2, 3)), out.logits)
    assert maps.shape[2:] == out.feats[-1].shape[2:] and models.state_hash(net) == before


def test_a_term_fades_along_half_a_cosine() -> None:
    def at(epoch: int) -> Progress:
        return at_epoch(epoch, 240)

    expected = {1: 1.0, 150: 1.0, 195: 0.5, 240: 0.0, 180: 0.5 * (1 + math.cos(math.pi * 30 / 90))}
    assert {epoch: fade(at(epoch), 150 / 240).item() for epoch in expected} == pytest.approx(expected)
    assert fade(at(240), 1.0).item() == 1.0


def test_ft_by_whole_factors() -> None:
    """Every example's factor is one vector of unit length; its gradient against differences of the loops."""
    fs, ft = (
        torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (1, 2)
    )

    def naive(rows: list[list[float]]) -> float:
        total = 0.0
        for a, b in zip(rows, ft.flatten(1).tolist(), strict=True):
            lengths = [math.sqrt(sum(v * v for v in row)) for row in (a, b)]
            total += sum(abs(v / lengths[0] - w / lengths[1]) for v, w in zip(a, b, strict=True)) / len(a)
        return total / 2

    leaf = fs.clone().requires_grad_()
    loss = ft_loss(leaf, ft, form="factor").mean()
    loss.backward()
    rows = fs.flatten(1).tolist()
    assert loss.item() == pytest.approx(naive(rows), rel=1e-9)
    assert leaf.grad is not None
    for (b, c), gradient in zip(itertools.product(range(2), range(12)), leaf.grad.flatten().tolist(), strict=True):
        expected = slope(lambda by, b=b, c=c: naive(moved(rows, b, c, by)))  # type: ignore[misc]
        assert gradient == pytest.approx(expected, rel=1e-5, abs=1e-8)
