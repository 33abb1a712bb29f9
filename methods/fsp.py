"""Flow of the solution procedure: the same inner products between the maps of neighbouring stages."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from methods.adapters import match_sizes
from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy


def flow(bottom: Tensor, top: Tensor) -> Tensor:
    """Mean of top_j·bottom_i over the smaller size. bottom: [B, D, H, W]; top: [B, D', …] → [B, D', D]."""
    bottom, top = match_sizes(bottom, top)
    return top.flatten(2) @ bottom.flatten(2).mT / bottom[0, 0].numel()


def fsp_loss(fs: Sequence[Tensor], ft: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of flows, summed over neighbours. fs, ft: [B, D, H, W] each, shallow to deep → [B].

    Yim et al., CVPR 2017.
    """
    total = fs[0].new_zeros(len(fs[0]))
    for i in range(1, len(fs)):
        total = total + (flow(fs[i - 1], fs[i]) - flow(ft[i - 1], ft[i])).square().flatten(1).mean(dim=1)
    return total


class FSP(Method):
    paper = Paper(
        title="A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning",
        authors="Yim, Joo, Bae, Kim",
        venue="CVPR",
        year=2017,
        url="https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html",
        code="github.com/HobbitLong/RepDistiller @ b84f547 distiller_zoo/FSP.py",
        licence="BSD-2-Clause",
    )
    needs = Needs(teacher=False)
    pretrain_needs = Needs(taps=("feats",))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "fsp": Float(0.01, 100.0, log=True),
        "before": Float(0.0, 1.0, tune=False),  # epochs before the first, as a share of all
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "fsp": 1.0, "before": 30 / 240},
            source="RepDistiller @ b84f547 scripts/run_cifar_distill.sh, helper/pretrain.py",
            selection="last-epoch",
            reported={
                "cifar100/wrn_40_2->wrn_16_2": 72.91,
                "cifar100/resnet56->resnet20": 69.95,
                "cifar100/resnet110->resnet20": 70.11,
                "cifar100/resnet110->resnet32": 71.89,
                "cifar100/resnet32x4->resnet8x4": 72.62,
                "cifar100/vgg13->vgg8": 70.23,
            },
        ),
    }
    deviations = (
        "Two stages, as in the paper and the reference code: flows alone in the epochs before the first, labels alone"
        " from then on, where the weight of 50 that the reference code names multiplies nothing.",
        "The 30 of 240 epochs before the first are a share of whatever schedule is run.",
    )

    def __init__(self, dims: Dims, *, ce: float, fsp: float, before: float) -> None:
        super().__init__(dims)
        self.ce, self.fsp, self.pretrain_share = ce, fsp, before

    def pretrain_loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {"fsp": self.fsp * fsp_loss(s.feats, t.feats).mean()}

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {"ce": self.ce * cross_entropy(s.logits, y).mean()}

    @classmethod
    def check(cls, dims: Dims) -> None:
        a, b = ([shape[0] for shape in net.feats] for net in (dims.student, dims.teacher))
        if a != b:
            raise Refusal(f"fsp needs the same channels at stem and stages; these networks have {a} and {b}")
