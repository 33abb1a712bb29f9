"""Wasserstein distillation of logits: probability moved to a class that the teacher finds alike costs less."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.base import Dims, Float, Int, Method, NetworkView, Progress, Recipe, Refusal
from methods.functional import cross_entropy
from methods.nkd import nkd_target
from methods.wkd_f import WKDF, fade

SMALL = 1e-8  # keeps divisions and costs positive, as in the reference code


def class_similarity(f: Tensor) -> Tensor:
    """Linear CKA of every two classes' features, 0 to 1. f: [C, n, D] float, n rows of every class → [C, C].

    ‖X_iᵀX_j‖² / (‖X_iᵀX_i‖·‖X_jᵀX_j‖) of centred rows, which are paired as they come. arXiv 2412.08139, §3.2.
    """
    f = f - f.mean(dim=1, keepdim=True)
    if f.shape[1] <= f.shape[2]:  # ‖XᵀY‖² is also the product of XXᵀ and YYᵀ, which are then the smaller ones
        grams = (f @ f.mT).flatten(1)
        products = grams @ grams.T
    else:
        products = torch.stack([torch.matmul(x.T, f).square().sum(dim=(1, 2)) for x in f])
    norm = products.diagonal().clamp(min=1e-12).sqrt()
    return products / (norm[:, None] * norm[None, :])


def transport_cost(similarity: Tensor, *, sharpen: float) -> Tensor:
    """1 - exp(-κ·(1 - similarity)), 0 for a class to itself. similarity: [C, C] float → [C, C]."""
    distance = (1 - similarity).clamp(min=0.0)
    return 1 - torch.exp(-sharpen * distance)


def sinkhorn_distance(ps: Tensor, pt: Tensor, cost: Tensor, *, reg: float, iterations: int) -> Tensor:
    """Cost of moving ps to pt by the plan of some Sinkhorn iterations. ps, pt: [B, C] float; cost: [C, C] → [B].

    A class whose two probabilities are 0 takes no part. arXiv 2412.08139, eq. 3.
    """
    cost = cost + SMALL
    kernel = torch.exp(-cost / reg)
    part = ((ps > 0) | (pt > 0)).to(ps.dtype)
    u = part / part.sum(dim=1, keepdim=True)
    for _ in range(iterations):
        v = pt / (u @ kernel + SMALL)
        u = ps / (v @ kernel.T + SMALL)
    return (u * (v @ (kernel * cost).T)).sum(dim=1)


def wkd_others(zs: Tensor, zt: Tensor, y: Tensor, cost: Tensor, *, tau: float, reg: float, iterations: int) -> Tensor:
    """`sinkhorn_distance` of the classes other than y, renormalised. zs, zt: [B, C] float; y: [B] int64 → [B]."""
    right = torch.arange(zs.shape[1], device=y.device) == y[:, None]
    ps, pt = ((z / tau).masked_fill(right, -torch.inf).softmax(dim=1) for z in (zs, zt))
    return sinkhorn_distance(ps, pt, cost, reg=reg, iterations=iterations)


class WKDL(Method):
    paper = WKDF.paper
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "target": Float(0.0, 10.0, tune=False),
        "wkd": Float(1.0, 5000.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
        "reg": Float(0.005, 1.0, log=True, tune=False),
        "iterations": Int(1, 100, tune=False),
        "sharpen": Float(0.1, 10.0, log=True, tune=False),
        "decay": Float(0.0, 1.0, tune=False),  # share of all epochs after which the distance fades
    }
    recipes = {
        "paper": Recipe(
            values={
                **{"ce": 1.0, "target": 1.0, "wkd": 600.0, "tau": 8.0, "decay": 150 / 240},
                **{"reg": 0.05, "iterations": 10, "sharpen": 1.0},
            },
            source="WKD @ 214cf88 configs/cifar100/wkd_l/*.yaml; other pairs take that of resnet32x4 → resnet8x4",
            selection="best-epoch-on-test",
            pairs={"wrn_40_2->ShuffleV1": {"wkd": 200.0, "tau": 6.0}},
            reported={"cifar100/resnet32x4->resnet8x4": 76.53, "cifar100/wrn_40_2->ShuffleV1": 76.72},
        ),
    }
    deviations = (
        "The likeness of classes is computed from the teacher's last maps of 32 images of every class, where the code"
        " takes all; both pair the images of two classes as they come.",
        "One matrix of costs serves a whole batch: the right class has no probability to move, and so takes no part.",
        "The fading from epoch 150 of 240 on begins after the same share of whatever schedule is run.",
    )

    cost: Tensor

    def __init__(
        self,
        dims: Dims,
        *,
        ce: float,
        target: float,
        wkd: float,
        tau: float,
        reg: float,
        iterations: int,
        sharpen: float,
        decay: float,
    ) -> None:
        super().__init__(dims)
        self.ce, self.target, self.wkd, self.tau, self.decay = ce, target, wkd, tau, decay
        self.reg, self.iterations = reg, iterations
        # while there is no trained teacher, any similarity will do to check the rest
        similarity = torch.eye(dims.n_classes) if dims.relations is None else dims.relations()
        self.register_buffer("cost", transport_cost(similarity, sharpen=sharpen))

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        cost = self.cost.to(s.logits.dtype)
        others = wkd_others(s.logits, t.logits, y, cost, tau=self.tau, reg=self.reg, iterations=self.iterations)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "target": self.target * nkd_target(s.logits, t.logits, y).mean(),
            "others": self.wkd * fade(at, self.decay) * others.mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        if dims.n_classes < 2:
            raise Refusal(f"wkd_l moves probability between classes; it takes 2 or more, not {dims.n_classes}")
        if int(dims.train_y.bincount(minlength=dims.n_classes).min()) < 2:
            raise Refusal(
                "wkd_l compares the teacher's maps of classes; it takes 2 training images or more of every one"
            )
        if not dims.teacher.feats:
            raise Refusal("wkd_l needs maps, in which the classes are alike or not, and the teacher shows none")
