"""Shapes that adapters must join, and the knobs that only change how a method is assembled."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import methods
from methods.adapters import BatchNorm
from methods.base import Dims, NetDims, NetworkView, Out, Progress, Refusal
from methods.block_kd import Connector, block_kd_terms
from methods.fitnet import Regressor
from methods.functional import kl
from tests.methods.test_contract import Scene

SIZES = [((8, 8), (8, 8)), ((8, 8), (4, 4)), ((4, 4), (8, 8)), ((9, 9), (4, 4)), ((3, 3), (8, 8)), ((2, 8), (4, 4))]


@pytest.mark.parametrize(("hs", "ht"), SIZES)
def test_regressor_and_pooled_teacher_meet(hs: tuple[int, int], ht: tuple[int, int]) -> None:
    regressor = Regressor((3, *hs), (5, *ht))
    met = ht if min(hs) >= min(ht) or hs[0] * 2 == ht[0] == ht[1] == hs[1] * 2 else tuple(map(min, hs, ht))
    assert regressor.size == met and regressor(torch.randn(2, 3, *hs)).shape == (2, 5, *met)


@pytest.mark.parametrize(("sizes", "form", "relu"), list(product(SIZES, ("conv1x1", "conv3x3"), (True, False))))
def test_connector_speaks_the_teachers_shape(sizes: tuple[Any, Any], form: str, relu: bool) -> None:
    hs, ht = sizes
    out = Connector((3, *hs), (5, *ht), form=form, relu=relu)(torch.randn(4, 3, *hs))
    assert out.shape == (4, 5, *ht) and bool((out >= 0).all()) is relu


def test_one_value_per_channel_is_normalised_by_running_statistics() -> None:
    bn, x = BatchNorm(3), torch.randn(1, 3, 1, 1)
    trained = bn(x)
    assert torch.equal(trained, bn.eval()(x)) and bn.num_batches_tracked == 0


WEIGHTS = {
    "kd": {"ce": "ce", "kd": "kd"},
    "dkd": {"ce": "ce"},
    "fitnet": {"ce": "ce", "mse": "mse"},
    "crd": {"ce": "ce", "crd": "crd"},
    "block_kd": {"alpha": "task", "beta": "distill", "gamma": "cross"},
}


@pytest.mark.parametrize(("name", "knob"), [(name, knob) for name, knobs in WEIGHTS.items() for knob in knobs])
def test_a_weight_scales_its_own_term_alone(name: str, knob: str) -> None:
    weights = (1.0, 4.0) if knob == "mse" else (0.25, 1.0)  # the range of mse begins at 1
    low, high = (Scene(name, **{knob: weight}).terms() for weight in weights)  # type: ignore[arg-type]
    assert WEIGHTS[name][knob] in low and len(low) > 1
    for term in low:
        factor = 4 if term == WEIGHTS[name][knob] else 1
        assert high[term].item() == pytest.approx(factor * low[term].item(), rel=1e-5), term


def test_connectors_end_in_a_relu_where_the_teachers_tap_does() -> None:
    scene = Scene("block_kd")
    for relu in product((True, False), repeat=scene.dims.teacher.n_stages):
        dims = replace(scene.dims, teacher=replace(scene.dims.teacher, relu=(True, *relu)))
        method = scene.kind(dims, **scene.kind.resolve(""))
        assert tuple(c.relu for c in method.connectors) == relu  # type: ignore[union-attr]


def test_warm_up_scales_what_it_should() -> None:
    terms = {}
    for share in (0.0, 0.8):  # epoch 2 of 10: a ramp of 1/4
        scene = Scene("dkd", warmup=share)
        terms[share] = scene.terms()
    assert terms[0.8]["dkd"].item() == pytest.approx(terms[0.0]["dkd"].item() / 4, rel=1e-5)
    assert torch.equal(terms[0.8]["ce"], terms[0.0]["ce"])


def test_block_kd_warms_the_soft_terms_of_the_stones_alone() -> None:
    z = [torch.randn(3, 4, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    y = torch.tensor([0, 1, 2])

    def terms(warm: float) -> list[Tensor]:
        return list(block_kd_terms(z[0], z[1:3], z[3], y, tau=4.0, warm=warm))

    cold, half, full = terms(0.0), terms(0.5), terms(1.0)
    assert torch.equal(cold[0], full[0])
    torch.testing.assert_close(cold[1], kl(z[0], z[3], 4.0))
    torch.testing.assert_close(cold[2], kl(z[0], (z[1] + z[2]) / 2, 4.0))
    for i in (1, 2):
        torch.testing.assert_close(half[i], (cold[i] + full[i]) / 2)


@pytest.mark.parametrize("changes", [{"keep_last": 2}, {"connector": "conv3x3"}, {"bn": "batch"}, {"detach": False}])
def test_block_kd_variants_train_every_connector_and_leave_the_teacher(changes: dict[str, Any]) -> None:
    scene = Scene("block_kd", **changes)
    before = {k: v.clone() for k, v in scene.teacher.state_dict().items()}
    terms = scene.terms()
    assert len(scene.method.connectors) == changes.get("keep_last", scene.dims.teacher.n_stages)  # type: ignore[arg-type]
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in scene.method.parameters())
    assert all(torch.equal(v, before[k]) for k, v in scene.teacher.state_dict().items())


def test_a_hint_beyond_the_networks_is_refused() -> None:
    with pytest.raises(Refusal, match=r"fitnet\.hint is 5; .* 1 to 3"):
        Scene("fitnet", hint=5)


def test_crd_uses_as_many_negatives_as_every_example_has() -> None:
    net = NetDims(((1, 1, 1),) * 2, (None,) * 2, (True,) * 2, 6)
    train_y = torch.tensor([0] * 7 + [1] * 3)
    kind = methods.get("crd")
    hp = kind.resolve("", overrides={"dim": 8})
    crd = kind(Dims(net, net, 2, 4, train_y), **hp)
    assert crd.k == 3
    index = torch.tensor([0, 8, 9, 3])
    out = Out(torch.randn(4, 2), (), (), torch.randn(4, 6))
    seen = NetworkView({"weak": out}, kind.needs.taps)
    first, second = (
        crd.loss(seen, seen, train_y[index], Progress(e, 2, torch.Generator().manual_seed(e), index)) for e in (1, 2)
    )
    assert first["crd"].isfinite() and not torch.equal(first["crd"], second["crd"])


def test_crd_fixes_its_constant_in_the_first_step() -> None:
    scene = Scene("crd")
    assert scene.method.z_s == 0
    scene.terms()
    z, memory = scene.method.z_s.clone(), scene.method.memory_s.clone()  # type: ignore[operator]
    scene.terms()
    assert z > 0 and scene.method.z_s == z and not torch.equal(memory, scene.method.memory_s)  # type: ignore[arg-type]
