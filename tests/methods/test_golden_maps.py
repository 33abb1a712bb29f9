"""Losses of feature maps against the public references: value and gradient in float64, to one in a million."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from methods.ab import SCALE, ab_loss
from methods.adapters import match_sizes
from methods.at import at_loss
from methods.fitnet import Regressor, fitnet_loss
from methods.fsp import flow, fsp_loss
from methods.ft import FT, ft_loss
from methods.kdsvd import kdsvd_loss
from methods.nst import nst_loss
from methods.ofd import Connector, margin, ofd_loss
from methods.reviewkd import ReviewKD
from methods.semckd import SemCKD
from methods.simkd import Projector
from methods.sp import sp_loss
from methods.vid import Gaussian, vid_loss
from tests.methods.golden import Golden, at_epoch, dims_of, seen, stages

pytestmark = pytest.mark.golden


@pytest.mark.parametrize("name", ["fitnet", "fitnet_down", "fitnet_up", "fitnet_valid"])
def test_fitnet(name: str) -> None:
    g = Golden(name)
    fs, ft = g.wanted("in_feat_s"), g["in_feat_t"]
    regressor = Regressor(tuple(fs.shape[1:]), tuple(ft.shape[1:])).double()  # type: ignore[arg-type]
    names = {key: key.removeprefix("param_regressor_") for key in g.arrays if key.startswith("param_")}
    regressor.load_state_dict({name: g[key] for key, name in names.items()}, strict=False)
    out = regressor(fs)
    loss = fitnet_loss(out, ft).mean()
    loss.backward()
    g.close("out_loss", loss)
    g.close("out_loss_weighted", g.hyper["feat_weight"] * loss)
    g.close("out_regressed", out)
    g.close("grad_feat_s", fs.grad)
    parameters = dict(regressor.named_parameters())
    for key in list(g.arrays):
        if key.startswith("grad_param_"):
            g.close(key, parameters[key.removeprefix("grad_param_regressor_")].grad)
    g.all_compared()


def test_at() -> None:
    g = Golden("at")
    stages(g, lambda a, b: at_loss(a, b, p=g.hyper["p"]))
    g.all_compared()


def test_nst() -> None:
    g = Golden("nst")
    stages(g, nst_loss)
    g.all_compared()


def test_sp() -> None:
    g = Golden("sp")
    stages(g, sp_loss)
    g.all_compared()


def test_vid() -> None:
    g = Golden("vid")
    variance, eps = g.hyper["init_pred_var"], g.hyper["eps"]
    shapes = zip(g.maps("in_feat_s_"), g.maps("in_feat_t_"), strict=True)
    nets = [Gaussian(a.shape[1], b.shape[1], variance, eps) for a, b in shapes]
    assert nets[0].rho[0].item() == pytest.approx(g.hyper["init_log_scale"], rel=1e-6)
    for i, net in enumerate(nets):
        state = {k.removeprefix(f"param_regressor{i}."): g[k] for k in g.arrays if k.startswith(f"param_regressor{i}.")}
        net.double().load_state_dict({**state, "rho": g[f"param_log_scale{i}"]})
    turn = iter(nets)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        net = next(turn)
        a, b = match_sizes(a, b)
        return vid_loss(net(a), b, net.rho, eps=eps)

    stages(g, loss)
    for i, net in enumerate(nets):
        g.gradients(f"grad_param_regressor{i}.", net)
        g.close(f"grad_param_log_scale{i}", net.rho.grad)
    g.all_compared()


@pytest.mark.parametrize("name", ["kdsvd", "kdsvd_mdistiller"])
def test_kdsvd(name: str) -> None:
    """Against the reference with consistent signs; its own signs are those of one linear algebra library."""
    g = Golden(name)
    matrix = {"[H*W, C]": "pixels", "[C*H, W]": "rows"}[g.hyper["matrix"]]
    fs = g.maps("in_feat_s_", wanted=True)
    loss = kdsvd_loss(fs, g.maps("in_feat_t_"), k=g.hyper["k"], matrix=matrix).mean()
    loss.backward()
    g.close("out_loss_canonical_sign", loss)
    for i, f in enumerate(fs):
        g.close(f"grad_canonical_feat_s_{i}", f.grad)
    raw = [k for k in g.arrays if k in ("out_loss", "out_loss_per_pair") or k.startswith("grad_feat")]
    g.all_compared(*raw)


def test_fsp() -> None:
    g = Golden("fsp")
    fs, ft = g.maps("in_feat_s_", wanted=True), g.maps("in_feat_t_")
    loss = fsp_loss(fs, ft).mean()
    loss.backward()
    g.close("out_loss", loss)
    pairs = [fsp_loss(fs[i : i + 2], ft[i : i + 2]).mean() for i in range(len(fs) - 1)]
    g.close("out_loss_per_pair", torch.stack(pairs))
    g.close("out_fsp_s_0", flow(fs[0], fs[1]).reshape(g["out_fsp_s_0"].shape))
    for i, f in enumerate(fs):
        g.close(f"grad_feat_s_{i}", f.grad)
    g.all_compared()


def test_ab() -> None:
    g = Golden("ab")
    fs, ft = g.maps("in_feat_s_"), g.maps("in_feat_t_")
    connectors: list[nn.Module] = []
    for i, (a, b) in enumerate(zip(fs, ft, strict=True)):
        shapes = tuple(a.shape[1:]), tuple(b.shape[1:])
        same = g.hyper["identity"][i]
        connectors.append(nn.Identity() if same else g.load(Regressor(*shapes, relu=False), f"connector{i}."))  # type: ignore[arg-type]
    turn = iter(connectors)
    stages(
        g,
        lambda a, b: SCALE * ab_loss(next(turn)(a), b, margin=g.hyper["margin"]),
        lambda i, n: 2.0 ** (i - n + 1),
    )
    for i, connector in enumerate(connectors):
        g.gradients(f"grad_param_connector{i}.", connector)
    g.all_compared()


def test_ft() -> None:
    g = Golden("ft")
    fs, ft = g.wanted("in_feat_s"), g["in_feat_t"]
    rate, weight = g.hyper["k"], g.hyper["feat_weight"]
    method = FT(dims_of([fs], [ft]), ce=1.0, ft=weight, form="attention", rate=rate, before=0.0, lr_before=1.0)
    g.load(method.encoder, "paraphraser.encoder.")
    g.load(method.decoder, "paraphraser.decoder.")
    g.load(method.translator, "translator.encoder.")
    t = seen(FT, feats=(ft,))
    first = method.pretrain_loss(t, t, torch.zeros(len(ft)), at_epoch(1, 1))["reconstruction"]
    first.backward()
    g.close("out_loss_init_reconstruction", first)
    g.gradients("grad_init_param_paraphraser.encoder.", method.encoder)
    g.gradients("grad_init_param_paraphraser.decoder.", method.decoder)
    factor, own = method.encoder(ft).detach(), method.translator(fs)
    loss = ft_loss(own, factor, form="attention").mean()
    loss.backward()
    g.close("out_loss", loss)
    g.close("out_teacher_factor", factor)
    g.close("out_student_factor", own)
    if "out_loss_fullfactor_kdzoo" in g.arrays:  # that code takes maps of one size alone
        g.close("out_loss_fullfactor_kdzoo", ft_loss(own, factor, form="factor").mean())
    g.close("grad_feat_s", fs.grad)
    g.gradients("grad_param_translator.encoder.", method.translator)
    g.all_compared()


def test_ofd() -> None:
    g = Golden("ofd")
    norms = [f"param_teacher_bn{i}" for i in g.numbers("param_teacher_bn", ".weight")]
    margins = [margin(g[f"{norm}.weight"], g[f"{norm}.bias"]) for norm in norms]
    for i, m in enumerate(margins):
        g.close(f"out_margin_{i}", m)
    shapes = zip(g.maps("in_feat_s_"), g.maps("in_feat_t_"), strict=True)
    connectors = [g.load(Connector(a.shape[1], b.shape[1]), f"connector{i}.") for i, (a, b) in enumerate(shapes)]
    turn = iter(zip(connectors, margins, strict=True))

    def loss(a: Tensor, b: Tensor) -> Tensor:
        connector, m = next(turn)
        a, b = match_sizes(connector(a), b)
        return ofd_loss(a, b, m)

    total, *_ = stages(g, loss, lambda i, n: 2.0 ** (i - n + 1))
    g.close("out_loss_official_over_batch", total)
    for i, connector in enumerate(connectors):
        g.gradients(f"grad_param_connector{i}.", connector)
    g.all_compared()


def test_reviewkd() -> None:
    g = Golden("reviewkd")
    fs, ft = g.maps("in_feat_s_", wanted=True), g.maps("in_preact_feat_t_")
    hs, ht = g.wanted("in_pooled_s"), g["in_pooled_t"]
    h, dims = g.hyper, dims_of(fs, ft, (hs.shape[1], ht.shape[1]))
    method = ReviewKD(dims, ce=1.0, review=h["feat_weight"], warmup=1.0, max_mid=h["mid_channel"])
    for i, fusion in enumerate(method.fusions):
        g.load(fusion, f"abf{i}.")
    s, t = (
        seen(ReviewKD, feats=(f[0], *f), preacts=(f[0], *f), pooled=pooled, logits=torch.zeros(len(pooled), 2))
        for f, pooled in ((tuple(fs), hs), (tuple(ft), ht))
    )
    y = torch.zeros(len(hs), dtype=torch.int64)
    weighted = method.loss(s, t, y, at_epoch(h["epoch"], h["warmup"]))["review"]
    weighted.backward()
    g.close("out_loss_weighted", weighted)
    g.close("out_weight", weighted / g["out_loss"])
    g.close("out_loss", weighted / g["out_weight"])
    g.close("grad_weighted_pooled_s", hs.grad)
    for i, f in enumerate(fs):
        g.close(f"grad_weighted_feat_s_{i}", f.grad)
    for i, fusion in enumerate(method.fusions):
        g.gradients(f"grad_weighted_param_abf{i}.", fusion)
    g.all_compared()


def test_simkd() -> None:
    g = Golden("simkd")
    fs, ft = g.wanted("in_feat_s"), g["in_feat_t"]
    projector = g.load(Projector(fs.shape[1], ft.shape[1], g.hyper["factor"], relu=True), "projector.")
    out = projector(fs)
    loss = fitnet_loss(out, ft).mean()
    loss.backward()
    g.close("out_loss", loss)
    g.close("out_projected_feat", out)
    g.close("out_logits", out.mean((2, 3)) @ g["param_teacher_fc.weight"].T + g["param_teacher_fc.bias"])
    g.close("grad_feat_s", fs.grad)
    g.gradients("grad_param_projector.", projector)
    g.all_compared()


def test_semckd() -> None:
    g = Golden("semckd")
    fs, ft = g.maps("in_feat_s_", wanted=True), g.maps("in_feat_t_")
    h = g.hyper
    method = SemCKD(dims_of(fs, ft), ce=h["ce_weight"], kd=h["kd_weight"], sem=h["beta"], tau=h["kd_T"])
    parts: dict[str, nn.Module] = {f"query_{i}": m for i, m in enumerate(method.queries)}
    parts |= {f"key_{i}": m for i, m in enumerate(method.keys)}
    for i, row in enumerate(method.regressors):
        parts |= {f"regressor{i}{j}": m for j, m in enumerate(row.children())}
    for name, module in parts.items():
        g.load(module, f"{name}.")
    loss = method.distance(tuple(fs), tuple(ft)).mean()
    loss.backward()
    g.close("out_loss", loss)
    g.close("out_attention", method.attention(tuple(fs), tuple(ft)).reshape(g["out_attention"].shape))
    for i, f in enumerate(fs):
        g.close(f"grad_feat_s_{i}", f.grad)
    for name, module in parts.items():
        g.gradients(f"grad_param_{name}.", module)
    g.all_compared()


def test_logit_free() -> None:
    g = Golden("logitfree")
    fs, ft = g.maps("in_feat_s_", wanted=True), g.maps("in_feat_t_")
    projectors = [nn.Conv2d(a.shape[1], b.shape[1], 1, bias=False) for a, b in zip(fs, ft, strict=True)]
    losses = []
    for i, (a, b) in enumerate(zip(fs, ft, strict=True)):
        g.load(projectors[i], f"projector{i}.")
        a, b = match_sizes(a, b)
        losses.append(fitnet_loss(projectors[i](a), b))
    each = torch.stack([loss.mean() for loss in losses])
    each.mean().backward()
    g.close("out_loss", each.mean())
    g.close("out_loss_per_layer", each)
    g.close("out_loss_layer0_per_sample", losses[0])
    for i, f in enumerate(fs):
        g.close(f"grad_feat_s_{i}", f.grad)
        g.close(f"grad_param_projector{i}.weight", projectors[i].weight.grad)
    g.all_compared()
