"""The numbers of a student on the held-out splits, and what it leaves when it has ended."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.data import Data
from bench.models.base import Network
from bench.suite.protocol import Protocol
from bench.training.evaluate import Predictions, logits_of, metrics, network_logits, unaugmented_batches
from bench.training.member import Member


@dataclass(frozen=True)
class FinalResult:
    """A member after its last epoch."""

    metrics: dict[str, float]
    predictions: Predictions  # of the test images
    state: dict[str, Tensor]  # of the student as deployed


class Evaluator:
    """Evaluates members against one teacher, whose logits of a split are computed once."""

    def __init__(self, data: Data, protocol: Protocol, teacher: Network | None) -> None:
        self.data, self.protocol, self.teacher = data, protocol, teacher
        self._teacher_logits: dict[str, Tensor] = {}

    def teacher_logits(self, split: str) -> Tensor | None:
        """[N, C] float32 of a split's images in order; None without a teacher, or one without a head."""
        if self.teacher is not None and self.teacher.has_head and split not in self._teacher_logits:
            part = getattr(self.data, split)
            self._teacher_logits[split] = network_logits(self.teacher, part, self.data, self.protocol)
        return self._teacher_logits.get(split)

    def logits(self, member: Member, split: str) -> Tensor:
        """[N, C] float32 of a split's images in order, of the student as deployed.

        Raises FloatingPointError where they are not finite: there is no metric of them.
        """
        member.train(False)
        part, size = getattr(self.data, split), self.protocol.eval_batch_size
        logits = logits_of(lambda x: member.predict(x, self.teacher), part, self.data, size)
        member.train(True)
        if not logits.isfinite().all():
            raise FloatingPointError(f"its logits on the {split} split are not finite")
        return logits

    def metrics(self, logits: Tensor, split: str) -> dict[str, float]:
        """Metrics of [N, C] logits of a split, named `<split>/<metric>`."""
        values = metrics(logits, getattr(self.data, split).y, self.teacher_logits(split))
        return {f"{split}/{name}": value for name, value in values.items()}

    def evaluate(self, member: Member, split: str) -> dict[str, float]:
        """Metrics of a member on a split."""
        return self.metrics(self.logits(member, split), split)

    def evaluate_final(self, member: Member) -> FinalResult:
        """What is left of a member after its last epoch; the headline is that epoch's test accuracy."""
        best = member.best
        last = {name: value.clone() for name, value in member.weights().items()}  # loading writes into the tensors
        member.load_weights(best.state)
        best_epoch_top1 = self.evaluate(member, "test")["test/top1"]
        member.load_weights(last)
        logits, teacher = self.logits(member, "test"), self.teacher_logits("test")
        out = self.metrics(logits, "test") | self.evaluate(member, "validation")
        out["test/top1_best_epoch_on_validation"] = best_epoch_top1
        out["validation/top1_best"], out["best_epoch_on_validation"] = best.top1, best.epoch
        if self.protocol.test_every_epoch:
            out["test/top1_best_epoch_on_test"] = max(row["test/top1"] for row in member.trained_epochs())
        if teacher is not None:
            out["test/teacher_top1"] = metrics(teacher, self.data.test.y)["top1"]
        state, size = self._deployed_state(member)
        predictions = Predictions.of(logits, self.data.test.y, teacher)
        return FinalResult(out | member.costs(size), predictions, state)

    def costs(self, member: Member) -> dict[str, float]:
        """What a member took, and what its deployed student is; no split but validation is looked at."""
        return member.costs(self._deployed_state(member)[1])

    def _deployed_state(self, member: Member) -> tuple[dict[str, Tensor], int]:
        return deployed_state(member, self.teacher, next(unaugmented_batches(self.data.validation, self.data, 2)))


def deployed_state(member: Member, teacher: Network | None, x: Tensor) -> tuple[dict[str, Tensor], int]:
    """What the student as deployed consists of, and the number of parameters its logits depend on. x: a small batch.

    The state holds the whole network, and of method and teacher the modules that the prediction uses (for most
    methods none), by names that begin with `network.`, `method.` and `teacher.`.
    """
    modules: dict[str, nn.Module] = {"network": member.network, "method": member.method}
    modules |= {"teacher": teacher} if teacher is not None else {}
    parameters = {f"{part}.{name}": p for part, module in modules.items() for name, p in module.named_parameters()}
    frozen = [p for p in parameters.values() if not p.requires_grad]
    member.train(False)
    try:
        for p in frozen:
            p.requires_grad_(True)
        gradients = torch.autograd.grad(
            member.predict(x, teacher).float().sum(), list(parameters.values()), allow_unused=True
        )
    finally:
        for p in frozen:
            p.requires_grad_(False)
        member.train(True)
    used_parameters = {name: p for (name, p), g in zip(parameters.items(), gradients, strict=True) if g is not None}
    module_names = {name.rpartition(".")[0] for name in used_parameters}
    state = {
        f"{part}.{name}": value
        for part, module in modules.items()
        for name, value in module.state_dict().items()
        if part == "network" or f"{part}.{name}".rpartition(".")[0] in module_names
    }
    return state, sum(p.numel() for p in used_parameters.values())
