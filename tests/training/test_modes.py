"""Every method trains in half precision and with a compiled network, to finite values."""

from __future__ import annotations

import functools
import shutil
from typing import Any

import pytest
import torch
from torch._dynamo.eval_frame import OptimizedModule

import methods
from bench.training.cohort import Cohort
from tests.training.test_cohort import cohort_of, suite_of, trained


def one_epoch(tiny: dict[str, Any], name: str, **protocol: Any) -> Cohort:
    """Three steps, and one epoch before them where the method has such; untrained and on the CPU."""
    changes = {"epochs": 1, "milestones": [], **protocol}
    return cohort_of(suite_of(tiny, protocol=tiny["protocol"] | changes), [name])


def assert_finite(cohort: Cohort) -> None:
    (member,) = cohort.members
    assert member.status == "running", member.reason
    losses = [value for row in member.history for key, value in row["metrics"].items() if "/loss" in key]
    assert losses and all(abs(value) < float("inf") for value in losses)
    assert all(value.isfinite().all() for value in member.weights().values())


@pytest.mark.parametrize("name", methods.names())
def test_bfloat16(name: str, tiny: dict[str, Any]) -> None:
    cohort, kinds = one_epoch(tiny, name, precision="bfloat16"), set[torch.dtype]()
    cohort.members[0].network.register_forward_hook(lambda _, x, out: kinds.add(out.logits.dtype))
    assert_finite(trained(cohort))
    assert kinds == {torch.bfloat16}


COMPILER = pytest.mark.skipif(not shutil.which("g++"), reason="torch's own backend needs a C++ compiler")


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, COMPILER])])
def test_compiled(backend: str, name: str, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One compiled network serves all members: torch's own backend takes minutes for the first and none for others."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    cohort = one_epoch(tiny, name, compile=True)
    assert isinstance(cohort.members[0].train_step.forward, OptimizedModule)
    assert_finite(trained(cohort))
