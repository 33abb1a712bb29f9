"""One student in training: its network, its method, its optimiser and its random stream."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor, nn

from bench.memory import held, kept
from bench.models.base import Network
from bench.protocol import Protocol
from bench.seeds import seed
from methods.base import Method, Needs, Out, Progress, Seen
from tracking.location import mask

FORMAT = 2  # of a member's state; raise it when its keys change: older checkpoints are then passed over


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
        self.forward = compiled(self.network) if protocol.compile else self.network
        self.stream = Stream(device, *stream)
        self.lr = protocol.lr_for(network.arch)
        self.optimizer = self._fresh_optimizer()
        self.before = math.ceil(method.before * protocol.epochs)  # epochs that come before the first
        self.epoch = -self.before  # epochs behind it; 0: those before the first are over
        self.spent: Counter[str] = Counter()  # images through each network on its behalf, while it trains
        self.memory = 0  # bytes: what it holds, and what its first step kept between forward and backward pass
        self.history: list[dict[str, Any]] = []  # one row per epoch: what the record holds
        self.best = Best()
        self.status, self.reason = "running", ""
        self._sums: dict[str, Tensor] = {}
        self._seen = 0

    @property
    def alive(self) -> bool:
        return self.status == "running" and self.epoch < self.protocol.epochs

    @property
    def needs(self) -> Needs:
        """What it must be shown in the epoch that comes."""
        return (self.epoch < 0 and self.method.needs_before) or self.method.needs

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
        needs, before = self.needs, self.epoch < 0
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * (self.method.lr_before if before else self.protocol.lr_factor(epoch, done))
        self.optimizer.zero_grad(set_to_none=True)
        measuring = nullcontext(dict[int, int]()) if self.memory else kept(self._read(shared(views, taught, y, index)))
        with self.stream.active(), measuring as saved:
            with self._autocast():
                outs = {view: self.forward(views[view]) for view in needs.views if needs.student}
            s = Seen(outs, needs.taps, self._tail(self.network, "student"))
            t = Seen(
                {v: taught[v] for v in needs.views if needs.teacher},
                needs.taps,
                teacher and self._tail(teacher, "teacher"),
            )
            progress = self._progress(epoch, index if needs.index else None)
            terms = (self.method.loss_before if before else self.method.loss)(s, t, y, progress)
            self.method.backward(terms, self.optimizer)
        self.optimizer.step()
        self.memory = self.memory or sum(saved.values()) + held((self.network, self.method), self.optimizer)
        self._count(terms, len(y))

    def _read(self, others: list[Tensor]) -> list[Tensor]:
        """What a step reads and does not keep for itself: weights, and what all students share."""
        return [*self.network.parameters(), *self.method.parameters(), *others]

    def _progress(self, epoch: int, index: Tensor | None) -> Progress:
        if self.epoch < 0:
            return Progress(epoch + self.before, self.before, self.stream.generator, index)
        return Progress(epoch, self.protocol.epochs, self.stream.generator, index)

    def _tail(self, network: Network, whose: str) -> Callable[..., Tensor]:
        """The network's tail, with its uses counted."""

        def tail(i: int, f: Tensor, **how: Any) -> Tensor:
            self.spent[f"{whose}_tail"] += len(f)
            return network.tail(i, f, **how)

        return tail

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        parameters = [*self.network.parameters(), *self.method.parameters()]
        return self.method.optimizer(make_optimizer(self.protocol, parameters, self.lr))

    def _count(self, terms: Mapping[str, Tensor], n: int) -> None:
        """Sum losses on the device: nothing is read from it before the epoch ends."""
        each = torch.stack(list(terms.values())).detach()
        parts = torch.cat([each.sum()[None], each]) * n
        names = ("loss", *(f"loss_{name}" for name in terms))
        for name, part in zip(names, parts.unbind(), strict=True):
            self._sums[name] = self._sums[name] + part if name in self._sums else part
        self._seen += n
        shown = n * len(self.needs.views)
        self.spent += Counter(images=shown, student=shown * self.needs.student, teacher=shown * self.needs.teacher)

    def end_epoch(self) -> dict[str, float]:
        """Mean of every loss term over the epoch's examples; a non-finite one makes the member `diverged`."""
        values = (torch.stack(list(self._sums.values())) / self._seen).tolist()
        losses = dict(zip(self._sums, values, strict=True))
        self._sums, self._seen = {}, 0
        self.epoch += 1
        if self.epoch == 0 and self.before:
            self.optimizer, self.memory = self._fresh_optimizer(), 0
        if broken := [name for name, value in losses.items() if not _finite(value)]:
            self.fail("diverged", f"{broken[-1]} is {losses[broken[-1]]} in epoch {self.epoch}")
        return losses

    def fail(self, status: str, reason: str) -> None:
        """End the run, and give back the memory that it held: the others may need it."""
        self.status, self.reason = status, reason
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.best, self._sums = Best(), {}
        self.network.to("meta")
        self.method.to("meta")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def guarded(self, when: str) -> Iterator[None]:
        """Whatever goes wrong inside ends this run and nobody else's."""
        broken: tuple[str, str] | None = None
        try:
            yield
        except FloatingPointError as error:
            broken = "diverged", f"{error} {when}"
        except (Exception, SystemExit) as error:
            broken = "failed", told(error, when)
        if broken:  # out here the error is gone, and with it the graph that its traceback kept
            self.fail(*broken)

    def predict(self, x: Tensor, teacher: Network | None) -> Tensor:
        """[B, C] logits of the student as deployed. Call it without gradients, unless you want them."""
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
            "format": FORMAT,
            "epoch": self.epoch,
            "weights": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream.state_dict(),
            "spent": dict(self.spent),
            "memory": self.memory,
            "history": self.history,
            "best": vars(self.best),
            "status": self.status,
            "reason": self.reason,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.load_weights(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stream.load_state_dict(state["stream"])
        self.epoch, self.history, self.spent = state["epoch"], list(state["history"]), Counter(state["spent"])
        self.memory = state["memory"]
        self.best = Best(**state["best"])
        self.status, self.reason = state["status"], state["reason"]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.protocol.precision == "bfloat16")


def compiled(network: Network) -> Callable[[Tensor], Out]:
    """The network compiled, for methods that go backward through one graph twice (dot) as for all others."""
    torch._functorch.config.donated_buffer = False  # the first backward pass must leave the second its buffers
    return torch.compile(network)


def told(error: BaseException, when: str) -> str:
    """Why a run failed, in one line without secrets."""
    return mask(" ".join(f"{type(error).__name__} {when}: {error}".rstrip(": ").splitlines()[:1]))


def shared(views: Mapping[str, Tensor], taught: Mapping[str, Out], y: Tensor, index: Tensor) -> list[Tensor]:
    """What all students of a step read: the batch, and the teacher's answers."""
    out = [*views.values(), y, index]
    for answer in taught.values():
        maps = [tap for tap in answer.preacts if tap is not None]
        out += [answer.logits, answer.pooled, *answer.feats, *maps]
    return out


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
