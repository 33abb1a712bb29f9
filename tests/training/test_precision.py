"""One rule of arithmetic: networks, tails and adapters in the protocol's precision, losses and metrics in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode

import methods
from bench import data as datasets
from bench import environment
from bench.jobs import cohort_job, run, teacher
from bench.jobs.progress import Progress
from bench.report.distance import departures
from bench.suite.protocol import Protocol, digest
from bench.suite.suite import load, validate
from bench.timing import step as timing
from bench.training import precision
from bench.training.evaluate import metrics
from bench.training.evaluator import Evaluator
from tests.training.test_cohort import cohort_of, suite_of
from tracking.record import Record

ROOT = Path(__file__).parents[2]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Convolutions(TorchDispatchMode):
    """The types that convolutions computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket == torch.ops.aten.convolution:
            self.types.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def in_precision(tiny: dict[str, Any], name: str) -> dict[str, Any]:
    return {**tiny, "protocol": {**tiny["protocol"], "precision": name}}


def test_auto_is_what_the_device_is_good_at() -> None:
    assert (precision.resolve_precision("auto", CPU), precision.resolve_precision("auto", CUDA)) == (
        "float32",
        "bfloat16",
    )
    assert precision.resolve_precision("tf32", CUDA) == "tf32"


@pytest.mark.parametrize(("supported", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_the_fastest_is_what_the_machine_has_and_is_recorded_as_such(
    supported: bool, expected: str, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8 if supported else 7, 5))
    assert {precision.resolve_precision("fastest", device) for device in (CPU, CUDA)} == {expected}
    asked = {**in_precision(tiny, "fastest"), "teacher": {"protocol": {"precision": "fastest"}}}
    suite = suite_of(asked)
    assert suite.protocol.precision == suite.teacher_protocol().precision == expected
    exact = run.resolve_suite(validate({**asked, "protocol": in_precision(tiny, "float32")["protocol"]}, "tiny"), CPU)
    assert (exact.protocol.precision, exact.teacher_protocol().precision) == ("float32", expected)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_without_instructions_works_and_warns(
    supported: bool, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    suite = suite_of(in_precision(tiny, "bfloat16"))
    said = capsys.readouterr().err
    assert suite.protocol.precision == "bfloat16"
    assert not said if supported else said.startswith("kdbench: bfloat16: this cpu has no") and said.count("\n") == 1


def test_statistics_and_the_optimiser_stay_in_float32(tiny: dict[str, Any]) -> None:
    cohort = cohort_of(suite_of(in_precision(tiny, "bfloat16")), ["kd"])
    timing.harness_lap(cohort)()
    (member,) = cohort.members
    moments = [value for state in member.train_step.optimizer.state.values() for value in state.values()]
    kept = [*moments, *member.network.state_dict().values()]
    assert moments and {value.dtype for value in kept if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(("name", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_float32_is_no_tf32(name: str, tf32: bool) -> None:
    precision.set_torch_backends(Protocol(epochs=1, precision=name))  # type: ignore[arg-type]
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == tf32


def test_deterministic_kernels_are_asked_for_and_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    plain, strict = Protocol(epochs=1), Protocol(epochs=1, deterministic=True)
    try:
        precision.set_torch_backends(strict)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        precision.set_torch_backends(plain)
    assert not torch.are_deterministic_algorithms_enabled()
    assert strict.model_dump()["deterministic"] and Protocol.model_validate(strict.model_dump()) == strict
    assert plain.model_dump().keys() == Protocol.model_fields.keys() - {"deterministic"}  # older fingerprints stand


def test_a_precision_is_another_protocol() -> None:
    exact, half = Protocol(epochs=1, precision="float32"), Protocol(epochs=1, precision="bfloat16")
    assert exact.model_dump() != half.model_dump() and half.numbers > exact.numbers


@pytest.mark.parametrize("name", ["kd", "fitnet", "block_kd", "reviewkd", "semckd", "simkd", "vid", "ft"])
@pytest.mark.parametrize(("asked", "expected"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_teacher_student_tails_and_adapters_compute_alike(
    name: str, asked: str, expected: torch.dtype, tiny: dict[str, Any]
) -> None:
    suite = suite_of(in_precision(tiny, asked))
    cohort = cohort_of(suite, [name])
    member = cohort.members[0]
    lap = timing.harness_lap(cohort)
    with Convolutions() as seen:
        lap()
        cohort.evaluator.evaluate(member, "validation")
    assert member.status == "running", member.reason
    assert set(seen.types) == {expected}
    assert {value.dtype for value in member._sums.values()} == {torch.float32}
    assert {p.dtype for p in [*member.network.parameters(), *member.method.parameters()]} == {torch.float32}


def test_both_sides_of_a_timing_compute_alike(tiny: dict[str, Any]) -> None:
    suite = suite_of(in_precision(tiny, "bfloat16"))
    lap = timing.bare_loop_lap(suite, datasets.load(suite.data, CPU), "block_kd")
    with Convolutions() as seen:
        lap()
    assert set(seen.types) == {torch.bfloat16}


def test_a_teacher_has_one_accuracy(tmp_path: Path, tiny: dict[str, Any]) -> None:
    suite = suite_of(in_precision(tiny, "bfloat16"))
    data, pair, quiet = datasets.load(suite.data, CPU), suite.pairs[0], Progress(Console(), quiet=True)
    got = teacher.obtain(suite, pair, data, cohort_job.describe_data(data), tmp_path, {}, quiet)
    said = Evaluator(data, suite.protocol, got.network).teacher_logits("validation")
    assert said is not None and metrics(said, data.validation.y)["top1"] == got.top1


def test_distances_are_of_the_papers_precision_alone() -> None:
    protocol, data = load("cifar100").protocol.model_dump(), {"name": "cifar100", "train": 45_000, "validation": 5_000}
    assert departures(protocol, {**data, "test": 10_000}, "resnet8x4") == []
    half = departures({**protocol, "precision": "bfloat16"}, {**data, "test": 10_000}, "resnet8x4")
    assert half == ["precision bfloat16 (float32)"]


def test_a_record_names_what_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.describe(CPU)["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    made = environment.describe(CUDA)
    assert made["device"] == "NVIDIA H100" and {"cuda", "cudnn", "driver"} <= made.keys()


def test_the_named_gpu_is_the_one_that_all_else_means(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    assert [environment.resolve_device(name) for name in ("auto", "cuda", "cuda:1")] == asked
    assert [device.index for device in asked] == [0, 0, 1]


def test_the_fingerprint_of_a_committed_run_stands() -> None:
    """But for `NUMBERS`: a key of the protocol that came later, at its default, makes no other run."""
    reference = ROOT / "results" / "reference" / "cifar100-mini" / "runs"
    headers = [Record(folder).header for folder in sorted(reference.iterdir())]
    earlier = range(1, Protocol(epochs=1).numbers + 1)
    assert headers
    for header in headers:
        spec = header["spec"]
        parts = {key: spec[key] for key in ("data", "pair", "method", "hp", "seed")}
        protocol = Protocol.model_validate(spec["protocol"])
        parts |= {"protocol": protocol.model_dump(), "teacher": spec["teacher_fingerprint"]}
        parts |= {"version": methods.get(spec["method"]).version}
        assert header["fingerprint"] in {digest({**parts, "numbers": numbers}) for numbers in earlier}
