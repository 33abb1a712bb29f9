"""Losses of 2021 to 2025 against the public references: value and gradient in float64, to one in a million."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from methods import rld
from methods.ttm import ttm_loss
from methods.wttm import wttm_loss
from tests.methods.golden import Golden

pytestmark = pytest.mark.golden


def of_logits(name: str, loss: Callable[[Golden, Tensor], Tensor]) -> tuple[Golden, Tensor]:
    """The file and the student's logits, after loss(file, logits) → [] was compared with its gradient."""
    g = Golden(name)
    z = g.wanted("in_logits_s")
    value = loss(g, z)
    value.backward()
    g.close("out_loss", value)
    g.close("grad_logits_s", z.grad)
    return g, z


@pytest.mark.parametrize(("name", "loss"), [("ttm", ttm_loss), ("wttm", wttm_loss)])
def test_transformed_teacher(name: str, loss: Callable[..., Tensor]) -> None:
    g, _ = of_logits(name, lambda g, z: loss(z, g["in_logits_t"], gamma=g.hyper["gamma"]).mean())
    g.all_compared()


def test_rld() -> None:
    def terms(g: Golden, z: Tensor) -> tuple[Tensor, Tensor]:
        zt, y, h = g["in_logits_t"], g["in_target"], g.hyper
        assert y[-1] == zt[-1].argmin()  # no class is below
        alone = rld.confidence(z, zt, y, tau=h["tau_alpha"]).mean(), rld.correlation(z, zt, y, tau=h["tau"]).mean()
        return h["alpha"] * alone[0], h["beta"] * alone[1]

    g, z = of_logits("rld", lambda g, z: sum(terms(g, z), z.new_zeros(())))
    for key, value, weight in zip(("out_confidence", "out_correlation"), terms(g, z), ("alpha", "beta"), strict=True):
        g.close(key, value / g.hyper[weight])
    g.all_compared()
