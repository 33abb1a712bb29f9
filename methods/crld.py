"""Cross-view consistency: both views learn from both of the teacher's answers, where the teacher is confident."""

from __future__ import annotations

from torch import Tensor

from methods.base import Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy
from methods.kd import kd_loss


def confidence_mask(zt: Tensor, *, least: float) -> Tensor:
    """1 where the teacher's greatest probability is at least `least`, else 0. zt: [B, C] float → [B] float."""
    return (zt.softmax(dim=1).amax(dim=1) >= least).to(zt.dtype)


def within_views(zs: tuple[Tensor, Tensor], zt: tuple[Tensor, Tensor], *, tau: float, tau_w: float) -> Tensor:
    """m_w·(KD of the weak view + KD of the strong one), m_w: the teacher is confident of the weak view.

    zs, zt: weak and strong view, [B, C] float each → [B] nats. arXiv 2412.16493.
    """
    both = kd_loss(zs[0], zt[0], tau=tau) + kd_loss(zs[1], zt[1], tau=tau)
    return confidence_mask(zt[0], least=tau_w) * both


def across_views(zs: tuple[Tensor, Tensor], zt: tuple[Tensor, Tensor], *, tau: float, tau_s: float) -> Tensor:
    """m_s·(KD of the strong view to the teacher's weak one + the reverse), m_s: confident of the strong view.

    Arguments as `within_views` → [B] nats. arXiv 2412.16493.
    """
    both = kd_loss(zs[1], zt[0], tau=tau) + kd_loss(zs[0], zt[1], tau=tau)
    return confidence_mask(zt[1], least=tau_s) * both


class CRLD(Method):
    paper = Paper(
        title="Cross-View Consistency Regularisation for Knowledge Distillation",
        authors="Zhang, Liu, Cai, Ma",
        venue="ACM MM",
        year=2024,
        url="https://arxiv.org/abs/2412.16493",
        code="github.com/haiduo/DeepKD @ afb5964 mdistiller/distillers/CRLD.py (a copy of the authors' code)",
        licence="MIT",
    )
    needs = Needs(views=("weak", "strong"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "within": Float(0.01, 20.0, log=True),
        "across": Float(0.01, 20.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
        "tau_w": Float(0.0, 1.0),  # least confidence of the teacher in the weak view
        "tau_s": Float(0.0, 1.0),  # in the strong view
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 1.0, "within": 2.0, "across": 0.5, "tau": 4.0, "tau_w": 0.9, "tau_s": 0.2},
            source="DeepKD @ afb5964 mdistiller/engine/cfg.py, configs/cifar100/ours/crld/*.yaml",
            selection="unknown",
            pairs={
                "resnet110->resnet20": {"within": 1.0},
                "resnet110->resnet32": {"within": 1.0},
                "resnet32x4->ShuffleV2": {"within": 0.5},
                "resnet56->resnet20": {"within": 0.5},
                "wrn_40_2->resnet8x4": {"within": 1.0},
                "wrn_40_2->wrn_40_1": {"within": 0.5},
            },
        ),
    }
    deviations = (
        "The authors' own repository could not be read; two copies of their file agree in the formula. The weights of"
        " pairs are those that DeepKD's authors give for CRLD under their optimiser.",
        "The strong view's own term goes by the teacher's confidence in the weak view, and both crossed terms by that"
        " in the strong view, as in the code.",
    )

    def __init__(
        self, dims: Dims, *, ce: float, within: float, across: float, tau: float, tau_w: float, tau_s: float
    ) -> None:
        super().__init__(dims)
        self.ce, self.within, self.across = ce, within, across
        self.tau, self.tau_w, self.tau_s = tau, tau_w, tau_s

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        zs, zt = ((seen["weak"].logits, seen["strong"].logits) for seen in (s, t))
        return {
            "ce": self.ce * (cross_entropy(zs[0], y) + cross_entropy(zs[1], y)).mean(),
            "within": self.within * within_views(zs, zt, tau=self.tau, tau_w=self.tau_w).mean(),
            "across": self.across * across_views(zs, zt, tau=self.tau, tau_s=self.tau_s).mean(),
        }
