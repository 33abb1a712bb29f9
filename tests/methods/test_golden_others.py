"""Losses of pooled vectors, an optimiser and a score against the public references, to one in a million."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.base import Dims, NetDims
from methods.cc import cc_loss, neighbour_loss
from methods.crd import CRD
from methods.dot import TwoMomenta
from methods.logit_free import knowledge_quality
from methods.pkt import pkt_loss
from methods.rkd import rkd_angle_loss, rkd_distance_loss
from tests.methods.golden import FOLDER, SEEN, Golden

pytestmark = pytest.mark.golden


def test_crd() -> None:
    g = Golden("crd")
    h = g.hyper
    steps = g.numbers("out_loss_step")
    hs, ht = (g[f"in_step{steps[0]}_pooled_{side}"] for side in "st")
    net = [NetDims(((1, 1, 1),) * 2, (None,) * 2, (True,) * 2, pooled.shape[1]) for pooled in (hs, ht)]
    dims = Dims(net[0], net[1], 2, len(hs), torch.arange(h["n_data"]) % 2)
    method = CRD(
        dims, ce=1.0, crd=h["feat_weight"], tau=h["T"], dim=h["feat_dim"], nce_k=h["K"], momentum=h["momentum"]
    ).double()
    state = {k.removeprefix("param_"): g[k] for k in g.arrays if k.startswith("param_embed")}
    method.load_state_dict(
        {**method.state_dict(), **state, "memory_s": g["param_memory_s_init"], "memory_t": g["param_memory_t_init"]}
    )
    for step in steps:
        method.zero_grad()
        hs = g.wanted(f"in_step{step}_pooled_s")
        pick = g[f"in_step{step}_contrast_index"]
        assert torch.equal(pick[:, 0], g[f"in_step{step}_index"])
        loss = method.contrast(hs, g[f"in_step{step}_pooled_t"], pick).mean()
        loss.backward()
        g.close(f"out_loss_step{step}", loss)
        g.close(f"grad_step{step}_pooled_s", hs.grad)
        for name, parameter in method.named_parameters():
            g.close(f"grad_step{step}_param_{name}", parameter.grad)
        for side in "st":
            g.close(
                f"out_Z_{side}_step{step}", getattr(method, f"z_{side}").reshape(g[f"out_Z_{side}_step{step}"].shape)
            )
            g.close(f"out_memory_{side}_after_step{step}", getattr(method, f"memory_{side}"))
    losses = [g[f"out_loss_step{step}"] for step in steps]
    assert g["out_loss"] in (*losses, sum(losses))  # one of the steps, or their sum, under a second name
    g.all_compared("out_loss")


def test_rkd() -> None:
    g = Golden("rkd")
    hs, ht = g.wanted("in_pooled_s"), g["in_pooled_t"]
    distance, angle = rkd_distance_loss(hs, ht), rkd_angle_loss(hs, ht)
    loss = g.hyper["distance_weight"] * distance + g.hyper["angle_weight"] * angle
    loss.backward()
    values = {"out_loss": loss, "out_loss_repdistiller": loss, "out_loss_distance": distance, "out_loss_angle": angle}
    for key, value in values.items():
        g.close(key, value)
    g.close("grad_pooled_s", hs.grad)
    g.all_compared()


@pytest.mark.parametrize("name", ["pkt", "cc_rbf"])
def test_pooled(name: str) -> None:
    g = Golden(name)
    h, hs, ht = g.hyper, g.wanted("in_pooled_s"), g["in_pooled_t"]
    value = pkt_loss(hs, ht, eps=h["eps"]) if name == "pkt" else cc_loss(hs, ht, gamma=h["gamma"], order=h["P_order"])
    value.backward()
    g.close("out_loss", value)
    g.close("grad_pooled_s", hs.grad)
    g.all_compared()


def test_cc() -> None:
    g = Golden("cc")
    hs, ht = g.wanted("in_pooled_s"), g["in_pooled_t"]
    embed = {side: nn.Linear(h.shape[1], g.hyper["embed_dim"]) for side, h in (("s", hs), ("t", ht))}
    for side, layer in embed.items():
        g.load(layer, f"embed_{side}")
    loss = neighbour_loss(embed["s"](hs), embed["t"](ht))
    loss.backward()
    g.close("out_loss", loss)
    g.close("grad_pooled_s", hs.grad)
    for side, layer in embed.items():
        g.gradients(f"grad_param_embed_{side}", layer)
    g.all_compared()


def test_dot() -> None:
    g = Golden("dot")
    names = ("shared", "kd_only", "task_only")
    params = {name: nn.Parameter(g[f"param_{name}_init"].clone()) for name in names}
    settings = {key: g.hyper[key] for key in ("lr", "momentum", "weight_decay", "delta")}
    optimizer = TwoMomenta(list(params.values()), **settings)
    for step in range(1, g.hyper["steps"] + 1):
        for kind in ("kd", "task"):
            for name, p in params.items():
                p.grad = g[key] if (key := f"in_{kind}_grad_{name}_step{step}") in g.arrays else None
            if kind == "kd":
                optimizer.save_kd_gradients()
        optimizer.step()
        for name, p in params.items():
            g.close(f"out_{name}_step{step}", p)
    g.all_compared()


def test_knowledge_quality() -> None:
    g = Golden("logitfree_q")
    layers = [g[f"in_layer{i}_features"].flatten(1) for i in g.numbers("in_layer", "_features")]
    rows = [knowledge_quality(f, g["in_target"], n=g.hyper["dataset_size"]) for f in layers]
    for key in ("separation", "information", "efficiency", "quality"):
        g.close(f"out_{key}", torch.stack([row[key] for row in rows]))
    order = torch.stack([row["quality"] for row in rows]).argsort(descending=True)
    assert torch.equal(order, g["out_rank_desc"]) or torch.equal(order.argsort(), g["out_rank_desc"])
    g.all_compared("out_rank_desc")


def test_every_file_is_compared() -> None:
    """Run after the others: a file of the folder that no test reads is a method without proof."""
    if len(SEEN) > 30:
        assert {path.stem for path in FOLDER.glob("*.npz")} == SEEN
