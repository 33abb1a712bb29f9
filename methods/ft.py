"""Factor transfer: the teacher's map paraphrased to factors, which the student's are translated to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.adapters import BatchNorm, match_sizes, require_stages
from methods.at import attention
from methods.base import Choice, Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy


def ft_loss(fs: Tensor, ft: Tensor, *, form: str) -> Tensor:
    """Mean absolute difference of factors of unit length, at the smaller size. arXiv 1802.04977.

    fs, ft: [B, D, H, W] float → [B]. form: "factor", the whole factor as one vector, or "attention", the mean over its
    channels of squares.
    """
    fs, ft = match_sizes(fs, ft)
    a, b = ((F.normalize(f.flatten(1)) if form == "factor" else attention(f, p=2)) for f in (fs, ft))
    return (a - b).abs().mean(dim=1)


def conv_stack(
    channels: Sequence[int], layer: type[nn.Conv2d] | type[nn.ConvTranspose2d], *, norm: bool
) -> nn.Sequential:
    """3x3 convolutions (→ BN) → leaky ReLU of slope 0.1, from each number of channels to the next."""
    out = nn.Sequential()
    for i, (n_in, n_out) in enumerate(pairwise(channels), start=1):
        out.add_module(f"conv{i}", layer(n_in, n_out, 3, padding=1))
        if norm:
            out.add_module(f"bn{i}", BatchNorm(n_out))
        out.add_module(f"act{i}", nn.LeakyReLU(0.1))
    return out


class FT(Method):
    paper = Paper(
        title="Paraphrasing Complex Network: Network Compression via Factor Transfer",
        authors="Kim, Park, Kwak",
        venue="NeurIPS",
        year=2018,
        url="https://arxiv.org/abs/1802.04977",
        code="github.com/HobbitLong/RepDistiller @ b84f547 distiller_zoo/FT.py, models/util.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(taps=("logits", "feats"))
    pretrain_needs = Needs(taps=("feats",), student=False)
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "ft": Float(1.0, 10000.0, log=True),
        "form": Choice(("factor", "attention"), tune=False),
        "rate": Float(0.1, 1.0, tune=False),  # channels of a factor over the teacher's
        "before": Float(0.0, 1.0, tune=False),  # epochs before the first, as a share of all
        "lr_before": Float(0.01, 1.0, tune=False),  # over the protocol's
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "ft": 200.0, "form": "factor", "rate": 0.5, "before": 30 / 240, "lr_before": 0.2},
            source="arXiv 1802.04977 for the form; RepDistiller @ b84f547 scripts/run_cifar_distill.sh for the rest",
            selection="unknown",
        ),
        "repdistiller": Recipe(
            values={"ce": 1.0, "ft": 200.0, "form": "attention", "rate": 0.5, "before": 30 / 240, "lr_before": 0.2},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh, helper/pretrain.py",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 73.25,
                "cifar100/wrn_40_2->wrn_40_1": 71.59,
                "cifar100/resnet56->resnet20": 69.84,
                "cifar100/resnet110->resnet20": 70.22,
                "cifar100/resnet110->resnet32": 72.37,
                "cifar100/resnet32x4->resnet8x4": 72.86,
                "cifar100/vgg13->vgg8": 70.58,
                "cifar100/vgg13->MobileNetV2": 61.78,
                "cifar100/ResNet50->MobileNetV2": 60.99,
                "cifar100/ResNet50->vgg8": 70.29,
                "cifar100/resnet32x4->ShuffleV1": 71.75,
                "cifar100/resnet32x4->ShuffleV2": 72.50,
                "cifar100/wrn_40_2->ShuffleV1": 72.03,
            },
        ),
    }
    deviations = (
        "The paper's factor is one vector of unit length; RepDistiller compares the mean over its channels of squares"
        " (recipe 'repdistiller').",
        "The paraphraser's 30 of 240 epochs before the first are a share of whatever schedule is run, at a fifth of its"
        " learning rate, as the reference code has it for residual students.",
    )

    def __init__(
        self, dims: Dims, *, ce: float, ft: float, form: str, rate: float, before: float, lr_before: float
    ) -> None:
        super().__init__(dims)
        self.ce, self.ft, self.form, self.pretrain_share, self.pretrain_lr = ce, ft, form, before, lr_before
        c_s, c_t = dims.student.feats[-1][0], dims.teacher.feats[-1][0]
        k = max(1, int(rate * c_t))
        self.encoder = conv_stack((c_t, c_t, k, k), nn.Conv2d, norm=False)
        self.decoder = conv_stack((k, k, c_t, c_t), nn.ConvTranspose2d, norm=False)
        self.translator = conv_stack((c_s, c_s, k, k), nn.Conv2d, norm=True)

    def pretrain_loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        ft = t.feats[-1]
        return {"reconstruction": (self.decoder(self.encoder(ft)) - ft).square().mean()}

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        with torch.no_grad():
            factor = self.encoder(t.feats[-1])
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "ft": self.ft * ft_loss(self.translator(s.feats[-1]), factor, form=self.form).mean(),
        }

    @classmethod
    def check(cls, dims: Dims) -> None:
        require_stages("ft", dims)
