"""DOT: the distillation gradient keeps more momentum than the labels'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import Dims, Float, Method, NetworkView, Paper, Progress, Recipe, Refusal
from methods.functional import cross_entropy
from methods.kd import kd_loss


class TwoMomenta(torch.optim.Optimizer):
    """SGD with a momentum of m - Δ for the labels' gradient and m + Δ for the distillation's. arXiv 2307.08436.

    A parameter that only one of both reaches has the momentum m. Weight decay goes with the labels' gradient, or,
    without one, with the distillation's from the second step on, as in the reference code.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float, delta: float
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "delta": delta})
        self._kd_gradients: dict[nn.Parameter, Tensor] = {}

    def save_kd_gradients(self) -> None:
        """Take the gradients that stand now as the distillation's, and make room for the labels'."""
        params = [p for group in self.param_groups for p in group["params"]]
        self._kd_gradients = {p: p.grad for p in params if p.grad is not None}
        for p in params:
            p.grad = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            task = {p: p.grad for p in group["params"] if p.grad is not None}
            kd = {p: self._kd_gradients[p] for p in group["params"] if p in self._kd_gradients}
            alone = {p: gradient for p, gradient in kd.items() if p not in task and "kd" in self.state[p]}
            task = decay_weights(task, group["weight_decay"])
            kd |= decay_weights(alone, group["weight_decay"])
            for part, gradients, delta in (("task", task, -group["delta"]), ("kd", kd, group["delta"])):
                of_both = {p: gradient for p, gradient in gradients.items() if p in task and p in kd}
                of_one = {p: gradient for p, gradient in gradients.items() if p not in of_both}
                move(self.state, of_both, part, group["momentum"] + delta, group["lr"])
                move(self.state, of_one, part, group["momentum"], group["lr"])
        self._kd_gradients = {}


def decay_weights(gradients: Mapping[Tensor, Tensor], decay: float) -> dict[Tensor, Tensor]:
    """gradient + decay·parameter of all parameters in one go."""
    if not gradients:
        return {}
    return dict(zip(gradients, torch._foreach_add(list(gradients.values()), list(gradients), alpha=decay), strict=True))


def move(
    state: Mapping[Any, dict[str, Tensor]], gradients: Mapping[Tensor, Tensor], part: str, momentum: float, lr: float
) -> None:
    """SGD's step with a momentum buffer of that name, which the first gradient makes; all parameters in one go."""
    for p in (p for p in gradients if part not in state[p]):
        state[p][part] = torch.zeros_like(p)
    if gradients:
        buffers = [state[p][part] for p in gradients]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, list(gradients.values()))
        torch._foreach_add_(list(gradients), buffers, alpha=-lr)


class DOT(Method):
    paper = Paper(
        title="DOT: A Distillation-Oriented Trainer",
        authors="Zhao, Cui, Song, Liang",
        venue="ICCV",
        year=2023,
        url="https://arxiv.org/abs/2307.08436",
        code="github.com/megvii-research/mdistiller @ a08d46f mdistiller/engine/dot.py",
        licence="MIT",
    )
    space = {
        "ce": Float(0.0, 1.0, tune=False),
        "kd": Float(0.01, 20.0, log=True),
        "tau": Float(1.0, 20.0, log=True),
        "delta": Float(0.0, 0.1, tune=True),
    }
    recipes = {
        "paper": Recipe(
            values={"ce": 0.1, "kd": 0.9, "tau": 4.0, "delta": 0.075},
            source="mdistiller @ a08d46f configs/cifar100/dot/*.yaml",
            selection="best-epoch-on-test",
            reported={
                "cifar100/resnet32x4->resnet8x4": 75.12,
                "cifar100/vgg13->vgg8": 73.77,
                "cifar100/resnet32x4->ShuffleV2": 75.55,
            },
        ),
    }
    deviations = ("Distillation is by KD, as in the three published configurations.",)

    def __init__(self, dims: Dims, *, ce: float, kd: float, tau: float, delta: float) -> None:
        super().__init__(dims)
        self.ce, self.kd, self.tau, self.delta = ce, kd, tau, delta

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        return {
            "ce": self.ce * cross_entropy(s.logits, y).mean(),
            "kd": self.kd * kd_loss(s.logits, t.logits, tau=self.tau).mean(),
        }

    def optimizer(self, default: torch.optim.Optimizer) -> torch.optim.Optimizer:
        group = default.param_groups[0]
        if type(default) is not torch.optim.SGD or group["nesterov"]:
            raise Refusal("dot is SGD with two momenta; set protocol.optimizer: sgd and protocol.nesterov: false")
        if not self.delta <= group["momentum"] < 1 - self.delta:
            raise Refusal(
                f"dot.delta is {self.delta:g}, and both {group['momentum']:g} - delta and {group['momentum']:g} + delta"
                " (protocol.momentum) must lie within 0 and 1"
            )
        own = {key: group[key] for key in ("lr", "momentum", "weight_decay")}
        return TwoMomenta(group["params"], **own, delta=self.delta)

    def backward(self, terms: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        assert isinstance(optimizer, TwoMomenta)
        terms["kd"].backward(retain_graph=True)
        optimizer.save_kd_gradients()
        terms["ce"].backward()
