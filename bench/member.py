"""One student in training: its network, its method, its optimiser and its random stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.models.base import Network
from bench.protocol import Protocol
from bench.seeds import seed
from methods.base import Method, Out, Progress, Seen


class Stream:
    """A member's own random stream: torch's generators inside the block, put aside outside it."""

    def __init__(self, device: torch.device, *parts: object) -> None:
        self.generator = torch.Generator(device).manual_seed(seed(*parts, "explicit"))
        self._default = (
            torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index or 0]
        )
        self._state = torch.Generator(device).manual_seed(seed(*parts, "default")).get_state()

    @contextmanager
    def active(self) -> Iterator[None]:
        outside = self._default.get_state()
        self._default.set_state(self._state)
        try:
            yield
        finally:
            self._state = self._default.get_state()
            self._default.set_state(outside)

    def state_dict(self) -> dict[str, Tensor]:
        return {"explicit": self.generator.get_state(), "default": self._state}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.generator.set_state(state["explicit"])
        self._state = state["default"]


@dataclass
class Best:
    """The epoch that the validation split would choose, and its weights."""

    epoch: int = 0
    top1: float = -1.0
    state: dict[str, Any] = field(default_factory=dict)


class Member:
    """A student and all that moves while it learns. `step` is the whole of learning."""

    def __init__(
        self, name: str, network: Network, method: Method, protocol: Protocol, device: torch.device, *stream: object
    ) -> None:
        self.name, self.protocol, self.device = name, protocol, device
        self.network = network.to(device)
        self.method = method.to(device)
        self.forward = torch.compile(self.network) if protocol.compile else self.network
        self.stream = Stream(device, *stream)
        self.lr = protocol.lr_for(network.arch)
        self.optimizer = make_optimizer(protocol, [*network.parameters(), *method.parameters()], self.lr)
        self.epoch = 0  # epochs behind it
        self.history: list[dict[str, Any]] = []  # one row per epoch: what the record holds
        self.best = Best()
        self.status, self.reason = "running", ""
        self._sums: dict[str, Tensor] = {}
        self._seen = 0

    @property
    def alive(self) -> bool:
        return self.status == "running" and self.epoch < self.protocol.epochs

    def step(
        self,
        views: Mapping[str, Tensor],
        taught: Mapping[str, Out],
        teacher: Network | None,
        y: Tensor,
        index: Tensor,
        at: tuple[int, float],
    ) -> None:
        """Learn from one batch. views, taught: inputs and teacher's answers by view; at: epoch, share of it done."""
        epoch, done = at
        needs = self.method.needs
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.protocol.lr_factor(epoch, done)
        self.optimizer.zero_grad(set_to_none=True)
        with self.stream.active():
            with self._autocast():
                outs = {view: self.forward(views[view]) for view in needs.views}
            s = Seen(outs, needs.taps, self.network.tail)
            t = Seen({v: taught[v] for v in needs.views} if needs.teacher else {}, needs.taps, teacher and teacher.tail)
            progress = Progress(epoch, self.protocol.epochs, self.stream.generator, index if needs.index else None)
            terms = self.method.loss(s, t, y, progress)
            total = torch.stack(list(terms.values())).sum() if len(terms) > 1 else next(iter(terms.values()))
            total.backward()
        self.optimizer.step()
        self._count(terms, total, len(y))

    def _count(self, terms: Mapping[str, Tensor], total: Tensor, n: int) -> None:
        """Sum losses on the device: nothing is read from it before the epoch ends."""
        parts = torch.stack([total, *terms.values()]).detach() * n
        names = ("loss", *(f"loss_{name}" for name in terms))
        for name, part in zip(names, parts.unbind(), strict=True):
            self._sums[name] = self._sums[name] + part if name in self._sums else part
        self._seen += n

    def end_epoch(self) -> dict[str, float]:
        """Mean of every loss term over the epoch's examples; a non-finite one makes the member `diverged`."""
        values = (torch.stack(list(self._sums.values())) / self._seen).tolist()
        losses = dict(zip(self._sums, values, strict=True))
        self._sums, self._seen = {}, 0
        self.epoch += 1
        if broken := [name for name, value in losses.items() if not _finite(value)]:
            self.fail("diverged", f"{broken[-1]} is {losses[broken[-1]]} in epoch {self.epoch}")
        return losses

    def fail(self, status: str, reason: str) -> None:
        self.status, self.reason = status, reason

    @torch.no_grad()
    def predict(self, x: Tensor, teacher: Network | None) -> Tensor:
        """[B, C] logits of the student as deployed."""
        with self._autocast():
            out = self.network(x)
        taps = self.method.needs.taps
        return self.method.predict(
            Seen({"weak": out}, {*taps, "logits"}, self.network.tail), Seen({}, taps, teacher and teacher.tail)
        )

    def train(self, mode: bool) -> None:
        self.network.train(mode)
        self.method.train(mode)

    def remember_best(self, top1: float) -> None:
        if top1 > self.best.top1:
            self.best = Best(self.epoch, top1, {k: v.clone() for k, v in self.weights().items()})

    def weights(self) -> dict[str, Tensor]:
        """Network and method together, as one flat state."""
        own = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        return own | {f"method.{k}": v for k, v in self.method.state_dict().items()}

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        for part, module in (("network.", self.network), ("method.", self.method)):
            module.load_state_dict({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs to go on as if it had never stopped."""
        return {
            "epoch": self.epoch,
            "weights": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream.state_dict(),
            "history": self.history,
            "best": vars(self.best),
            "status": self.status,
            "reason": self.reason,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.load_weights(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stream.load_state_dict(state["stream"])
        self.epoch, self.history = state["epoch"], list(state["history"])
        self.best = Best(**state["best"])
        self.status, self.reason = state["status"], state["reason"]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.protocol.precision == "bfloat16")


def _finite(value: float) -> bool:
    return abs(value) < float("inf")


def make_optimizer(protocol: Protocol, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    if protocol.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=protocol.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters,
        lr,
        momentum=protocol.momentum,
        nesterov=protocol.nesterov,
        weight_decay=protocol.weight_decay,
        fused=True,
    )
