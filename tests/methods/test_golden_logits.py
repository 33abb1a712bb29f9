"""Losses of logits against the public references: value and gradient in float64, to one in a million."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from methods import sld
from methods.block_kd import block_kd_loss, block_kd_terms
from methods.ctkd import curriculum, temperature
from methods.dist import inter, intra
from methods.dkd import dkd_loss, nckd, tckd
from methods.functional import cross_entropy, kl, standardise, swap
from methods.kd import kd_loss
from methods.lskd_mlkd import LSKDMLKD
from methods.mlkd import MLKD
from methods.nkd import nkd_others, nkd_target
from methods.sld import SLD
from methods.sld_single import SLDSingle
from tests.methods.golden import Golden, at_epoch, dims_of_logits, seen, two_views

pytestmark = pytest.mark.golden


def test_vanilla() -> None:
    g = Golden("vanilla")
    z = g.wanted("in_logits_s")
    loss = cross_entropy(z, g["in_target"]).mean()
    loss.backward()
    g.close("out_loss", loss)
    g.close("grad_logits_s", z.grad)
    g.all_compared()


def test_kd() -> None:
    g = Golden("kd")
    h, y = g.hyper, g["in_target"]
    z = g.wanted("in_logits_s")
    loss = kd_loss(z, g["in_logits_t"], tau=h["T"]).mean()
    g.close("grad_logits_s", torch.autograd.grad(loss, z, retain_graph=True)[0])
    ce = h["ce_weight"] * cross_entropy(z, y).mean()
    total = ce + h["kd_weight"] * loss
    g.close("grad_total_logits_s", torch.autograd.grad(total, z)[0])
    for key, value in {
        "out_loss": loss,
        "out_loss_repdistiller": loss,
        "out_loss_ce_weighted": ce,
        "out_loss_kd_weighted": h["kd_weight"] * loss,
        "out_total": total,
    }.items():
        g.close(key, value)
    g.all_compared()


def test_dkd() -> None:
    g = Golden("dkd")
    h, y, zt = g.hyper, g["in_target"], g["in_logits_t"]
    z = g.wanted("in_logits_s")
    loss = dkd_loss(z, zt, y, alpha=h["alpha"], beta=h["beta"], tau=h["T"]).mean()
    loss.backward()
    g.close("grad_logits_s", z.grad)
    ce = h["ce_weight"] * cross_entropy(z, y).mean()
    warm = min(h["epoch"] / h["warmup"], 1.0)
    for key, value in {
        "out_loss": loss,
        "out_tckd": tckd(z, zt, y, tau=h["T"]).mean(),
        "out_nckd": nckd(z, zt, y, tau=h["T"]).mean(),
        "out_loss_ce_weighted": ce,
        "out_loss_kd_weighted": warm * loss,
        "out_total": ce + warm * loss,
    }.items():
        g.close(key, value)
    g.all_compared()


@pytest.mark.parametrize("detach", [True, False])
def test_block_kd_formula(detach: bool) -> None:
    g = Golden("blockkd_formula")
    h, y, zt = g.hyper, g["in_target"], g["in_logits_t"]
    n = g.count("in_logits_stone_")
    assert n == h["n_blocks"]
    z, stones = g.wanted("in_logits_s"), [g.wanted(f"in_logits_stone_{i}") for i in range(1, n + 1)]
    loss = block_kd_loss(
        z, stones, zt, y, alpha=h["alpha"], beta=h["beta"], gamma=h["gamma"], tau=h["T"], detach_ensemble=detach
    ).mean()
    loss.backward()
    g.close("out_loss", loss)
    terms = block_kd_terms(z, stones, zt, y, tau=h["T"])
    for key, term in zip(("out_task", "out_distill", "out_cross"), terms, strict=True):
        g.close(key, term.mean())
    g.close("out_ensemble", torch.stack(stones).mean(0))
    if detach:
        g.close("grad_logits_s", z.grad)
    for i, stone in enumerate(stones, 1):
        g.close(f"grad_{'' if detach else 'nodetach_'}logits_stone_{i}", stone.grad)
    other = "grad_nodetach_" if detach else "grad_logits"
    g.all_compared(*(k for k in g.arrays if k.startswith(other)))


@pytest.mark.parametrize("name", ["mlkd", "lskd_mlkd"])
def test_mlkd(name: str) -> None:
    g = Golden(name)
    h, kind = g.hyper, {"mlkd": MLKD, "lskd_mlkd": LSKDMLKD}[name]
    (s, z), (t, _) = two_views(g, kind, "s", wanted=True), two_views(g, kind, "t")
    ce, kd = h["ce_weight"], h["kd_weight"]
    method = kind(dims_of_logits(s.logits), ce=ce, kd=kd, relation=kd, tau=h["T"], form="code")
    assert method.temperatures.tolist() == h["temperatures"]
    terms = method.loss(s, t, g["in_target"], at_epoch(1, 1))
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    g.close("out_loss", total)
    for key, term in {"ce": "ce", "kd": "kd", "cc": "class", "bc": "batch"}.items():
        g.close(f"out_loss_{key}", terms[term])
    for view, logits in z.items():
        g.close(f"grad_logits_s_{view}", logits.grad)
    g.all_compared()


def test_dist() -> None:
    g = Golden("dist")
    z, zt, tau = g.wanted("in_logits_s"), g["in_logits_t"], g.hyper["tau"]
    both = inter(z, zt, tau=tau).mean(), intra(z, zt, tau=tau).mean()
    loss = g.hyper["beta"] * both[0] + g.hyper["gamma"] * both[1]
    loss.backward()
    for key, value in zip(("out_loss", "out_inter", "out_intra"), (loss, *both), strict=True):
        g.close(key, value)
    g.close("grad_logits_s", z.grad)
    g.all_compared()


@pytest.mark.parametrize("name", ["lskd_kd", "lskd_dkd"])
def test_lskd(name: str) -> None:
    g = Golden(name)
    h, z, y = g.hyper, g.wanted("in_logits_s"), g["in_target"]
    zs, zt = standardise(z), standardise(g["in_logits_t"])
    if name == "lskd_kd":
        loss = kd_loss(zs, zt, tau=h["T"]).mean()
        g.close("out_total", h["ce_weight"] * cross_entropy(z, y).mean() + h["kd_weight"] * loss)
    else:
        loss = dkd_loss(zs, zt, y, alpha=h["alpha"], beta=h["beta"], tau=h["T"]).mean()
    loss.backward()
    g.close("out_loss", loss)
    g.close("grad_logits_s", z.grad)
    g.all_compared()


def test_nkd() -> None:
    g = Golden("nkd")
    z, zt, y = g.wanted("in_logits_s"), g["in_logits_t"], g["in_target"]
    target = nkd_target(z, zt, y).mean()
    others = g.hyper["gamma"] * nkd_others(z, zt, y, tau=g.hyper["temp"]).mean()
    (target + others).backward()
    g.close("out_loss", target + others)
    g.close("out_loss_target", target)
    g.close("out_loss_nontarget_weighted", others)
    g.close("grad_logits_s", z.grad)
    g.all_compared()


def test_ctkd() -> None:
    g = Golden("ctkd")
    h, z, theta = g.hyper, g.wanted("in_logits_s"), g.wanted("param_global_T")
    schedule = next(key for key in g.arrays if key.startswith("out_lambda_schedule_epoch"))
    first, last = map(int, re.findall(r"\d+", schedule))

    def factor_at(epochs: Tensor) -> Tensor:
        return h["decay_max"] + (h["decay_max"] - h["decay_min"]) * curriculum(epochs / h["decay_loops"])

    g.close(schedule, factor_at(torch.arange(first, last + 1, dtype=torch.float64)))
    factor = factor_at(torch.tensor(h["epoch"], dtype=torch.float64))
    g.close("out_lambda_signed", factor)
    tau = temperature(theta, factor, low=h["t_start"], span=h["t_end"])
    loss = kl(z, g["in_logits_t"], tau).mean()
    loss.backward()
    ce = h["ce_weight"] * cross_entropy(z, g["in_target"]).mean()
    g.close("out_temperature", tau.reshape(g["out_temperature"].shape))
    g.close("out_loss", loss)
    g.close("out_total", ce + h["kd_weight"] * loss)
    g.close("grad_logits_s", z.grad)
    g.close("grad_param_global_T_after_reversal", theta.grad)
    g.all_compared()


def test_sld() -> None:
    g = Golden("sld")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sld, "TEMPERATURES", tuple(g.hyper["temperatures"]))
        compare_sld(g)


def compare_sld(g: Golden) -> None:
    h, y = g.hyper, g["in_target"]
    ce, kd, detach = h["ce_weight"], h["kd_weight"], h["student_teacher_detached"]
    method = SLD(dims_of_logits(g["in_logits_s_weak"]), ce=ce, kd=kd, switch=1.0, detach=detach)
    for epoch in g.numbers("out_loss_epoch"):
        (s, z), (t, zt) = two_views(g, SLD, "s", wanted=True), two_views(g, SLD, "t")
        terms = method.loss(s, t, y, at_epoch(epoch, h["gamma_epoch"]))
        total = terms["ce"] + terms["kd"]
        total.backward()
        g.close(f"out_loss_epoch{epoch}", total)
        g.close(f"out_loss_ce_epoch{epoch}", terms["ce"])
        g.close(f"out_loss_kd_epoch{epoch}", terms["kd"])
        for view, logits in z.items():
            g.close(f"grad_epoch{epoch}_logits_s_{view}", logits.grad)
    g.close("out_loss", total)
    g.close("out_swapped_t_weak", swap(zt["weak"], y))
    g.close("out_swapped_s_weak", swap(z["weak"], y))
    g.all_compared()


def test_sld_single_view() -> None:
    g = Golden("sld_singleview")
    h, dims = g.hyper, dims_of_logits(g["in_logits_s"])
    method = SLDSingle(dims, ce=h["ce_weight"], kd=h["kd_weight"], tau=h["T"], switch=1.0, detach=False)
    for epoch in g.numbers("out_loss_epoch"):
        z = g.wanted("in_logits_s")
        s, t = seen(SLDSingle, logits=z), seen(SLDSingle, logits=g["in_logits_t"])
        terms = method.loss(s, t, g["in_target"], at_epoch(epoch, h["gamma_epoch"]))
        total = terms["ce"] + terms["kd"]
        total.backward()
        g.close(f"out_loss_epoch{epoch}", total)
        g.close(f"grad_epoch{epoch}_logits_s", z.grad)
    g.close("out_loss", total)
    g.all_compared()
