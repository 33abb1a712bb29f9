"""Multi-level logit distillation: align predictions by example, by batch and by class, at several temperatures."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.base import Choice, Dims, Float, Method, Needs, NetworkView, Paper, Progress, Recipe
from methods.functional import cross_entropy, kl_at

TEMPERATURES = (3.0, 5.0, 2.0, 6.0)  # beside τ
SLIPPED = (2.0, 6.0)  # where the reference code takes the weak view for the strong one


def class_loss(ps: Tensor, pt: Tensor) -> Tensor:
    """Squared differences of the classes' correlations PᵀP, over C. ps, pt: [T, B, C] probabilities → [T, C]."""
    return (pt.mT @ pt - ps.mT @ ps).square().sum(dim=2) / ps.shape[2]


def batch_loss(ps: Tensor, pt: Tensor) -> Tensor:
    """Squared differences of the examples' correlations PPᵀ. ps, pt: [T, B, C] probabilities → [T, B]."""
    return (pt @ pt.mT - ps @ ps.mT).square().sum(dim=2)


def confidence_masks(zt: Tensor) -> tuple[Tensor, Tensor]:
    """Which examples [B] and classes [C] the teacher is no surer of than the median, as 0 and 1.

    Of an even number the lower of both middle values is the median: it selects what their mean does.
    """
    p = zt.softmax(dim=1)
    example, label = p.amax(dim=1), p.sum(dim=0)
    return (example <= example.median()).to(p.dtype), (label <= label.median()).to(p.dtype)


class MLKD(Method):
    temperatures: Tensor  # [T]
    slipped: Tensor  # [T, 1]: where the strong term takes the weak view
    paper = Paper(
        title="Multi-level Logit Distillation",
        authors="Jin, Wang, Lin",
        venue="CVPR",
        year=2023,
        url="https://openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html",
        code="github.com/Jin-Ying/Multi-Level-Logit-Distillation @ 5ee473f distillers/KD_ours.py",
        licence="-",
    )
    needs = Needs(views=("weak", "strong"))
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "relation": Float(0.01, 20.0, log=True),  # of the batch and class terms
        "tau": Float(1.0, 20.0, log=True),
        "form": Choice(("select", "code"), tune=False),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 0.9, "relation": 0.9, "tau": 4.0, "form": "select"},
            source="Multi-Level-Logit-Distillation @ 5ee473f configs, with masks that select; see deviations",
            selection="unknown",
        ),
        "reference": Recipe(
            values={"ce": 0.1, "kd": 0.9, "relation": 0.9, "tau": 4.0, "form": "code"},
            source="Multi-Level-Logit-Distillation @ 5ee473f KD_ours.py; results: logit-std README @ f6e5aa5",
            selection="best-epoch-on-test",
            reported={
                "cifar100/resnet32x4->resnet8x4": 77.08,
                "cifar100/vgg13->vgg8": 75.18,
                "cifar100/wrn_40_2->wrn_40_1": 75.35,
                "cifar100/wrn_40_2->wrn_16_2": 76.63,
                "cifar100/resnet56->resnet20": 72.19,
                "cifar100/resnet110->resnet32": 74.11,
                "cifar100/resnet110->resnet20": 71.89,
                "cifar100/resnet32x4->ShuffleV2": 78.44,
                "cifar100/resnet32x4->wrn_16_2": 76.52,
                "cifar100/resnet32x4->wrn_40_2": 79.26,
                "cifar100/wrn_40_2->resnet8x4": 77.33,
                "cifar100/wrn_40_2->MobileNetV2": 70.78,
                "cifar100/vgg13->MobileNetV2": 70.57,
                "cifar100/ResNet50->MobileNetV2": 71.04,
            },
        ),
    }
    deviations = (
        "In the reference code the masks of unsure examples and classes are applied to losses already reduced, and so"
        " scale the whole term by about a half; by default they select, which is their evident meaning (the paper's"
        " text could not be read), and the recipe 'reference' scales.",
        "At τ = 2 and 6 the reference code takes the weak view's logits for the strong term; by default the strong"
        " view's are taken, and the recipe 'reference' follows the code.",
        "The reference runs 240 to 960 epochs at a learning rate of 0.025; the protocol decides here.",
    )

    def __init__(self, dims: Dims, *, ce: float, kd: float, relation: float, tau: float, form: str) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.relation, self.form = ce, kd, relation, form
        temperatures = (tau, *TEMPERATURES)
        slipped = [form == "code" and i > 0 and t in SLIPPED for i, t in enumerate(temperatures)]
        self.register_buffer("temperatures", torch.tensor(temperatures), persistent=False)
        self.register_buffer("slipped", torch.tensor(slipped)[:, None], persistent=False)

    def transform_logits(self, z: Tensor) -> Tensor:
        """What the divergences see of logits."""
        return z

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        weak, strong = s["weak"].logits, s["strong"].logits
        example, label = confidence_masks(t["weak"].logits)
        if self.form == "code":
            example, label = (mask.mean().expand_as(mask) for mask in (example, label))
        ce = cross_entropy(weak, y) + cross_entropy(strong, y)
        ps, pt = ((z / self.temperatures[:, None, None]).softmax(dim=2) for z in (weak, t["weak"].logits))
        return {
            "ce": self.ce * ce.mean(),
            "kd": self.kd * self.divergences(s, t, example).mean(),
            "class": self.relation * (label * class_loss(ps, pt)).sum(),
            "batch": self.relation / len(y) * (example * batch_loss(ps, pt)).sum(),
        }

    def divergences(self, s: NetworkView, t: NetworkView, example: Tensor) -> Tensor:
        """τ²·KL of both views over all temperatures, the weak view's of unsure examples alone → [B]."""
        zs, zt = (
            self.transform_logits(torch.cat([seen[view].logits for view in ("weak", "strong")])) for seen in (s, t)
        )
        weak, strong = kl_at(zs, zt, self.temperatures).chunk(2, dim=1)  # [T, B] each
        strong = torch.where(self.slipped, weak, strong)
        return (example * weak + strong).sum(dim=0)
