"""The experiment on one screen: K students in lockstep on the same batches, one teacher forward for all of them.

Each member has its own network, optimiser, BatchNorm statistics and random stream, and each backward follows its own
forward, so a member's numbers do not depend on who else is in the cohort (bit for bit on CPU), and memory grows by
one student and its optimiser per member, not by one graph. The replicate of a comparison is the cohort: its students
share data order, augmentation and initialisation, and are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

import torch

from bench.data import Batch, Data, n_batches
from bench.models.base import Network
from bench.models.fast import folded_copy
from bench.suite.protocol import Protocol
from bench.training.clock import Clock
from bench.training.evaluator import Evaluator, FinalResult
from bench.training.member import Member
from bench.training.precision import autocast, set_torch_backends
from bench.training.step import shared_tensors
from methods.base import Out


class Cohort:
    def __init__(
        self,
        data: Data,
        protocol: Protocol,
        teacher: Network | None,
        members: Iterable[Member],
        seed: int,
        group_size: int = 0,
    ) -> None:
        """group_size: how many members may be on the device at a time; 0: all. The others wait on the CPU."""
        self.data, self.protocol, self.teacher, self.seed = data, protocol, teacher, seed
        self.folded_teacher = teacher and folded_copy(teacher)  # for batches; tails and evaluation take the teacher
        set_torch_backends(protocol)
        self.members = list(members)
        self.group_size = group_size or max(1, len(self.members))
        self.evaluator = Evaluator(data, protocol, teacher)
        self.clock = Clock(data.device)

    def running_members(self) -> list[Member]:
        return [member for member in self.members if member.is_training]

    def epochs(
        self,
        after_step: Callable[[int], None] = lambda images: None,
        between_steps: Callable[[], None] = lambda: None,
    ) -> Iterator[int]:
        """Train epoch by epoch until every member has ended; yields each epoch's number when it is over.

        Members that resume from different epochs or steps meet again on the way. after_step: called with the number of
        images; between_steps: called between two steps of an epoch, where every member's state can be kept.
        """
        while alive := self.running_members():
            epoch = 1 + min(member.epoch for member in alive)
            members = [member for member in alive if member.epoch == epoch - 1]
            for first in range(0, len(members), self.group_size):
                self._train(members[first : first + self.group_size], epoch, after_step, between_steps)
            yield epoch

    def _train(
        self, members: list[Member], epoch: int, after_step: Callable[[int], None], between_steps: Callable[[], None]
    ) -> None:
        self._move_to_device(members)
        for member in members:
            with self.contain_errors(member, f"before epoch {epoch}"):
                member.train(True)
        views = sorted({view for member in members for view in member.needs.views})
        size, first = self.protocol.batch_size, min(member.next_step for member in members)
        for batch in self.data.batches(self.seed, epoch, views, size, self.clock, first=first):
            learners = [member for member in members if member.next_step <= batch.step]
            self.step(learners, batch, epoch)
            after_step(len(batch) * len(learners))
            if batch.step + 1 < n_batches(len(self.data.train), size):
                between_steps()
        times = self.clock.read_medians()
        for member in members:
            if member.status == "running":
                self._end_epoch(member, times)

    def step(self, members: list[Member], batch: Batch, epoch: int) -> None:
        """One batch for everybody."""
        outputs = self._teacher_outputs(members, batch)
        for member in members:
            takes_batch = len(batch) == self.protocol.batch_size or not member.needs.full_batches
            if member.status != "running" or not takes_batch:
                continue
            versions = [tensor._version for tensor in shared_tensors(batch, outputs)]
            with self.contain_errors(member, f"in epoch {epoch}"), self.clock(member.name):
                member.step(batch, outputs, self.teacher, epoch)
            if versions != [tensor._version for tensor in shared_tensors(batch, outputs)]:
                member.fail("failed", f"it changed in place, in epoch {epoch}, what all students share")
                batch = batch.remake()
                outputs = self._teacher_outputs(members, batch)

    @torch.no_grad()
    def _teacher_outputs(self, members: list[Member], batch: Batch) -> dict[str, Out]:
        """The teacher's answers by view, where somebody wants them: one forward for everybody."""
        outputs: dict[str, Out] = {}
        views = {view for member in members if member.needs.teacher for view in member.needs.views}
        for view in sorted(views) if self.folded_teacher is not None else []:
            with self.clock(f"teacher {view}"), autocast(self.protocol, self.data.device):
                outputs[view] = self.folded_teacher(batch.views[view])  # type: ignore[misc]
        return outputs

    def _end_epoch(self, member: Member, times: dict[str, float]) -> None:
        metrics: dict[str, float] = {}
        with self.contain_errors(member, f"after epoch {member.epoch + 1}"):
            member.end_epoch(metrics, times)
            if member.status == "running" and member.epoch > 0:
                metrics |= self.evaluator.evaluate(member, "validation")
                member.remember_best(metrics["validation/top1"])
                if self.protocol.test_every_epoch:
                    metrics |= self.evaluator.evaluate(member, "test")
        member.remember_epoch(metrics)

    def evaluate_final(self, member: Member) -> FinalResult:
        """What is left of a member after its last epoch."""
        self._move_to_device([member])
        return self.evaluator.evaluate_final(member)

    def costs(self, member: Member) -> dict[str, float]:
        """What a member took; the test split is not looked at."""
        self._move_to_device([member])
        return self.evaluator.costs(member)

    def _move_to_device(self, members: list[Member]) -> None:
        """Bring these to the device. Where not all members have room there, the others leave it first."""
        if self.group_size < len(self.members):
            for member in self.members:
                if member not in members and member.current_device == self.data.device:
                    member.move(torch.device("cpu"))
        for member in members:
            member.move(self.data.device)

    def contain_errors(self, member: Member, when: str) -> AbstractContextManager[None]:
        """Whatever goes wrong in the block ends this member's run; see `Member.contain_errors`."""
        return member.contain_errors(when, alone=self.group_size == 1)
