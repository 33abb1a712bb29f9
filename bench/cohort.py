"""The experiment on one screen: K students in lockstep on the same batches, one teacher forward for all of them.

Each member has its own network, optimiser, BatchNorm statistics and random stream, and each backward follows its own
forward, so a member's numbers do not depend on who else is in the cohort (bit for bit on CPU), and memory grows by
one student and its optimiser per member, not by one graph. The replicate of a comparison is the cohort: its students
share data order, augmentation and initialisation, and are compared in pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from bench import student
from bench.clock import Clock
from bench.data import Data
from bench.data.augment import apply, draw
from bench.data.batches import batches, n_batches
from bench.evaluate import Predictions, logits_of, metrics, network_logits, plain
from bench.member import Member, shared
from bench.models.base import Network
from bench.precision import autocast, switch
from bench.protocol import Protocol
from bench.seeds import generator as generator_of
from methods.base import Out

Watch = Callable[["Cohort", int], None]
Batch = tuple[dict[str, Tensor], dict[str, Out], Tensor, Tensor]


class Cohort:
    def __init__(
        self,
        data: Data,
        protocol: Protocol,
        teacher: Network | None,
        members: Iterable[Member],
        seed: int,
        at_once: int = 0,
    ) -> None:
        """at_once: how many members may be on the device at a time; 0: all. The others wait on the CPU."""
        self.data, self.protocol, self.teacher, self.seed = data, protocol, teacher, seed
        switch(protocol)
        self.members = list(members)
        self.at_once = at_once or max(1, len(self.members))
        self.device = data.train.x.device
        self.clock = Clock(self.device)
        self.teacher_logits: dict[str, Tensor] = {}
        self.deployed: dict[str, dict[str, Tensor]] = {}  # per finished member: the state of what predicts
        self.predictions: dict[str, Predictions] = {}  # of the test images, by finished member

    def alive(self) -> list[Member]:
        return [member for member in self.members if member.alive]

    def train(self, after_epoch: Watch, after_step: Callable[[int], None] = lambda images: None) -> None:
        """Train until every member has ended. Members that resume from different epochs meet again on the way."""
        while self.alive():
            epoch = 1 + min(member.epoch for member in self.alive())
            members = [member for member in self.alive() if member.epoch == epoch - 1]
            for first in range(0, len(members), self.at_once):
                self._epoch(members[first : first + self.at_once], epoch, after_step)
            after_epoch(self, epoch)

    def _epoch(self, members: list[Member], epoch: int, after_step: Callable[[int], None]) -> None:
        n, size = len(self.data.train.y), self.protocol.batch_size
        self._seat(members)
        draws = {view: generator_of("view", view, self.seed, epoch) for view in _views(members)}
        for member in members:
            with self.guarded(member, f"before epoch {epoch}"):
                member.train(True)
        for step, row in enumerate(batches(n, size, generator_of("order", self.seed, epoch))):
            self.step(members, row, draws, (epoch, step / n_batches(n, size)))
            after_step(len(row) * len(members))
        self._end_epoch(members)

    def _seat(self, members: list[Member]) -> None:
        """Bring these to the device. Where not all members have room there, the others leave it first."""
        if self.at_once < len(self.members):
            for member in self.members:
                if member not in members and member.place == self.device:
                    member.move(torch.device("cpu"))
        for member in members:
            member.move(self.device)

    def guarded(self, member: Member, when: str) -> AbstractContextManager[None]:
        return member.guarded(when, alone=self.at_once == 1)

    def step(
        self, members: list[Member], row: Tensor, draws: dict[str, torch.Generator], at: tuple[int, float]
    ) -> None:
        """One batch for everybody. row: [B] int64 positions; draws: generators by view; at: epoch, share of it done."""
        drawn = {view: draw.get_state() for view, draw in draws.items()}
        batch = self._batch(members, row, draws)
        for member in members:
            whole = len(row) == self.protocol.batch_size or not member.needs.full_batches
            if member.status != "running" or not whole:
                continue
            before = [tensor._version for tensor in shared(*batch)]
            with self.guarded(member, f"in epoch {at[0]}"), self.clock(member.name):
                member.step(*batch[:2], self.teacher, *batch[2:], at)
            if before != [tensor._version for tensor in shared(*batch)]:
                member.fail("failed", f"it changed in place, in epoch {at[0]}, what all students share")
                for view, draw in draws.items():
                    draw.set_state(drawn[view])
                batch = self._batch(members, row, draws)

    def _batch(self, members: list[Member], row: Tensor, draws: dict[str, torch.Generator]) -> Batch:
        """What the students of a step share: views, the teacher's answers, labels, places in the train split."""
        index = row.to(self.device, non_blocking=True)
        x, y = self.data.train.x[index], self.data.train.y[index]
        views, taught = {}, {}
        for view, generator in draws.items():
            with self.clock(f"view {view}"):
                views[view] = self.view(view, x, generator)  # one draw for everybody
        for view in _views(members, taught=True) if self.teacher is not None else []:
            with self.clock(f"teacher {view}"):
                taught[view] = self._teach(views[view])  # one forward for everybody
        return views, taught, y, index

    def view(self, view: str, x: Tensor, draws: torch.Generator) -> Tensor:
        params = draw(view, len(x), self.data.size, draws, pad=self.data.pad, flip=self.data.flip)
        return apply(x, params, self.data.mean, self.data.std)

    @torch.no_grad()
    def _teach(self, images: Tensor) -> Out:
        assert self.teacher is not None
        with autocast(self.protocol, self.device):
            return self.teacher(images)

    def _end_epoch(self, members: list[Member]) -> None:
        times = self.clock.read()
        for member in members:
            if member.status != "running":
                continue
            row: dict[str, float] = {}
            with self.guarded(member, f"after epoch {member.epoch + 1}"):
                self._judge(member, times, row)
            member.history.append({"epoch": member.epoch, "time": time.time(), "metrics": row})

    def _judge(self, member: Member, times: dict[str, float], row: dict[str, float]) -> None:
        """Fill the row of a member's epoch."""
        lr, phase = member.optimizer.param_groups[0]["lr"], "before" if member.epoch < 0 else "train"
        row |= {f"{phase}/{name}": value for name, value in member.end_epoch().items()} | {f"{phase}/lr": lr}
        if phase == "before":
            row["before/step_ms"] = times.get(member.name, 0.0)
            return
        row |= _cost(member, times)
        if member.status == "running":
            row |= self.evaluate(member, "validation")
            member.remember_best(row["validation/top1"])
            if self.protocol.test_every_epoch:
                row |= self.evaluate(member, "test")

    def evaluate(self, member: Member, split: str) -> dict[str, float]:
        """Metrics of a member on a split, named `<split>/<metric>`; keeps which test images it gets right.

        Raises FloatingPointError where its logits are not finite: there is no metric of them.
        """
        part = getattr(self.data, split)
        member.train(False)
        logits = logits_of(lambda x: member.predict(x, self.teacher), part, self.data, self.protocol.eval_batch_size)
        member.train(True)
        if not logits.isfinite().all():
            raise FloatingPointError(f"its logits on the {split} split are not finite")
        if split == "test":
            self.predictions[member.name] = Predictions.of(logits, part.y, self.taught(split))
        return {f"{split}/{name}": value for name, value in metrics(logits, part.y, self.taught(split)).items()}

    def taught(self, split: str) -> Tensor | None:
        """The teacher's logits of a split: computed once, since neither changes."""
        if self.teacher is not None and split not in self.teacher_logits:
            self.teacher_logits[split] = network_logits(
                self.teacher, getattr(self.data, split), self.data, self.protocol
            )
        return self.teacher_logits.get(split)

    def final(self, member: Member) -> dict[str, float]:
        """The numbers of a member after its last epoch; the headline is that epoch's test accuracy."""
        self._seat([member])
        best = member.best
        last = {name: value.clone() for name, value in member.weights().items()}  # loading writes into the tensors
        member.load_weights(best.state)
        chosen = self.evaluate(member, "test")["test/top1"]
        member.load_weights(last)
        out = self.evaluate(member, "test") | self.evaluate(member, "validation")
        out["test/top1_best_epoch_on_validation"] = chosen
        out["validation/top1_best"], out["best_epoch_on_validation"] = best.top1, best.epoch
        if self.protocol.test_every_epoch:
            out["test/top1_best_epoch_on_test"] = max(
                row["metrics"]["test/top1"] for row in member.history if row["epoch"] > 0
            )
        if (teacher := self.taught("test")) is not None:
            out["test/teacher_top1"] = metrics(teacher, self.data.test.y)["top1"]
        return out | self.costs(member)

    def costs(self, member: Member) -> dict[str, float]:
        """What a member took, and what its deployed student is; no split but validation is looked at."""
        self._seat([member])
        rows = [row["metrics"] for row in member.history if row["epoch"] > 0]
        costs = {name: _median([row[name] for row in rows]) for name in rows[0] if name.startswith("cost/")}
        x = next(plain(self.data.validation, self.data, 2))
        self.deployed[member.name], size = student.deployed(member, self.teacher, x)
        return costs | {
            "cost/params": sum(p.numel() for p in member.network.parameters()),
            "cost/extra_params": sum(p.numel() for p in member.method.parameters()),
            "cost/inference_params": size,
            "cost/images_seen": member.spent["images"],
            "cost/epochs_before": member.before,
            "cost/memory_mb": member.memory / 2**20,
            **{f"cost/{who}_forwards": n for who, n in member.spent.items() if who != "images"},
        }


def _views(members: list[Member], *, taught: bool = False) -> list[str]:
    """The views that somebody wants, in a fixed order; with `taught`, of the teacher."""
    wanting = [m.needs for m in members if m.needs.teacher or not taught]
    return sorted({view for needs in wanting for view in needs.views})


def _cost(member: Member, times: dict[str, float]) -> dict[str, float]:
    """Time of one step in milliseconds: the member's own, and what it would be alone, with the views and the teacher's
    answers that it asks for, whatever else its company does."""
    needs, own = member.needs, times.get(member.name, 0.0)
    shared = [f"view {view}" for view in needs.views] + [f"teacher {view}" for view in needs.views if needs.teacher]
    return {"cost/step_ms": own, "cost/step_alone_ms": own + sum(times.get(name, 0.0) for name in shared)}


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
