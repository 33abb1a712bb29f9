"""Label smoothing: the student alone, on labels that leave a little to every other class. A control."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal


def smoothed_cross_entropy(zs: Tensor, y: Tensor, *, eps: float) -> Tensor:
    """-(1 - ε)·log p_y - ε/(C - 1)·Σ_{c≠y} log p_c. zs: [B, C ≥ 2] float; y: [B] int64 → [B] nats.

    arXiv 1512.00567, §7.
    """
    log_s = F.log_softmax(zs, dim=1)
    right = log_s.gather(1, y[:, None]).squeeze(1)
    return -(1 - eps) * right - eps / (zs.shape[1] - 1) * (log_s.sum(dim=1) - right)


class LabelSmoothing(Method):
    paper = Paper(
        title="Rethinking the Inception Architecture for Computer Vision",
        authors="Szegedy, Vanhoucke, Ioffe, Shlens, Wojna",
        venue="CVPR",
        year=2016,
        url="https://arxiv.org/abs/1512.00567",
        code="github.com/yuanli2333/Teacher-free-Knowledge-Distillation @ d000ab3 my_loss_function.py",
        licence="MIT",
    )
    needs = Needs(teacher=False)
    space = {"eps": Float(0.0, 0.9)}
    recipes = {
        "paper": Recipe(
            values={"eps": 0.1},
            source="Teacher-free-Knowledge-Distillation @ d000ab3 my_loss_function.py (the paper's ε on ImageNet)",
            selection="unknown",
        ),
    }
    deviations = (
        "ε is shared by the C - 1 other classes, as in the code of Tf-KD; the paper shares it by all C, which is the"
        " same with an ε larger by C/(C - 1).",
    )

    def __init__(self, dims: Dims, *, eps: float) -> None:
        super().__init__(dims)
        self.eps = eps

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {"ce": smoothed_cross_entropy(s.logits, y, eps=self.eps).mean()}

    @classmethod
    def check(cls, dims: Dims) -> None:
        if dims.n_classes < 2:
            raise Refusal(f"label_smoothing has no other class to smooth to; it takes 2 or more, not {dims.n_classes}")
