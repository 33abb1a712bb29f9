"""Whatever goes wrong in one student ends its own run, with a reason, and moves no bit of its neighbours."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.training.cohort import Cohort
from methods.base import NetworkView, Progress
from methods.kd import KD
from tests.conftest import TINY
from tests.training.test_cohort import cohort_of, same, suite_of, trained

BAD_EPOCH = 2


def method(**parts: Callable[..., Any]) -> type[KD]:
    """KD with other parts, by name; each is given the method and what the part is given."""
    return type("Bad", (KD,), {"__module__": KD.__module__, **parts})


def losing(change: Callable[[dict[str, Tensor], NetworkView, NetworkView, Tensor], Any]) -> type[KD]:
    """From the second epoch on, its loss is what `change` makes of KD's."""

    def loss(self: KD, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        terms = KD.loss(self, s, t, y, at)
        return change(terms, s, t, y) or terms if at.epoch >= BAD_EPOCH else terms

    return method(loss=loss)


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


def scaled(factor: float) -> Callable[..., dict[str, Tensor]]:
    return lambda terms, s, t, y: {**terms, "kd": terms["kd"] * factor}


def one_batch_is_nan(terms: dict[str, Tensor], s: NetworkView, t: NetworkView, y: Tensor) -> dict[str, Tensor]:
    return {**terms, "kd": terms["kd"] * (float("nan") if len(y) < 32 else 1.0)}


def stepping(self: KD, terms: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """The optimiser fails after it has moved the weights."""
    KD.backward(self, terms, optimizer)
    optimizer.register_step_post_hook(raising(RuntimeError("after a step")))


def backward(self: KD, terms: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    KD.backward(self, terms, optimizer)
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has")


def void(_: object) -> None:
    return None


def reseeding(terms: dict[str, Tensor], s: NetworkView, t: NetworkView, y: Tensor) -> None:
    torch.manual_seed(0)
    raise KeyError("and then this")


OOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
TROUBLES: dict[str, tuple[type[KD], str, str]] = {
    "nan in one batch": (losing(one_batch_is_nan), "diverged", "loss_kd is nan in epoch 2"),
    "an infinite loss": (losing(scaled(float("inf"))), "diverged", "loss_kd is"),
    "an explosion": (losing(scaled(1e30)), "diverged", "in epoch 2"),
    "weights that explode": (losing(scaled(1e12)), "diverged", "epoch 2"),
    "an error in the loss": (losing(raising(ValueError("a\nb"))), "failed", "ValueError in epoch 2: a"),
    "an error without words": (losing(raising(AssertionError())), "failed", "AssertionError in epoch 2"),
    "out of memory in the loss": (losing(raising(OOM)), "failed", "OutOfMemoryError in epoch 2: CUDA out of memory"),
    "out of memory in the backward pass": (method(backward=backward), "failed", "OutOfMemoryError in epoch 1"),
    "a loss per example": (losing(lambda terms, s, t, y: {"kd": s.logits.sum(1)}), "failed", "RuntimeError in epoch 2"),
    "no loss": (losing(lambda terms, s, t, y: {"kd": None}), "failed", "TypeError in epoch 2"),
    "an error after a step": (method(backward=stepping), "failed", "RuntimeError in epoch 1: after a step"),
    "an error at validation": (
        method(predict=raising(RuntimeError("no answer"))),
        "failed",
        "RuntimeError after epoch 1: no answer",
    ),
    "answers that are nan": (method(predict=lambda m, s, t: s.logits * float("nan")), "diverged", "are not finite"),
    "an exit": (losing(raising(SystemExit(3))), "failed", "SystemExit in epoch 2: 3"),
    "torch's generator seeded": (losing(reseeding), "failed", "KeyError in epoch 2"),
    "the teacher's answers changed": (
        losing(lambda terms, s, t, y: void(t.logits.zero_())),
        "failed",
        "changed in place, in epoch 2, what all students share",
    ),
    "the labels changed": (
        losing(lambda terms, s, t, y: void(y.zero_())),
        "failed",
        "changed in place, in epoch 2, what all students share",
    ),
    "a secret in the reason": (
        losing(raising(OSError("no answer from https://me:hunter2@host/x"))),
        "failed",
        "https://me:***@host/x",
    ),
}


@pytest.fixture(scope="module")
def alone() -> Cohort:
    torch.set_num_threads(1)
    return trained(cohort_of(suite_of(TINY), ["vanilla", "dkd"]))


@pytest.mark.parametrize("name", TROUBLES)
def test_trouble_stays_where_it_is(name: str, alone: Cohort, tiny: dict[str, Any]) -> None:
    swap, status, reason = TROUBLES[name]
    cohort = cohort_of(suite_of(tiny), ["vanilla", "kd", "dkd"], kd=swap)
    cohort.group_size = 1 if "out of memory" in name else 3  # with company, memory that runs out is the cohort's affair
    first, broken, last = trained(cohort).members
    assert broken.status == status and reason in broken.reason, broken.reason
    assert "\n" not in broken.reason and "hunter2" not in broken.reason
    assert same(alone.members[0], first) and same(alone.members[1], last)
    assert first.status == last.status == "running" and first.epoch == last.epoch == 3
    ours = [row["metrics"] for row in first.history + last.history]
    theirs = [row["metrics"] for member in alone.members for row in member.history]
    for one, two in zip(ours, theirs, strict=True):
        assert {k: v for k, v in one.items() if "_ms" not in k} == {k: v for k, v in two.items() if "_ms" not in k}


def test_what_failed_holds_no_memory(tiny: dict[str, Any]) -> None:
    held: list[weakref.ref[Tensor]] = []

    def keep(terms: dict[str, Tensor], s: NetworkView, t: NetworkView, y: Tensor) -> None:
        held.append(weakref.ref(s.logits))
        raise torch.OutOfMemoryError("CUDA out of memory")

    cohort = cohort_of(suite_of(tiny), ["vanilla", "kd"], kd=losing(keep))
    cohort.group_size = 1
    trained(cohort, until=2)
    broken = cohort.members[1]
    assert broken.status == "failed" and held
    gc.collect()
    assert all(ref() is None for ref in held), "the graph of the failed step is still there"
    tensors = [*broken.network.parameters(), *broken.network.buffers(), *broken.method.parameters()]
    assert all(tensor.is_meta and tensor.grad is None for tensor in tensors)
    assert not broken.train_step.optimizer.state and not broken.best.state
