"""Memory that runs out, and a device that fails: simulated on a CPU, through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bench.training.cohort import Cohort
from bench.training.member import Member
from methods.kd import KD
from tests.conftest import TINY
from tests.faults.conftest import numbers
from tests.test_cli import call
from tests.training.test_cohort import cohort_of, same, suite_of, trained
from tracking.record import Record, scan

ROWS = ["vanilla", "kd", "dkd", "fitnet", "ft"]


@pytest.fixture(autouse=True)
def every_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.jobs.run_writer.CHECKPOINT_EVERY_S", 0.0)


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("room") / "small.yaml"
    raw = {**TINY, "methods": ROWS, "seeds": 1}
    path.write_text(yaml.safe_dump({key: value for key, value in raw.items() if key != "name"}))
    return path


@pytest.fixture(scope="module")
def whole(suite_file: Path) -> dict[str, Record]:
    torch.set_num_threads(1)
    assert call("run", str(suite_file), "--results", str(suite_file.parent / "whole")) == 0
    return by_label(suite_file.parent / "whole")


def by_label(results: Path) -> dict[str, Record]:
    return {record.header["spec"]["label"]: record for record in scan(results / "small")}


def holds(members: int, from_epoch: int = 1) -> Any:
    """A device on which the shared batch of more members than that finds no room, from an epoch of the first on."""
    teach = Cohort._teacher_outputs

    def _teach(self: Cohort, members_: list[Member], batch: Any) -> Any:
        if len(members_) > members and members_[0].epoch >= from_epoch:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return teach(self, members_, batch)

    return _teach


def test_a_cohort_too_large_is_halved_until_it_fits(
    suite_file: Path, whole: dict[str, Record], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(Cohort, "_teacher_outputs", holds(2))
    results = suite_file.parent / "halved"
    assert call("run", str(suite_file), "--results", str(results)) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "out of memory with 5 students on the device; going on with 3 at a time" in out
    assert "out of memory with 3 students on the device; going on with 2 at a time" in out
    found = by_label(results)
    assert found.keys() == whole.keys() and len(found) == 5
    assert all(numbers(found[label]) == numbers(whole[label]) for label in ROWS)


def test_a_cohort_of_any_size_gives_the_same_numbers(
    suite_file: Path, whole: dict[str, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cohort, "_teacher_outputs", holds(2, from_epoch=-99))
    results = suite_file.parent / "small"
    assert call("run", str(suite_file), "--results", str(results), "--cohort-size", "2", "--quiet") == 0
    assert all(numbers(record) == numbers(whole[label]) for label, record in by_label(results).items())


def test_what_does_not_fit_alone_fails_alone(
    suite_file: Path, whole: dict[str, Record], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def loss(self: KD, *_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(KD, "loss", loss)
    results = suite_file.parent / "alone"
    assert call("run", str(suite_file), "--results", str(results)) == 1
    found = by_label(results)
    assert found["kd"].status == "failed" and "batch_size" in (found["kd"].final or {})["reason"]
    assert all(numbers(found[label]) == numbers(whole[label]) for label in ROWS if label != "kd")
    assert "kd on resnet8w8->resnet8w4, seed 0: failed" in " ".join(capsys.readouterr().out.split())


def test_a_batch_that_fits_no_member_is_one_line(
    suite_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(Cohort, "_teacher_outputs", holds(0, from_epoch=-99))
    assert call("run", str(suite_file), "--results", str(suite_file.parent / "none")) == 2
    said = capsys.readouterr().err.splitlines()
    assert "lower protocol.batch_size" in said[-1] and len(said) <= 2  # the other: its teacher is at chance level


def test_a_device_that_failed_ends_one_run_and_the_rest_goes_on(
    suite_file: Path, whole: dict[str, Record], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A kernel's assertion makes CUDA refuse all further work of a process: the next one trains the culprit last."""
    lost = False

    def loss(self: KD, s: Any, t: Any, y: Any, at: Any) -> Any:
        nonlocal lost
        lost = lost or at.epoch == 2
        if lost:
            raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA")
        return original(self, s, t, y, at)

    original = KD.loss
    monkeypatch.setattr(KD, "loss", loss)
    for module in ("training.member", "jobs.fit"):
        monkeypatch.setattr(f"bench.{module}.device_works", lambda device: not lost)
    results = suite_file.parent / "lost"
    for expected in ("interrupted", "finished"):
        lost = False
        assert call("run", str(suite_file), "--results", str(results)) == 2
        said, found = capsys.readouterr().err.splitlines(), by_label(results)
        (line,) = (line for line in said if "chance level" not in line)  # so small a teacher may know nothing
        assert "device-side assert" in line and "CUDA_LAUNCH_BLOCKING" in line
        assert found["kd"].status == "failed"
        assert {found[label].status for label in ROWS if label != "kd"} == {expected}
    assert all(numbers(found[label]) == numbers(whole[label]) for label in ROWS if label != "kd")


def test_a_member_that_waited_elsewhere_goes_on_the_same(tiny: dict[str, Any]) -> None:
    names = ["vanilla", "dot", "crd", "fsp"]
    staying, moving = (cohort_of(suite_of(tiny), names) for _ in range(2))
    trained(staying)

    for _ in moving.epochs():
        for member in moving.running_members():
            member.current_device = torch.device("meta")  # as if: so that everything is taken up once more
            member.move(moving.data.device)
    for one, two in zip(staying.members, moving.members, strict=True):
        assert one.status == two.status == "running" and same(one, two), one.name
