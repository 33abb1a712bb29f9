"""One student in training: its network, its method, its optimiser and its random stream."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor, nn

from bench.data import Batch
from bench.memory import device_works, state_bytes, track_saved_tensors
from bench.models.base import Network
from bench.suite.protocol import Protocol
from bench.training.precision import autocast, cast_adapters, computed
from bench.training.rng import MemberRNG
from methods.base import Method, Needs, NetworkView, Out, Progress
from tracking.location import mask

FORMAT = 2  # of a member's state; raise it when its keys change: runs with older checkpoints then start anew


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
        self.place = device  # where it is now: a member that waits for room on the device stays on the CPU
        self.network = network.to(device)
        self.method = method.to(device)
        cast_adapters(method, protocol, device)
        self.forward = compiled(self.network) if protocol.compile else self.network
        self.rng = MemberRNG(device, *stream)
        self.lr = protocol.lr_for(network.arch)
        self.optimizer = self._fresh_optimizer()
        self.pretrain_epochs = math.ceil(method.pretrain_share * protocol.epochs)  # epochs that come before the first
        self.epoch = -self.pretrain_epochs  # epochs behind it; 0: those before the first are over
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
        return (self.epoch < 0 and self.method.pretrain_needs) or self.method.needs

    def step(self, batch: Batch, outputs: Mapping[str, Out], teacher: Network | None, epoch: int) -> None:
        """Learn from one batch. outputs: the teacher's answers by view."""
        factor = self.method.pretrain_lr if self.epoch < 0 else self.protocol.lr_factor(epoch, batch.done)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        measuring = (
            nullcontext(dict[int, int]()) if self.memory else track_saved_tensors(self._read(shared(batch, outputs)))
        )
        with self.rng.active(), measuring as saved:
            terms = self.forward_backward(batch, outputs, teacher, epoch)
        self.optimizer.step()
        self.memory = self.memory or sum(saved.values()) + state_bytes((self.network, self.method), self.optimizer)
        self._count(terms, len(batch))

    def forward_backward(
        self, batch: Batch, outputs: Mapping[str, Out], teacher: Network | None, epoch: int
    ) -> Mapping[str, Tensor]:
        """The terms of the loss, their gradients in place."""
        needs = self.needs
        with autocast(self.protocol, self.device):
            outs = {view: self.forward(batch.views[view]) for view in needs.views if needs.student}
        s = NetworkView(outs, needs.taps, self._tail(self.network, "student"))
        t = NetworkView(
            {view: outputs[view] for view in needs.views if needs.teacher},
            needs.taps,
            teacher and self._tail(teacher, "teacher"),
        )
        progress = self._progress(epoch, batch.index if needs.index else None)
        terms = (self.method.pretrain_loss if self.epoch < 0 else self.method.loss)(s, t, batch.y, progress)
        self.method.backward(terms, self.optimizer)
        return terms

    def _read(self, others: list[Tensor]) -> list[Tensor]:
        """What a step reads and does not keep for itself: weights, and what all students share."""
        return [*self.network.parameters(), *self.method.parameters(), *others]

    def _progress(self, epoch: int, index: Tensor | None) -> Progress:
        if self.epoch < 0:
            return Progress(epoch + self.pretrain_epochs, self.pretrain_epochs, self.rng.generator, index)
        return Progress(epoch, self.protocol.epochs, self.rng.generator, index)

    def _tail(self, network: Network, whose: str) -> Callable[..., Tensor]:
        """The network's tail, with its uses counted."""

        run = computed(network.tail, self.protocol, self.device)

        def tail(i: int, f: Tensor, **how: Any) -> Tensor:
            self.spent[f"{whose}_tail"] += len(f)
            return run(i, f, **how)

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

    def end_epoch(self, metrics: dict[str, float], times: Mapping[str, float]) -> None:
        """Fill the epoch's metrics: the mean of every loss term over its examples, learning rate, and step times.

        times: milliseconds of a step by name, as `Cohort` measures them. A loss that is not finite makes the member
        `diverged`.
        """
        phase, lr = "before" if self.epoch < 0 else "train", self.optimizer.param_groups[0]["lr"]
        values = (torch.stack(list(self._sums.values())) / self._seen).tolist()
        losses = dict(zip(self._sums, values, strict=True))
        self._sums, self._seen = {}, 0
        self.epoch += 1
        if self.epoch == 0 and self.pretrain_epochs:
            self.optimizer, self.memory = self._fresh_optimizer(), 0
        if broken := [name for name, value in losses.items() if not _finite(value)]:
            self.fail("diverged", f"{broken[-1]} is {losses[broken[-1]]} in epoch {self.epoch}")
        metrics |= {f"{phase}/{name}": value for name, value in losses.items()} | {f"{phase}/lr": lr}
        metrics |= self._step_times(times) if phase == "train" else {"before/step_ms": times.get(self.name, 0.0)}

    def _step_times(self, times: Mapping[str, float]) -> dict[str, float]:
        """The member's own part of a step, and what a step would take it alone: with the views and the teacher's
        answers that it asks for, whatever else its company does."""
        needs, own = self.needs, times.get(self.name, 0.0)
        shared = [f"view {view}" for view in needs.views] + [f"teacher {view}" for view in needs.views if needs.teacher]
        return {"cost/step_ms": own, "cost/step_alone_ms": own + sum(times.get(name, 0.0) for name in shared)}

    def remember_epoch(self, metrics: dict[str, float]) -> None:
        self.history.append({"epoch": self.epoch, "time": time.time(), "metrics": metrics})

    def trained_epochs(self) -> list[dict[str, float]]:
        """The metrics of every epoch but those before the first."""
        return [row["metrics"] for row in self.history if row["epoch"] > 0]

    def costs(self, inference_params: int) -> dict[str, float]:
        """What training took, and how large the deployed student is. Times are medians over the epochs."""
        rows = self.trained_epochs()
        return {
            **{name: _median([row[name] for row in rows]) for name in rows[0] if name.startswith("cost/")},
            "cost/params": sum(p.numel() for p in self.network.parameters()),
            "cost/extra_params": sum(p.numel() for p in self.method.parameters()),
            "cost/inference_params": inference_params,
            "cost/images_seen": self.spent["images"],
            "cost/epochs_before": self.pretrain_epochs,
            "cost/memory_mb": self.memory / 2**20,
            **{f"cost/{who}_forwards": n for who, n in self.spent.items() if who != "images"},
        }

    def move(self, to: torch.device) -> None:
        """Bring all that it holds to the device, or away from it; between two epochs."""
        if to == self.place:
            return
        self.optimizer.zero_grad(set_to_none=True)
        self.network.to(to)
        self.method.to(to)
        self.optimizer.load_state_dict(self.optimizer.state_dict())  # its state follows its parameters
        self.best.state = {name: value.to(to) for name, value in self.best.state.items()}
        self.place = to

    def fail(self, status: str, reason: str) -> None:
        """End the run, and give back the memory that it held: the others may need it."""
        self.status, self.reason = status, reason
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.best, self._sums = Best(), {}
        self.network.to("meta")
        self.method.to("meta")
        self.place = torch.device("meta")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def guarded(self, when: str, *, alone: bool = True) -> Iterator[None]:
        """Whatever goes wrong inside ends this run and nobody else's. Raised are two errors: that memory ran out where
        this member is not `alone` on the device, and whatever has made the device unusable."""
        broken: tuple[str, str] | None = None
        try:
            yield
        except FloatingPointError as error:
            broken = "diverged", f"{error} {when}"
        except torch.OutOfMemoryError as error:
            if not alone:
                raise
            broken = "failed", f"{told(error, when)}; it needs more alone: lower protocol.batch_size (eval_batch_size)"
        except (Exception, SystemExit) as error:
            broken = "failed", told(error, when)
            if not device_works(self.device):
                self.status, self.reason = broken
                raise
        if broken:  # out here the error is gone, and with it the graph that its traceback kept
            self.fail(*broken)

    def predict(self, x: Tensor, teacher: Network | None) -> Tensor:
        """[B, C] logits of the student as deployed. Call it without gradients, unless you want them."""
        with autocast(self.protocol, self.device):
            out = self.network(x)
        taps, tails = (
            self.method.needs.taps,
            [net and computed(net.tail, self.protocol, self.device) for net in (self.network, teacher)],
        )
        return self.method.predict(
            NetworkView({"weak": out}, {*taps, "logits"}, tails[0]), NetworkView({}, taps, tails[1])
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
            "device": self.device.type,
            "epoch": self.epoch,
            "weights": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.rng.state_dict(),
            "spent": dict(self.spent),
            "memory": self.memory,
            "history": self.history,
            "best": vars(self.best),
            "status": self.status,
            "reason": self.reason,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises `ValueError` for a state that cannot go on here: of an older format, or of another kind of device,
        whose random numbers are other ones. Any other error leaves the member half loaded."""
        if state.get("format") != FORMAT:
            raise ValueError(f"format {state.get('format')}, and this version goes on from {FORMAT}")
        if (device := state.get("device", self.device.type)) != self.device.type:
            raise ValueError(f"made on {device}, and random numbers cannot go on on {self.device.type}")
        self.load_weights(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.load_state_dict(state["stream"])
        self.epoch, self.history, self.spent = state["epoch"], list(state["history"]), Counter(state["spent"])
        self.memory = state["memory"]
        self.best = Best(**state["best"])
        self.status, self.reason = state["status"], state["reason"]


def compiled(network: Network) -> Callable[[Tensor], Out]:
    """The network compiled, for methods that go backward through one graph twice (dot) as for all others."""
    torch._functorch.config.donated_buffer = False  # the first backward pass must leave the second its buffers
    return torch.compile(network)


def told(error: BaseException, when: str = "") -> str:
    """Why a run failed, in one line without secrets."""
    named = " ".join(filter(None, (type(error).__name__, when)))
    return mask(" ".join(f"{named}: {error}".rstrip(": ").splitlines()[:1]))


def shared(batch: Batch, outputs: Mapping[str, Out]) -> list[Tensor]:
    """What all students of a step read: the batch, and the teacher's answers."""
    out = [*batch.views.values(), batch.y, batch.index]
    for answer in outputs.values():
        maps = [tap for tap in answer.preacts if tap is not None]
        out += [answer.logits, answer.pooled, *answer.feats, *maps]
    return out


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


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
