"""Logit-free feature distillation: the backbone learns from maps alone, the head from labels alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from methods.adapters import match_sizes, require_stages, stage_pairs
from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal, Text
from methods.fitnet import fitnet_loss
from methods.functional import cross_entropy

COLUMNS, ROWS = 4096, 1024  # of a product in double precision at a time


def knowledge_quality(f: Tensor, y: Tensor, *, n: int) -> dict[str, Tensor]:
    """Separation S, information I, efficiency E and Q = S + √(I·E) of a layer's features. arXiv 2511.14981.

    f: [M, D] float, features of M samples; y: [M] int64, each class twice or more; n: training examples → [] each.
    S: mean |cos| within a class (a sample with itself included) minus that between classes. I: (1 - mean smallest
    |cos| within a class) · mean entropy of a class's normalised squared singular values, in logarithms to base 5.
    E: twice the mean distance to the nearest other class over the mean norm, times (n/π)^(1/min(M, D)).
    """
    products = torch.zeros(len(f), len(f), dtype=torch.float64, device=f.device)
    add_products(products, f)
    return quality_of_products(products, y, n=n, width=f.shape[1])


def add_products(products: Tensor, f: Tensor) -> None:
    """Add f·fᵀ to products: [M, M] float64. f: [M, D] float, or some of its columns where D is too wide for memory."""
    for part in f.split(COLUMNS, dim=1):
        part = part.double()
        for i in range(0, len(f), ROWS):  # the upper blocks; the lower ones are their mirror images
            block = part[i : i + ROWS] @ part[i:].T
            products[i : i + ROWS, i:] += block
            products[i + ROWS :, i : i + ROWS] += block[:, ROWS:].T


def quality_of_products(products: Tensor, y: Tensor, *, n: int, width: int) -> dict[str, Tensor]:
    """`knowledge_quality` of features of which only f·fᵀ: [M, M] float64 and the width D are known: it takes no more.

    Distances come from products, so double precision matters: with it, they are exact to 1e-7 of a sample's norm.
    """
    classes = y.unique()
    if len(classes) < 2 or min(int((y == c).sum()) for c in classes) < 2:
        raise Refusal("Q compares classes: it takes two or more, each with at least two samples")
    if not products.isfinite().all():
        raise Refusal("Q cannot be told of this teacher: not all numbers in its maps are finite")
    squares = products.diagonal()
    norms = squares.sqrt().clamp(min=1e-12)
    share = (y[:, None] == classes).double()
    share /= share.sum(dim=0)
    within, smallest, entropies, nearest, between = [], [], [], [], []
    for i, c in enumerate(classes):
        own = y == c
        rows = products[own]
        cosine = rows.abs() / (norms[own, None] * norms)
        likeness = cosine.mean(dim=0) @ share  # to every class
        within.append(likeness[i])
        between.append((likeness.sum() - likeness[i]) / (len(classes) - 1))
        smallest.append(cosine[:, own].min())
        entropies.append(_entropy(rows[:, own]))
        nearest.append((squares[own, None] + squares - 2 * rows)[:, ~own].min().clamp(min=0).sqrt())
    separation = _mean(within) - _mean(between)
    information = (1 - _mean(smallest)) * _mean(entropies) / math.log(5)
    efficiency = 2 * _mean(nearest) / (norms @ share).mean() * (n / math.pi) ** (1 / min(len(y), width))
    quality = separation + (information * efficiency).clamp(min=0).sqrt()
    return {"separation": separation, "information": information, "efficiency": efficiency, "quality": quality}


def _entropy(products: Tensor) -> Tensor:
    """Entropy of the normalised squared singular values of centred samples, from the products of uncentred ones."""
    centred = products - products.mean(dim=0) - products.mean(dim=1, keepdim=True) + products.mean()
    p = torch.linalg.eigvalsh(centred)
    p = p.where(p > 1e-12 * products.trace(), 0)  # what is left of a zero after rounding
    return torch.special.entr(p / p.sum()).sum() if p.sum() > 0 else p.sum()


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def best_stages(q: Sequence[float], n: int) -> list[int]:
    """The n stages of highest Q, or all where there are fewer, in order of depth; q: of the stem and every stage."""
    return sorted(sorted(range(len(q)), key=lambda j: -q[j])[:n])


class LogitFree(Method):
    paper = Paper(
        title="Logit-Based Losses Limit the Effectiveness of Feature Knowledge Distillation",
        authors="Cooper, Chen, Dwivedy, Gurari",
        venue="arXiv",
        year=2025,
        url="https://arxiv.org/abs/2511.14981",
        code="github.com/Thegolfingocto/KD_wo_CE @ 3abceed Scripts/FKD.py, TrainerUtils.py",
        licence="-",
    )
    needs = Needs(taps=("feats", "tail"), tails=("student",))
    space = {
        "ce": Float(0.0, 1.0, tune=False),  # of the head
        "mse": Float(0.01, 100.0, log=True),
        "layers": Text(r"deepest|auto|\d+(,\d+)*", "deepest, auto, or stages of the teacher such as '0,1,3'"),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "mse": 1.0, "layers": "auto"},
            source="KD_wo_CE @ 3abceed Scripts/FKD.py, configurations (weights 1 and 1)",
            selection="unknown",
        ),
        "deepest": Recipe(
            values={"ce": 1.0, "mse": 1.0, "layers": "deepest"},
            source="the same, with the stages of both networks aligned at the deepest",
            selection="unknown",
        ),
    }
    deviations = (
        "Layers are the networks' stages (the stem is 0), not every block and ReLU as in the reference code.",
        "The paper trains by AdamW, to which the scale of the feature loss means nothing; by SGD it matters:"
        " 'mse' is worth tuning.",
        "BatchNorm layers behind the last distilled stage see every batch twice, whole and detached, and average both.",
        "A partial last batch is used, which the reference code drops.",
        "In Q, a sample's likeness with itself counts and entropies are to base 5, as in the reference code.",
    )

    def __init__(self, dims: Dims, *, ce: float, mse: float, layers: str) -> None:
        super().__init__(dims)
        self.ce, self.mse = ce, mse
        self.pairs = _pairs(dims, layers)
        s, t = dims.student.feats, dims.teacher.feats
        self.projectors = nn.ModuleList(nn.Conv2d(s[i][0], t[j][0], 1, bias=False) for i, j in self.pairs)
        self.facts["teacher stages"] = ",".join(str(j) for _, j in self.pairs)

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        total = torch.zeros((), device=y.device)
        for (i, j), projector in zip(self.pairs, self.projectors, strict=True):
            fs, ft = match_sizes(s.feats[i], t.feats[j])
            total = total + fitnet_loss(projector(fs), ft).mean()
        last = self.pairs[-1][0]
        head = s.tail(last, s.feats[last].detach())
        return {"ce": self.ce * cross_entropy(head, y).mean(), "mse": self.mse * total / len(self.pairs)}

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("logit_free", dims)
        if int(dims.train_y.bincount(minlength=dims.n_classes).min()) < 2:
            raise Refusal("logit_free chooses layers by Q, which takes two training samples or more of every class")


def _pairs(dims: Dims, layers: str) -> list[tuple[int, int]]:
    """Stages (student's, teacher's): the student's deepest, and as many of the teacher's, in order of depth."""
    n_s, n_t = dims.student.n_stages, dims.teacher.n_stages
    if layers == "deepest" or (layers == "auto" and dims.quality is None):  # no teacher yet: any will do to check
        return stage_pairs(dims)
    if layers == "auto" and dims.quality is not None:
        chosen = best_stages(dims.quality(), n_s)
    else:
        chosen = [int(part) for part in layers.split(",")]
    if chosen != sorted(set(chosen)) or chosen[-1] > n_t or len(chosen) > n_s:
        raise Refusal(
            f"logit_free.layers is {layers}; it takes at most {n_s} stages of the teacher, of 0 to {n_t}, each deeper"
        )
    return list(zip(range(n_s - len(chosen) + 1, n_s + 1), chosen, strict=True))
