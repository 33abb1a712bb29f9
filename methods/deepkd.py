"""DeepKD: the labels' gradient, the right class's and the other classes' each have a momentum of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import Choice, Dims, Float, Int, Method, NetworkView, Paper, Progress, Recipe, Refusal
from methods.dkd import tckd
from methods.dot import decay_weights, move
from methods.functional import cross_entropy, masked_kl

PARTS = ("task", "others", "target")  # in the order in which they move a parameter


class ThreeMomenta(torch.optim.Optimizer):
    """SGD with a momentum for each of three gradients. Weight decay goes with the right class's, which moves last.

    momenta: of the labels' (task), the other classes' (others) and the right class's (target). arXiv 2505.15133.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, weight_decay: float, momenta: Mapping[str, float]
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **momenta})
        self._held: dict[tuple[nn.Parameter, str], Tensor] = {}

    def hold(self, part: str) -> None:
        """Take the gradients that stand now as that part's, and make room for the next."""
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.grad is not None:
                self._held[p, part], p.grad = p.grad, None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for part in PARTS:
                gradients = {p: self._held[p, part] for p in group["params"] if (p, part) in self._held}
                if part == "target":
                    gradients = decay_weights(gradients, group["weight_decay"])
                move(self.state, gradients, part, group[part], group["lr"])
        self._held = {}


def other_classes(zs: Tensor, zt: Tensor, y: Tensor, *, tau: float, k: int) -> Tensor:
    """τ²·KL over the classes other than y among the teacher's k greatest (all, where k is 0), renormalised.

    zs, zt: [B, C] float; y: [B] int64 → [B] nats.
    """
    keep = torch.ones_like(zt, dtype=torch.bool)
    if 0 < k < zt.shape[1]:
        keep = torch.zeros_like(keep).scatter(1, zt.topk(k, dim=1).indices, True)
    return masked_kl(zs, zt, keep.scatter(1, y[:, None], False), tau)


class DeepKD(Method):
    paper = Paper(
        title="DeepKD: A Deeply Decoupled and Denoised Knowledge Distillation Trainer",
        authors="Huang, Song, Zhang, Ren",
        venue="NeurIPS",
        year=2025,
        url="https://arxiv.org/abs/2505.15133",
        code="github.com/haiduo/DeepKD @ afb5964 mdistiller/engine/deepkd.py, distillers/_base.py",
        licence="MIT",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
        "task": Float(-0.2, 0.099),  # added to the protocol's momentum
        "target": Float(-0.2, 0.099),
        "others": Float(-0.2, 0.099),
        "k": Int(0, 1000, tune=False),  # of the teacher's greatest classes; 0: all
        "form": Choice(("paper", "code"), tune=False),
    }
    recipes = {
        "paper": Recipe(
            values={
                **{"ce": 0.5, "kd": 1.0, "tau": 4.0, "k": 0, "form": "paper"},
                **{"task": 0.075, "target": -0.075, "others": 0.075},
            },
            source="DeepKD @ afb5964 configs/cifar100/ours/kd/*.yaml",
            selection="best-epoch-on-test",
            pairs={
                "resnet56->resnet20": {"ce": 0.1, "others": 0.025},
                "resnet110->resnet20": {"ce": 0.1, "target": -0.1, "others": -0.05},
                "resnet110->resnet32": {"ce": 0.1, "target": -0.1, "others": 0.05},
                "resnet32x4->ShuffleV1": {"ce": 0.1},
                "resnet32x4->ShuffleV2": {"ce": 0.1},
                "resnet32x4->vgg8": {"ce": 0.1},
                "resnet32x4->wrn_16_2": {"ce": 0.1, "target": -0.1},
                "resnet32x4->wrn_40_2": {"ce": 0.1, "target": -0.1, "others": 0.05},
                "ResNet50->MobileNetV2": {"ce": 0.1, "target": -0.1, "others": 0.025},
                "vgg13->MobileNetV2": {"ce": 0.8, "others": 0.095},
                "vgg13->vgg8": {"ce": 0.1, "others": 0.05},
                "wrn_40_2->MobileNetV2": {"others": 0.05},
                "wrn_40_2->ShuffleV1": {"ce": 0.1, "others": 0.085},
                "wrn_40_2->resnet8x4": {"ce": 0.8, "others": 0.085},
                "wrn_40_2->wrn_16_2": {"ce": 0.6, "others": 0.085},
                "wrn_40_2->wrn_40_1": {"ce": 0.1, "target": -0.1, "others": 0.05},
            },
        ),
    }
    recipes["reference"] = Recipe(
        values={**recipes["paper"].values, "form": "code"},
        source="DeepKD @ afb5964 mdistiller/engine/deepkd.py, distillers/_base.py",
        selection="best-epoch-on-test",
        pairs=recipes["paper"].pairs,
    )
    deviations = (
        "In the code the labels' gradient gets the momentum meant for the right class's, and the other classes' term is"
        " the mean of 1 - p_t,y times the mean of NCKD, not the mean of their products; 'reference' follows it.",
        "The paper lets the number of classes grow in training (dynamic top-k mask); the public code has a fixed one,"
        " by default all, and so has this file.",
        "Weight decay goes with the right class's gradient, as in the code.",
    )

    def __init__(
        self,
        dims: Dims,
        *,
        ce: float,
        kd: float,
        tau: float,
        task: float,
        target: float,
        others: float,
        k: int,
        form: str,
    ) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.tau, self.k, self.form = ce, kd, tau, k, form
        self.delta = {"task": target if form == "code" else task, "others": others, "target": target}

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        target = tckd(s.logits, t.logits, y, tau=self.tau)
        others = other_classes(s.logits, t.logits, y, tau=self.tau, k=self.k)
        rest = 1 - (t.logits / self.tau).softmax(dim=1).gather(1, y[:, None]).squeeze(1)
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "target": self.kd * target.mean(),
            "others": self.kd * (rest.mean() * others.mean() if self.form == "code" else (rest * others).mean()),
        }

    def optimizer(self, default: torch.optim.Optimizer) -> torch.optim.Optimizer:
        group = default.param_groups[0]
        if type(default) is not torch.optim.SGD or group["nesterov"]:
            raise Refusal("deepkd is SGD with three momenta; set protocol.optimizer: sgd and protocol.nesterov: false")
        momenta = {part: group["momentum"] + delta for part, delta in self.delta.items()}
        if wrong := [f"{part} {m:g}" for part, m in momenta.items() if not 0 <= m < 1]:
            raise Refusal(f"deepkd's momentum of {wrong[0]} (protocol.momentum + deepkd's) does not lie within 0 and 1")
        own = {key: group[key] for key in ("lr", "weight_decay")}
        return ThreeMomenta(group["params"], **own, momenta=momenta)

    def backward(self, terms: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        assert isinstance(optimizer, ThreeMomenta)
        for part, term in (("others", "others"), ("target", "target"), ("task", "ce")):
            terms[term].backward(retain_graph=term != "ce")
            optimizer.hold(part)

    @classmethod
    def check(cls, dims: Dims) -> None:
        if dims.n_classes < 2:
            raise Refusal(f"deepkd parts the right class from the others; it takes 2 or more, not {dims.n_classes}")
