"""Pairs of adapted networks: which methods take them, and that all of these learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import methods
from bench import models
from bench.models.adapters import adapted
from bench.models.base import Network
from bench.seeds import fork_rng
from methods.base import Dims, Needs, NetworkView, Progress, Refusal

SIZE, C, B = 32, 5, 4
NO_PREACTS = {"ab", "fsp", "kdsvd", "ofd", "reviewkd"}  # fsp, kdsvd: channels differ
MAPS = {"ab", "at", "block_kd", "fitnet", "fsp", "ft", "kdsvd", "logit_free", "nst", "ofd", "reviewkd", "semckd"}
MAPS |= {"simkd", "sp", "vid", "cat_kd", "fcfd", "norm", "sdd", "sdd_dkd", "sdd_nkd", "srrl", "wkd_f"}
POOLED = {"cc", "crd", "itrd", "pkt", "reviewkd", "rkd"}
BOTH_TAILS = {"cat_kd", "fcfd", "sdd", "sdd_dkd", "sdd_nkd"}  # they go on from both networks' maps


class Strange(nn.Module):
    """A classifier whose forward looks at its values: no graph, and no chain."""

    def __init__(self, linear: bool = True) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer2 = nn.Conv2d(8, 12, 3, 2, 1)
        self.layer3 = nn.Conv2d(12, 12, 3, 2, 1)
        self.fc = nn.Linear(12, C) if linear else nn.Conv2d(12, C, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = self.layer3(self.layer2(self.layer1(x if x.sum() > 0 else -x).relu()).relu()).relu()
        return self.fc(f.mean((2, 3))) if isinstance(self.fc, nn.Linear) else self.fc(f).mean((2, 3))


@pytest.fixture(scope="module")
def nets() -> dict[str, Network]:
    def strange(name: str, linear: bool = True, stages: tuple[str, ...] = ()) -> Network:
        return adapted(name, Strange(linear), 3, SIZE, C, stages)

    names = ["resnet8w4", "resnet14w6", "torchvision/resnet34", "torchvision/resnet18", "torchvision/mobilenet_v2"]
    timm = ["timm/test_vit", "timm/test_vit_relpos", "timm/mobilenetv1_100"]
    with fork_rng("pairs"):
        made = {name: models.build(name, size=SIZE, n_classes=C) for name in (*names, *timm)}
        made |= {"whole": strange("whole"), "no vector": strange("no vector", linear=False)}
        made["watched"] = strange("watched", stages=("layer1", "layer2", "layer3"))
    return made


PAIRS: dict[tuple[str, str], set[str]] = {  # the methods that do not take the pair
    ("timm/test_vit", "resnet8w4"): NO_PREACTS,
    ("resnet14w6", "timm/test_vit"): NO_PREACTS - {"reviewkd"} | {"norm"},
    ("timm/test_vit", "timm/test_vit_relpos"): NO_PREACTS | {"norm"},
    ("torchvision/resnet34", "torchvision/resnet18"): set(),
    ("torchvision/resnet34", "timm/mobilenetv1_100"): {"fsp", "kdsvd"},
    ("torchvision/resnet34", "torchvision/mobilenet_v2"): {"ab", "fsp", "kdsvd", "ofd"},
    ("whole", "resnet8w4"): MAPS | {"wkd_l"},
    ("resnet14w6", "whole"): MAPS,
    ("no vector", "resnet8w4"): MAPS | POOLED | {"wkd_l"},
    ("watched", "resnet8w4"): NO_PREACTS | BOTH_TAILS | {"block_kd", "simkd", "srrl"},  # no going on from its maps
    ("resnet14w6", "watched"): NO_PREACTS - {"reviewkd"} | BOTH_TAILS | {"logit_free", "norm"},
}


ALIKE = {*list(PAIRS)[4:6], *[pair for pair in PAIRS if pair[0] == "resnet14w6" and pair[1] != "timm/test_vit"]}
"""Pairs of a kind that another one stands for; their tests are slow together."""


@pytest.mark.parametrize(
    "pair",
    [pytest.param(pair, marks=[pytest.mark.slow] * (pair in ALIKE), id="->".join(pair)) for pair in PAIRS],
)
@pytest.mark.parametrize("name", methods.names())
def test_every_method_takes_the_pair_or_says_what_is_lacking(
    name: str, pair: tuple[str, str], nets: dict[str, Network]
) -> None:
    teacher, student = (nets[arch] for arch in pair)
    teacher.eval().requires_grad_(False)
    student.train().requires_grad_()
    dims = Dims(student.dims(), teacher.dims(), C, B, torch.arange(40) % C, lambda: tuple(range(teacher.n_stages + 1)))
    kind = methods.get(name)
    if name in PAIRS[pair]:
        with pytest.raises(Refusal) as refusal:
            kind.check_pair(dims)
            kind(dims, **kind.resolve("->".join(pair)))
        assert name in str(refusal.value) and "\n" not in str(refusal.value)
        return
    kind.check_pair(dims)
    with fork_rng("pairs"):
        method = kind(dims, **kind.resolve("->".join(pair)))
    x = torch.randn(B, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for before in (True, False) if method.pretrain_share else (False,):
        needs = (before and method.pretrain_needs) or method.needs
        learns(method, needs, before, student, teacher, x)


def learns(method: Any, needs: Needs, before: bool, student: Network, teacher: Network, x: torch.Tensor) -> None:
    s = NetworkView({v: student(x) for v in needs.views}, needs.taps, student.tail)
    with torch.no_grad():
        t = NetworkView({v: teacher(x) for v in needs.views}, needs.taps, teacher.tail)
    at = Progress(2, 10, torch.Generator().manual_seed(0), torch.arange(B))
    terms = (method.pretrain_loss if before else method.loss)(s, t, torch.arange(B), at)
    assert all(term.isfinite() for term in terms.values())
    student.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    if needs.student:
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in student.parameters())


@pytest.mark.parametrize("pair", [("timm/test_vit", "resnet8w4"), ("resnet14w6", "timm/test_vit")], ids="->".join)
def test_every_stepping_stone_teaches(pair: tuple[str, str], nets: dict[str, Network]) -> None:
    """Also the deepest, behind which a transformer's head reads the class token alone."""
    teacher, student = (nets[arch].eval() for arch in pair)
    dims = Dims(student.dims(), teacher.dims(), C, B, torch.arange(40) % C)
    kind = methods.get("block_kd")
    with fork_rng("stones"):
        method: Any = kind(dims, **kind.resolve("->".join(pair))).eval()
    out = student(torch.randn(B, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)))
    assert len(method.joined_stages) == 3
    for (i, j), connector in zip(method.joined_stages, method.connectors, strict=True):
        f = out.feats[i].detach().requires_grad_()
        teacher.tail(j, connector(f)).square().sum().backward()
        assert f.grad is not None and f.grad.abs().max() > 0
