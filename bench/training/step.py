"""One training step of a student: learning rate, forward, the method's loss, backward, the optimiser's step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor, nn

from bench.data import Batch
from bench.memory import state_bytes, track_saved_tensors
from bench.models.base import Network
from bench.models.fast import use_fast_layout
from bench.suite.protocol import Protocol
from bench.training.precision import autocast, cast_adapters, with_precision
from bench.training.rng import MemberRNG
from methods.base import Method, Needs, NetworkView, Out, Progress


class TrainStep:
    """A student's network and method with all that changes them: optimiser, schedule and random stream."""

    def __init__(
        self,
        network: Network,
        method: Method,
        protocol: Protocol,
        device: torch.device,
        rng: MemberRNG,
        images: Counter[str],
    ) -> None:
        """images: grows by the images that pass through the tail of the student and of the teacher."""
        self.network, self.method = network.to(device), method.to(device)
        use_fast_layout(network)
        self.protocol, self.device, self.rng, self.images = protocol, device, rng, images
        cast_adapters(method, protocol, device)
        self.forward = compile_network(network) if protocol.compile else network
        self.share = torch.zeros((), device=device)  # of the schedule, where a recorded step reads it
        self.peak_lr = protocol.lr_for(network.arch)
        self.pretrain_epochs = math.ceil(method.pretrain_share * protocol.epochs)  # epochs that come before the first
        self.reset()

    def reset(self) -> None:
        """A fresh optimiser, and its memory not measured yet."""
        parameters = [*self.network.parameters(), *self.method.parameters()]
        self.optimizer = self.method.optimizer(make_optimizer(self.protocol, parameters, self.peak_lr))
        self.memory = 0  # bytes: weights and states, and what the first step kept between forward and backward pass

    def needs(self, pretraining: bool) -> Needs:
        return (pretraining and self.method.pretrain_needs) or self.method.needs

    def run(
        self, batch: Batch, outputs: Mapping[str, Out], teacher: Network | None, epoch: int, *, pretraining: bool
    ) -> Mapping[str, Tensor]:
        """Learn from one batch; the terms of the loss. outputs: the teacher's by view; epoch: from 1, of
        pretraining up to 0."""
        factor = self.method.pretrain_lr if pretraining else self.protocol.lr_factor(epoch, batch.epoch_progress)
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        read_only = [*self.network.parameters(), *self.method.parameters(), *shared_tensors(batch, outputs)]
        measuring = nullcontext(dict[int, int]()) if self.memory else track_saved_tensors(read_only)
        with self.rng.use(epoch, batch.step), measuring as saved:
            terms = self.forward_backward(
                batch, outputs, teacher, self.progress(batch, epoch, pretraining), pretraining
            )
        self.optimizer.step()
        self.memory = self.memory or sum(saved.values()) + state_bytes((self.network, self.method), self.optimizer)
        return terms

    def progress(self, batch: Batch, epoch: int, pretraining: bool) -> Progress:
        """Where the step of that epoch stands, as its method reads it."""
        epochs = self.pretrain_epochs if pretraining else self.protocol.epochs
        epoch += self.pretrain_epochs * pretraining
        index = batch.index if self.needs(pretraining).index else None
        return Progress(epoch, epochs, self.rng.generator, index, self.share.fill_(epoch / epochs))

    def forward_backward(
        self, batch: Batch, outputs: Mapping[str, Out], teacher: Network | None, at: Progress, pretraining: bool
    ) -> Mapping[str, Tensor]:
        """The terms of the loss, their gradients in place."""
        needs, taps = self.needs(pretraining), self.needs(pretraining).taps
        with autocast(self.protocol, self.device):
            student_outputs = {view: self.forward(batch.views[view]) for view in needs.views if needs.student}
        teacher_outputs = {view: outputs[view] for view in needs.views if needs.teacher}
        s = NetworkView(student_outputs, taps, self._counted_tail(self.network, "student"))
        if teacher and not teacher.has_head:  # what it says of other classes is not to be read
            taps = tuple(tap for tap in taps if tap != "logits")
        t = NetworkView(teacher_outputs, taps, teacher and self._counted_tail(teacher, "teacher"))
        loss = self.method.pretrain_loss if pretraining else self.method.loss
        terms = loss(s, t, batch.y, at)
        self.method.backward(terms, self.optimizer)
        return terms

    def _counted_tail(self, network: Network, whose: str) -> Callable[..., Tensor]:
        """The network's tail, with the images that pass through it counted."""
        run = with_precision(network.tail, self.protocol, self.device)

        def tail(i: int, f: Tensor, **options: Any) -> Tensor:
            self.images[f"{whose}_tail"] += len(f)
            return run(i, f, **options)

        return tail


def compile_network(network: Network) -> Callable[[Tensor], Out]:
    """The network compiled, for methods that go backward through one graph twice (dot) as for all others."""
    torch._functorch.config.donated_buffer = False  # the first backward pass must leave the second its buffers
    return torch.compile(network)


def make_optimizer(protocol: Protocol, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """The protocol's optimiser of these parameters."""
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


def shared_tensors(batch: Batch, outputs: Mapping[str, Out]) -> list[Tensor]:
    """What all students of a step read: the batch, and the teacher's outputs."""
    out = [*batch.views.values(), batch.y, batch.index]
    for output in outputs.values():
        preacts = [tap for tap in output.preacts if tap is not None]
        out += [output.logits, output.pooled, *output.feats, *preacts]
    return out
