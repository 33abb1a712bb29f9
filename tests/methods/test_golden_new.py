"""Losses of 2021 to 2025 against the public references: value and gradient in float64, to one in a million."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import methods
from methods import rld
from methods.abkd import ab_divergence
from methods.base import Method, NetworkView, Out
from methods.cat_kd import cat_loss
from methods.crld import CRLD
from methods.deepkd import DeepKD, ThreeMomenta
from methods.dkd import dkd_loss
from methods.ea_kd import ea_weight
from methods.itrd import ITRD
from methods.kd import kd_loss
from methods.ldrld import LDRLD
from methods.norm import NORM
from methods.srrl import Connector, feature_statistics, softmax_regression
from methods.ttm import ttm_loss
from methods.wkd_f import WKDF
from methods.wkd_l import WKDL, class_similarity
from methods.wttm import wttm_loss
from tests.methods.golden import Golden, at_epoch, dims_of, dims_of_logits, seen, two_views

pytestmark = pytest.mark.golden
NOW = at_epoch(1, 1)
CODE = ("target", "others", "target")  # whose momentum DeepKD's code takes for labels, others, right class


def _but_dtype(g: Golden) -> dict[str, Any]:
    return {key: value for key, value in g.hyper.items() if key != "dtype"}


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
    g, _ = of_logits(name, lambda g, z: loss(z, g["in_logits_t"], **_but_dtype(g)).mean())
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


def test_srrl() -> None:
    g = Golden("srrl")
    fs, ft, zt = g.wanted("in_feat_s"), g["in_feat_t"], g["in_logits_t"]
    connector = g.load(Connector(fs.shape[1], ft.shape[1], relu=True), "connector")
    fc = g.load(nn.Linear(ft.shape[1], zt.shape[1]), "teacher_fc")
    f = connector(fs)
    fm, sr = feature_statistics(f, ft).mean(), softmax_regression(fc(f.mean((2, 3))), zt).mean()
    (fm + sr).backward()
    for key, value in {"out_fm": fm, "out_sr": sr, "out_loss": fm + sr}.items():
        g.close(key, value)
    g.close("grad_feat_s", fs.grad)
    g.gradients("grad_param_connector", connector)
    g.all_compared()


def test_crld() -> None:
    g = Golden("crld")
    h = g.hyper
    method = CRLD(dims_of_logits(g["in_logits_s_weak"]), **{key: h[key] for key in CRLD.space})
    s, zs = two_views(g, CRLD, "s", wanted=True)
    t, _ = two_views(g, CRLD, "t")
    terms = method.loss(s, t, g["in_target"], NOW)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    for key, value in {"out_loss": loss, "out_ce": terms["ce"], "out_kd": terms["within"] + terms["across"]}.items():
        g.close(key, value)
    for view, z in zs.items():
        g.close(f"grad_logits_s_{view}", z.grad)
    g.all_compared()


@pytest.mark.parametrize("name", ["cat_kd", "cat_kd_normalised"])
def test_cat_kd(name: str) -> None:
    g = Golden(name)
    m = g.wanted("in_maps_s")
    loss = cat_loss(m, g["in_maps_t"], **{key: g.hyper[key] for key in ("grid", "normalise")}).mean()
    loss.backward()
    g.close("out_loss", loss)
    g.close("grad_maps_s", m.grad)
    g.all_compared()


def with_head(g: Golden, kind: type[Method], side: str, f: Tensor) -> NetworkView:
    """A network of one stage whose head is a pooling and the file's classifier."""
    fc = g.load(nn.Linear(f.shape[1], 10), f"{side}_fc") if f"param_{side}_fc.bias" in g.arrays else None

    def tail(i: int, f: Tensor, *, batch_stats: bool = False) -> Tensor:
        assert fc is not None
        return fc(f.mean((2, 3)))

    logits = g["in_logits_t"] if side == "teacher" and "in_logits_t" in g.arrays else tail(1, f)
    return NetworkView({"weak": Out(logits, (f, f), (None, None), f)}, kind.needs.taps, tail)


def test_sdd() -> None:
    """All three losses through the methods' own way to the cells; the reference's NKD had its mask mended."""
    g = Golden("sdd")
    y, ft = g["in_target"], g["in_feat_t"]
    for base in ("kd", "dkd", "nkd"):
        fs = g.wanted("in_feat_s")
        kind = methods.get("sdd" if base == "kd" else f"sdd_{base}")
        fixed = {"ce": 0.0, "kd": 1.0, "warmup": 0.0, **g.hyper}
        method = kind(dims_of([fs], [ft], n_classes=10), **{key: fixed[key] for key in kind.space})
        s, t = (with_head(g, kind, side, f) for side, f in (("student", fs), ("teacher", ft)))
        loss = method.loss(s, t, y, NOW)["sdd"]
        loss.backward()
        g.close(f"out_loss_{base}", loss)
        g.close(f"grad_{base}_feat_s", fs.grad)
    g.all_compared()


@pytest.mark.parametrize("bound", ["entropy", "classes"])
def test_ea(bound: str) -> None:
    g = Golden("ea_kd")
    h, zt, y = g.hyper, g["in_logits_t"], g["in_target"]
    for base in ("kd", "dkd"):
        z = g.wanted("in_logits_s")
        weight = ea_weight(z, zt, tau=h["tau_w"], bound=bound)
        alone = (
            kd_loss(z, zt, tau=h["tau"])
            if base == "kd"
            else dkd_loss(z, zt, y, alpha=h["alpha"], beta=h["beta"], tau=h["tau"])
        )
        loss = (weight * alone).mean()
        loss.backward()
        g.close(f"out_loss_{base}_{bound}", loss)
        g.close(f"grad_{base}_{bound}_logits_s", z.grad)


def test_ldrld() -> None:
    g = Golden("ldrld")
    z = g.wanted("in_logits_s")
    method = LDRLD(dims_of_logits(z), **{key: g.hyper[key] for key in LDRLD.space})
    terms = method.loss(seen(LDRLD, logits=z), seen(LDRLD, logits=g["in_logits_t"]), g["in_target"], NOW)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    for key, value in {"out_loss": loss, "out_pairs": terms["pairs"], "out_rest": terms["rest"]}.items():
        g.close(key, value / {"out_pairs": method.alpha, "out_rest": method.beta}.get(key, 1.0))
    g.close("grad_logits_s", z.grad)
    g.all_compared()


def test_abkd() -> None:
    g, _ = of_logits("abkd", lambda g, z: ab_divergence(z, g["in_logits_t"], **_but_dtype(g)).mean())
    g.all_compared()


@pytest.mark.parametrize("name", ["label_smoothing", "tf_kd"])
def test_without_a_teacher(name: str) -> None:
    def loss(g: Golden, z: Tensor) -> Tensor:
        kind = methods.get(name)
        terms = kind(dims_of_logits(z), **_but_dtype(g)).loss(seen(kind, logits=z), seen(kind), g["in_target"], NOW)
        return torch.stack(list(terms.values())).sum()

    g, _ = of_logits(name, loss)
    g.all_compared()


@pytest.mark.parametrize("name", ["itrd", "itrd_same"])  # the same: both networks' pooled vectors are of one width
def test_itrd(name: str) -> None:
    g = Golden(name)
    hs, ht = g.wanted("in_pooled_s"), g["in_pooled_t"]
    maps = [hs.detach()[:, :, None, None]]
    method = ITRD(dims_of(maps, maps, (hs.shape[1], ht.shape[1])), ce=0.0, **_but_dtype(g))
    g.load(method.embed, "embed")
    z, y = torch.zeros(len(hs), 2), torch.zeros(len(hs), dtype=torch.int64)
    terms = method.loss(seen(ITRD, logits=z, pooled=hs), seen(ITRD, pooled=ht), y, NOW)
    loss = terms["corr"] + terms["mutual"]
    loss.backward()
    g.close("out_loss", loss)
    g.close("out_corr", terms["corr"] / method.corr)
    g.close("out_mutual", terms["mutual"] / method.mutual)
    g.close("grad_pooled_s", hs.grad)
    g.gradients("grad_param_embed", method.embed)
    g.all_compared()


def test_norm() -> None:
    g = Golden("norm")
    y, ft = g["in_target"], g["in_feat_t"]
    fs = g.wanted("in_feat_s")
    method = NORM(dims_of([fs], [ft], (fs.shape[1], ft.shape[1]), n_classes=10), **_but_dtype(g))
    g.load(method.transform, "transform")
    s, t = (with_head(g, NORM, side, f) for side, f in (("student", fs), ("teacher", ft)))
    terms = method.loss(s, t, y, NOW)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    for key, value in {"out_loss": loss, **{f"out_{term}": terms[term] for term in ("ce", "norm", "kd")}}.items():
        g.close(key, value)
    g.close("out_logits", method.predict(s, t))
    g.close("grad_feat_s", fs.grad)
    g.gradients("grad_param_transform", method.transform)
    g.all_compared()


@pytest.mark.parametrize("name", ["wkd_f", "wkd_f_grid", "wkd_f_uneven"])  # uneven: cells overlap, in 7 pixels by 3
def test_wkd_f(name: str) -> None:
    g = Golden(name)
    fs, ft = g.wanted("in_feat_s"), g["in_feat_t"]
    method = WKDF(dims_of([fs], [ft]), ce=0.0, wkd=1.0, decay=1.0, **_but_dtype(g)).double()
    g.load(method.regress, "regress")
    z, y = torch.zeros(len(fs), 2), torch.zeros(len(fs), dtype=torch.int64)
    loss = method.loss(seen(WKDF, logits=z, feats=(fs, fs)), seen(WKDF, feats=(ft, ft)), y, NOW)["wkd"]
    loss.backward()
    g.close("out_loss", loss)
    g.close("grad_feat_s", fs.grad)
    g.gradients("grad_param_regress", method.regress)
    g.all_compared()


def test_deepkd() -> None:
    g = Golden("deepkd")
    fixed: dict[str, Any] = DeepKD.resolve("", "reference", {"kd": 1.0, "tau": g.hyper["tau"]})  # type: ignore[assignment]
    for k in (0, 4):
        z = g.wanted("in_logits_s")
        method = DeepKD(dims_of_logits(z), **{**fixed, "k": k})
        s, t = seen(DeepKD, logits=z), seen(DeepKD, logits=g["in_logits_t"])
        terms = method.loss(s, t, g["in_target"], NOW)
        (terms["target"] + terms["others"]).backward()
        for part in ("target", "others"):
            g.close(f"out_{part}_{k}", terms[part])
        g.close(f"grad_{k}_logits_s", z.grad)
    g.all_compared()


def test_deepkd_steps() -> None:
    """The code moves the labels' gradient by the momentum that it is given for the right class's."""
    g = Golden("deepkd_steps")
    h, p = g.hyper, nn.Parameter(g["param_init"].clone())
    momenta = {part: h["momentum"] + h[key] for part, key in zip(("task", "others", "target"), CODE, strict=True)}
    optimizer = ThreeMomenta([p], lr=h["lr"], weight_decay=h["weight_decay"], momenta=momenta)
    for step in range(1, h["steps"] + 1):
        for part in momenta:
            p.grad = g[f"in_{part}_grad_step{step}"].clone()
            optimizer.hold(part)
        optimizer.step()
        g.close(f"out_param_step{step}", p)
    g.all_compared()


def test_wkd_l() -> None:
    g = Golden("wkd_l")
    for rows in ("few", "many"):  # beside the number of channels
        alike = class_similarity(g[f"in_features_{rows}"])
        g.close(f"out_similarity_{rows}", alike)
    z = g.wanted("in_logits_s")
    dims = replace(dims_of_logits(z), relations=lambda: alike)
    method = WKDL(dims, ce=0.0, decay=1.0, **_but_dtype(g))
    terms = method.loss(seen(WKDL, logits=z), seen(WKDL, logits=g["in_logits_t"]), g["in_target"], NOW)
    loss = terms["target"] + terms["others"]
    loss.backward()
    g.close("out_loss", loss)
    g.close("out_target", terms["target"])
    g.close("grad_logits_s", z.grad)
    g.all_compared()
