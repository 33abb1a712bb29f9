"""Value and gradient of every loss equal those of the public reference, in float64, to one in a million."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.base import Dims, NetDims
from methods.block_kd import block_kd_loss, block_kd_terms
from methods.crd import CRD
from methods.dkd import dkd_loss, nckd, tckd
from methods.fitnet import Regressor, fitnet_loss
from methods.functional import cross_entropy
from methods.kd import kd_loss

FOLDER = Path(os.environ.get("KDBENCH_GOLDEN") or Path(__file__).parent.parent / "golden") / "methods"
pytestmark = pytest.mark.golden


class Golden:
    """One file: arrays as float64 tensors, inputs that want gradients, and `close` that remembers what was compared."""

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        self.hyper: dict[str, Any] = json.loads(str(arrays.pop("hyper")))
        self.arrays = {key: torch.from_numpy(value) for key, value in arrays.items()}
        self.compared: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        value = self.arrays[key]
        return value.double() if value.is_floating_point() else value

    def wanted(self, key: str) -> Tensor:
        return self[key].clone().requires_grad_()

    def count(self, prefix: str) -> int:
        return sum(key.startswith(prefix) and key.removeprefix(prefix).isdigit() for key in self.arrays)

    def close(self, key: str, ours: Tensor | None) -> None:
        assert ours is not None
        reference = self[key]
        assert ours.shape == reference.shape
        assert (ours.detach() - reference).abs().max() <= 1e-6 * reference.abs().max().clamp(min=1e-12), key
        self.compared.add(key)

    def all_compared(self, *but: str) -> None:
        left = {k for k in self.arrays if k.startswith(("out_", "grad_"))} - self.compared - set(but)
        assert not left, f"not compared: {sorted(left)}"


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


def test_crd() -> None:
    g = Golden("crd")
    h = g.hyper
    net = {
        side: NetDims(((1, 1, 1),) * 2, (None,) * 2, (True,) * 2, g[f"in_step1_pooled_{side}"].shape[1])
        for side in "st"
    }
    dims = Dims(net["s"], net["t"], 2, 8, torch.arange(h["n_data"]) % 2)
    method = CRD(dims, ce=1.0, crd=1.0, tau=h["T"], dim=h["feat_dim"], nce_k=h["K"], momentum=h["momentum"]).double()
    state = {k.removeprefix("param_"): g[k] for k in g.arrays if k.startswith("param_embed")}
    method.load_state_dict(
        {**method.state_dict(), **state, "memory_s": g["param_memory_s_init"], "memory_t": g["param_memory_t_init"]}
    )
    for step in (1, 2):
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
    steps = (g["out_loss_step1"], g["out_loss_step2"])
    assert g["out_loss"] in (*steps, sum(steps))  # one of the steps, or their sum, under a second name
    g.all_compared("out_loss")


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
