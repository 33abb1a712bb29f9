"""One student in training: where it stands, what it has measured and cost, and the state that a checkpoint keeps."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.data import Batch
from bench.errors import error_message
from bench.memory import device_works
from bench.models.base import Network
from bench.suite.protocol import Protocol
from bench.training.precision import autocast, with_precision
from bench.training.rng import MemberRNG
from bench.training.step import TrainStep
from methods.base import Method, Needs, NetworkView, Out

STATE_FORMAT = 3  # of a member's state; raise it when its keys change: runs with older checkpoints then start anew


@dataclass
class BestEpoch:
    """The epoch that the validation split would choose, and its weights."""

    epoch: int = 0
    top1: float = -1.0
    state: dict[str, Any] = field(default_factory=dict)


class Member:
    """A student, its training step, and the books on it."""

    def __init__(
        self, name: str, network: Network, method: Method, protocol: Protocol, device: torch.device, *stream: object
    ) -> None:
        self.name, self.protocol, self.device = name, protocol, device
        self.current_device = device  # where it is now: a member that waits for room on the device stays on the CPU
        self.rng = MemberRNG(device, *stream)
        self.images: Counter[str] = Counter()  # that passed through each network on its behalf, while it trains
        self.train_step = TrainStep(network, method, protocol, device, self.rng, self.images)
        self.pretrain_epochs = self.train_step.pretrain_epochs
        self.epoch = -self.pretrain_epochs  # epochs behind it; 0: those before the first are over
        self.next_step = 0  # of the epoch that is in work
        self.history: list[dict[str, Any]] = []  # one row per epoch: what the record holds
        self.best = BestEpoch()
        self.status, self.reason = "running", ""
        self._sums: dict[str, Tensor] = {}
        self._n_examples = 0

    @property
    def network(self) -> Network:
        return self.train_step.network

    @property
    def method(self) -> Method:
        return self.train_step.method

    @property
    def is_training(self) -> bool:
        return self.status == "running" and self.epoch < self.protocol.epochs

    @property
    def needs(self) -> Needs:
        """What it must be shown in the epoch that comes."""
        return self.train_step.needs(self.pretraining)

    @property
    def pretraining(self) -> bool:
        """Does an epoch before the first come next?"""
        return self.epoch < 0

    def step(self, batch: Batch, outputs: Mapping[str, Out], teacher: Network | None, epoch: int) -> None:
        """Learn from one batch, and count it. outputs: the teacher's by view."""
        terms = self.train_step.run(batch, outputs, teacher, epoch, pretraining=self.pretraining)
        self._count(terms, len(batch))
        self.next_step = batch.step + 1

    def _count(self, terms: Mapping[str, Tensor], n: int) -> None:
        """Sum losses on the device: nothing is read from it before the epoch ends."""
        values = torch.stack(list(terms.values())).detach()
        parts = torch.cat([values.sum()[None], values]) * n
        names = ("loss", *(f"loss_{name}" for name in terms))
        for name, part in zip(names, parts.unbind(), strict=True):
            self._sums[name] = self._sums[name] + part if name in self._sums else part
        self._n_examples += n
        needs, seen = self.needs, n * len(self.needs.views)
        self.images += Counter(images=seen, student=seen * needs.student, teacher=seen * needs.teacher)

    def end_epoch(self, metrics: dict[str, float], times: Mapping[str, float]) -> None:
        """Fill the epoch's metrics: the mean of every loss term over its examples, learning rate, and step times.

        times: milliseconds of a step by name, as `Cohort` measures them. A loss that is not finite makes the member
        `diverged`.
        """
        phase, lr = "before" if self.pretraining else "train", self.train_step.optimizer.param_groups[0]["lr"]
        values = (torch.stack(list(self._sums.values())) / self._n_examples).tolist()
        losses = dict(zip(self._sums, values, strict=True))
        self._sums, self._n_examples, self.next_step = {}, 0, 0
        self.epoch += 1
        if self.epoch == 0 and self.pretrain_epochs:
            self.train_step.reset()
        if not_finite := [name for name, value in losses.items() if not _finite(value)]:
            self.fail("diverged", f"{not_finite[-1]} is {losses[not_finite[-1]]} in epoch {self.epoch}")
        metrics |= {f"{phase}/{name}": value for name, value in losses.items()} | {f"{phase}/lr": lr}
        metrics |= self._step_times(times) if phase == "train" else {"before/step_ms": times.get(self.name, 0.0)}

    def _step_times(self, times: Mapping[str, float]) -> dict[str, float]:
        """The member's own part of a step, and what a step would take it alone: with the views and the teacher's
        answers that it asks for, whatever else its company does."""
        needs, own = self.needs, times.get(self.name, 0.0)
        kinds = ("view", "teacher") if needs.teacher else ("view",)
        shared = sum(times.get(f"{kind} {view}", 0.0) for kind in kinds for view in needs.views)
        return {"cost/step_ms": own, "cost/step_alone_ms": own + shared}

    def remember_epoch(self, metrics: dict[str, float]) -> None:
        self.history.append({"epoch": self.epoch, "time": time.time(), "metrics": metrics})

    def trained_epochs(self) -> list[dict[str, float]]:
        """The metrics of every epoch but those before the first."""
        return [row["metrics"] for row in self.history if row["epoch"] > 0]

    def costs(self, inference_params: int) -> dict[str, float]:
        """What training took, and how large the deployed student is. Times are medians over the epochs."""
        epochs = self.trained_epochs()
        return {
            **{name: _median([row[name] for row in epochs]) for name in epochs[0] if name.startswith("cost/")},
            "cost/params": sum(p.numel() for p in self.network.parameters()),
            "cost/extra_params": sum(p.numel() for p in self.method.parameters()),
            "cost/inference_params": inference_params,
            "cost/images_seen": self.images["images"],
            "cost/epochs_before": self.pretrain_epochs,
            "cost/memory_mb": self.train_step.memory / 2**20,
            **{f"cost/{network}_forwards": count for network, count in self.images.items() if network != "images"},
        }

    def move(self, device: torch.device) -> None:
        """Bring all that it holds to the device, or away from it; between two epochs."""
        if device == self.current_device:
            return
        optimizer = self.train_step.optimizer
        optimizer.zero_grad(set_to_none=True)
        self.network.to(device)
        self.method.to(device)
        optimizer.load_state_dict(optimizer.state_dict())  # its state follows its parameters
        self.best.state = {name: value.to(device) for name, value in self.best.state.items()}
        self.current_device = device

    def fail(self, status: str, reason: str) -> None:
        """End the run, and give back the memory that it held: the others may need it."""
        self.status, self.reason = status, reason
        self.train_step.optimizer.zero_grad(set_to_none=True)
        self.train_step.optimizer.state.clear()
        self.best, self._sums = BestEpoch(), {}
        self.network.to("meta")
        self.method.to("meta")
        self.current_device = torch.device("meta")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def contain_errors(self, when: str, *, alone: bool = True) -> Iterator[None]:
        """Whatever goes wrong inside ends this run and nobody else's. Raised are two errors: that memory ran out where
        this member is not `alone` on the device, and whatever has made the device unusable."""
        failure: tuple[str, str] | None = None
        try:
            yield
        except FloatingPointError as error:
            failure = "diverged", f"{error} {when}"
        except torch.OutOfMemoryError as error:
            if not alone:
                raise
            reason = error_message(error, when)
            failure = "failed", f"{reason}; it needs more alone: lower protocol.batch_size (eval_batch_size)"
        except (Exception, SystemExit) as error:
            failure = "failed", error_message(error, when)
            if not device_works(self.device):
                self.status, self.reason = failure
                raise
        if failure:  # out here the error is gone, and with it the graph that its traceback kept
            self.fail(*failure)

    def predict(self, x: Tensor, teacher: Network | None) -> Tensor:
        """[B, C] logits of the student as deployed. Call it without gradients, unless you want them."""
        with autocast(self.protocol, self.device):
            out = self.network(x)
        taps, tails = (
            self.method.needs.taps,
            [net and with_precision(net.tail, self.protocol, self.device) for net in (self.network, teacher)],
        )
        return self.method.predict(
            NetworkView({"weak": out}, {*taps, "logits"}, tails[0]), NetworkView({}, taps, tails[1])
        )

    def train(self, mode: bool) -> None:
        self.network.train(mode)
        self.method.train(mode)

    def remember_best(self, top1: float) -> None:
        if top1 > self.best.top1:
            self.best = BestEpoch(self.epoch, top1, {k: v.clone() for k, v in self.weights().items()})

    def weights(self) -> dict[str, Tensor]:
        """Network and method together, as one flat state."""
        own = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        return own | {f"method.{k}": v for k, v in self.method.state_dict().items()}

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        for part, module in (("network.", self.network), ("method.", self.method)):
            module.load_state_dict({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs to go on, from between any two steps, as if it had never stopped."""
        return {
            "format": STATE_FORMAT,
            "device": self.device.type,
            "epoch": self.epoch,
            "weights": self.weights(),
            "optimizer": self.train_step.optimizer.state_dict(),
            "next_step": self.next_step,
            "sums": self._sums,
            "n_examples": self._n_examples,
            "spent": dict(self.images),
            "memory": self.train_step.memory,
            "history": self.history,
            "best": vars(self.best),
            "status": self.status,
            "reason": self.reason,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises `ValueError` for a state that cannot go on here: of an older format, or of another kind of device,
        whose random numbers are other ones. Any other error leaves the member half loaded."""
        if state.get("format") != STATE_FORMAT:
            raise ValueError(f"format {state.get('format')}, and this version goes on from {STATE_FORMAT}")
        if (device := state.get("device", self.device.type)) != self.device.type:
            raise ValueError(f"made on {device}, and random numbers cannot go on on {self.device.type}")
        self.load_weights(state["weights"])
        self.train_step.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.next_step, self.history = state["epoch"], state["next_step"], list(state["history"])
        self._sums = {name: value.to(self.device) for name, value in state["sums"].items()}
        self._n_examples = state["n_examples"]
        self.images.clear()
        self.images.update(state["spent"])
        self.train_step.memory = state["memory"]
        self.best = BestEpoch(**state["best"])
        self.status, self.reason = state["status"], state["reason"]


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
