"""Distillation by singular vectors: the same relation between the leading patterns of neighbouring stages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from methods.adapters import require_stages, stage_pairs
from methods.base import Choice, Dims, Float, Int, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy

SPARE = 3  # singular vectors of the student beyond k, among which the teacher's find their likes


class LeadingEigenvectors(torch.autograd.Function):
    """Eigenvalues [B, k] and eigenvectors [B, D, k] of the k largest eigenvalues of symmetric [B, D, D] matrices.

    The gradient is that of `torch.linalg.eigh` for these vectors, but finite: where two eigenvalues are equal (dead
    channels), the direction between them is left out instead of being divided by zero.
    """

    @staticmethod
    def forward(ctx: Any, gram: Tensor, k: int) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(gram)
        ctx.save_for_backward(values, vectors)
        ctx.k = k
        return values[:, -k:].flip(1), vectors[:, :, -k:].flip(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        on_values, on_vectors = (g.flip(-1) for g in gradients)
        own = vectors[:, :, -ctx.k :]
        gap = values[:, None, -ctx.k :] - values[:, :, None]
        usable = gap.abs() > torch.finfo(values.dtype).eps * values[:, -1:, None].abs()
        share = torch.where(usable, 1 / gap.masked_fill(~usable, 1.0), 0.0) * (vectors.mT @ on_vectors)
        return vectors @ share @ own.mT + own * on_values[:, None, :] @ own.mT, None


def right_singular(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k leading right singular vectors of x: [B, M, N] float → [B, N, k], and their singular values [B, k]."""
    values, vectors = LeadingEigenvectors.apply(x.mT @ x, min(k, *x.shape[1:]))
    return vectors, values.clamp(min=0).sqrt()


def patterns(fs: Tensor, ft: Tensor, *, k: int, matrix: str) -> tuple[Tensor, Tensor]:
    """Leading patterns of both maps, the student's aligned with the teacher's. fs, ft: [B, D, H, W] → [B, N, k] each.

    Singular vectors have no sign: the teacher's are flipped so that their entries sum to 0 or more.
    """
    shape = (lambda f: f.flatten(2).mT) if matrix == "pixels" else (lambda f: f.flatten(1, 2))
    vs, _ = right_singular(shape(fs), k + SPARE)
    vt, values = right_singular(shape(ft), k)
    vt = torch.where(vt.sum(dim=1, keepdim=True) < 0, -vt, vt)
    likeness = vs.mT @ vt
    like = likeness.detach().abs().argmax(dim=1, keepdim=True)
    vs = vs.gather(2, like.expand(-1, vs.shape[1], -1)) * likeness.detach().gather(1, like).sign()
    scale = torch.nn.functional.normalize(values)[:, None, :]
    return vs * scale, vt * scale


def kdsvd_loss(fs: Sequence[Tensor], ft: Sequence[Tensor], *, k: int, matrix: str) -> Tensor:
    """Squared difference of exp(-(v_i[a] - v_{i-1}[b])²/8) over all entries and stages. arXiv 1807.06819.

    fs, ft: [B, D, H, W] float each, shallow to deep → [B]. matrix: of the map's pixels by channels ("pixels"), or of
    all its rows by the width ("rows").
    """
    both = [patterns(a, b, k=k, matrix=matrix) for a, b in zip(fs, ft, strict=True)]
    total = fs[0].new_zeros(len(fs[0]))
    for (s1, t1), (s2, t2) in pairwise(both):
        n = min(s1.shape[2], s2.shape[2], t1.shape[2], t2.shape[2])
        rs, rt = ((-(b[:, :, None, :n] - a[:, None, :, :n]).square() / 8).exp() for a, b in ((s1, s2), (t1, t2)))
        total = total + (rs - rt.detach()).square().flatten(1).sum(dim=1)
    return total


class KDSVD(Method):
    paper = Paper(
        title="Self-supervised Knowledge Distillation Using Singular Value Decomposition",
        authors="Lee, Kim, Song",
        venue="ECCV",
        year=2018,
        url="https://arxiv.org/abs/1807.06819",
        code="github.com/HobbitLong/RepDistiller @ b84f547 distiller_zoo/KDSVD.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(taps=("logits", "feats"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "svd": Float(0.01, 100.0, log=True),
        "k": Int(1, 8, tune=False),
        "matrix": Choice(("pixels", "rows"), tune=False),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "svd": 1.0, "k": 1, "matrix": "pixels"},
            source="RepDistiller @ b84f547 distiller_zoo/KDSVD.py, train_student.py",
            selection="last-epoch",
        ),
        "mdistiller": Recipe(
            values={"ce": 1.0, "svd": 1.0, "k": 1, "matrix": "rows"},
            source="mdistiller @ a08d46f mdistiller/distillers/KDSVD.py",
            selection="best-epoch-on-test",
        ),
    }
    deviations = (
        "The sign of a singular vector is arbitrary, and in the reference code the loss between two stages depends on"
        " the linear algebra library; here the teacher's vectors are flipped to a sum of entries of 0 or more.",
        "mdistiller's matrix has the width as columns and mixes channels with rows; it is the recipe 'mdistiller',"
        " which unlike the default takes networks of different channels.",
        "The gradient leaves out directions between equal singular values, where the reference code divides by zero.",
    )
    eager_because = "an eigenvalue decomposition tells the host whether it has converged"

    def __init__(self, dims: Dims, *, ce: float, svd: float, k: int, matrix: str) -> None:
        super().__init__(dims)
        self.ce, self.svd, self.k, self.matrix, self.pairs = ce, svd, k, matrix, stage_pairs(dims)
        side, what = (0, "channels") if matrix == "pixels" else (2, "widths")
        for i, j in self.pairs:
            a, b = dims.student.feats[i][side], dims.teacher.feats[j][side]
            if a != b:
                hint = "; the recipe mdistiller takes any" if matrix == "pixels" else ""
                raise Refusal(f"kdsvd compares stages of equal {what}, and these have {a} and {b}{hint}")

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        fs, ft = [s.feats[i] for i, _ in self.pairs], [t.feats[j] for _, j in self.pairs]
        loss = kdsvd_loss(fs, ft, k=self.k, matrix=self.matrix)
        return {"ce": self.ce * cross_entropy(s.logits, y).mean(), "svd": self.svd * loss.mean()}

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("kdsvd", dims)
        if len(stage_pairs(dims)) < 2:
            raise Refusal("kdsvd compares neighbouring stages; these networks have one in common")
