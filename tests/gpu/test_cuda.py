"""What only a GPU can show: the same experiment as on a CPU, in its own precision, with nothing left behind.

`KDBENCH_TEST_DEVICE=cpu pytest tests/gpu -m gpu` rehearses them without one.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import methods
from bench import data as datasets
from bench.jobs import cohort_job, run, teacher
from bench.jobs.progress import Progress
from bench.jobs.run import run_suite
from bench.suite.suite import MethodSpec, Run, validate
from bench.training.cohort import Cohort
from tracking.record import scan

DEVICE = torch.device(os.environ.get("KDBENCH_TEST_DEVICE", "cuda"))
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def cohort_on(device: torch.device, raw: dict[str, Any], names: list[str]) -> Cohort:
    """A cohort of these methods on a device, its teacher and students drawn from the same seeds as on any other."""
    raw = raw | {"pairs": ["resnet14w4 -> resnet8w4"]}
    suite = run.resolve_suite(validate(raw, "test"), device)
    data, pair = datasets.load(suite.data, device), suite.pairs[0]
    network = teacher.build_network(pair.teacher, data, init="teacher").requires_grad_(False).eval().to(device)
    shapes = cohort_job.method_dims(pair, data, suite.protocol.batch_size, network)
    entries = [Run.of(suite, pair, MethodSpec(method=name), 0, cohort_job.describe_data(data), "") for name in names]
    members = [cohort_job.make_member(entry, data, shapes) for entry in entries]
    return Cohort(data, suite.protocol, network, members, 0)


def first_losses(cohort: Cohort) -> dict[str, float]:
    """By member, the mean training loss of its first epoch; those that failed are left out."""
    next(epoch for epoch in cohort.epochs() if epoch == 1)
    rows = {m.name: m.history[-1]["metrics"] for m in cohort.members if m.status == "running"}
    return {name: metrics["train/loss"] for name, metrics in rows.items()}


def precise(tiny: dict[str, Any], name: str) -> dict[str, Any]:
    """The tiny suite at a precision, with a rate at which two devices do not drift apart within an epoch."""
    return {**tiny, "protocol": {**tiny["protocol"], "precision": name, "lr": 0.001}}


@pytest.mark.parametrize("name", methods.names())
def test_a_method_trains_as_on_the_cpu(name: str, tiny: dict[str, Any]) -> None:
    here = first_losses(cohort_on(DEVICE, precise(tiny, "float32"), [name]))
    there = first_losses(cohort_on(torch.device("cpu"), precise(tiny, "float32"), [name]))
    assert there.keys() == {name} and here == pytest.approx(there, rel=1e-2)


def test_every_method_trains_in_bfloat16(tiny: dict[str, Any]) -> None:
    cohort = cohort_on(DEVICE, precise(tiny, "bfloat16"), list(methods.names()))
    losses = first_losses(cohort)
    assert {m.name: m.reason for m in cohort.members if m.status != "running"} == {}
    assert len(losses) == len(methods.names()) and all(map(math.isfinite, losses.values()))


def test_a_suite_trains_and_a_second_call_trains_nothing(tmp_path: Path, tiny: dict[str, Any]) -> None:
    suite = validate(tiny, "test")

    def train() -> run.SuiteOutcome:
        quiet = Progress(Console(quiet=True), quiet=True)
        return run_suite(suite, tmp_path, device=DEVICE, rerun=False, progress=quiet, mirror=None)

    outcome = train()
    assert (outcome.n_trained, outcome.failures) == (4, [])
    assert train().n_skipped == 4
    assert {record.status for record in scan(tmp_path / "tiny")} == {"finished"}


def test_memory_is_given_back(tiny: dict[str, Any]) -> None:
    if DEVICE.type != "cuda":
        pytest.skip("a rehearsal: only CUDA counts its memory")
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        first_losses(cohort_on(DEVICE, precise(tiny, "float32"), ["kd", "crd"]))
    assert torch.cuda.memory_allocated() - before < 4 << 20
