"""What is damaged is named; the last good state is used, or the step done again; and nothing else is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import methods
from bench import models
from bench.errors import UserError
from bench.jobs import tuned as values
from bench.suite.suite import validate
from tests.conftest import TINY
from tests.damage.conftest import numbers, run
from tests.data.conftest import Write, shard, tiny_set  # noqa: F401  # fixtures
from tests.prose import Prose
from tests.test_cli import call
from tests.tune.conftest import tuned
from tracking.record import Record, scan

Captured = pytest.CaptureFixture[str]
ONE: dict[str, Any] = {**TINY, "seeds": 1}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results in which the tiny suite was run with one method."""
    results = tmp_path_factory.mktemp("first") / "results"
    assert run(ONE, results, methods=["vanilla"]).n_trained == 1
    return results


@pytest.fixture
def results(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "results"))


def test_a_lost_teacher_is_trained_again_and_is_the_same(results: Path, capsys: Captured) -> None:
    before = numbers(results)
    path = next(results.glob("teachers/*/teacher.safetensors"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert run(ONE, results).n_trained == 1
    assert "teacher.safetensors: damaged or missing" in capsys.readouterr().err
    assert path.read_bytes() == whole and numbers(results).items() >= before.items()


def test_a_teacher_of_other_bits_is_refused_where_runs_depend_on_the_old_one(results: Path) -> None:
    """As after a teacher was lost and trained anew on another processor."""
    before = numbers(results)
    path = next(results.glob("teachers/*/teacher.safetensors"))
    state, whole = load_file(path), path.read_bytes()
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name] = state[name] * (1 + 1e-6)
    save_file(state, path)
    record = Record(path.parent)
    record.end("finished", "", (record.final or {})["metrics"], [path.name])
    with pytest.raises(UserError, match="of the same recipe but of other bits"):
        run(ONE, results)
    assert numbers(results) == before
    assert run(ONE, results, methods=["vanilla"]).n_trained == 0, "nothing is to be trained: nothing depends on it"
    path.write_bytes(whole)
    record.end("finished", "", (record.final or {})["metrics"], [path.name])
    assert run(ONE, results).n_trained == 1 and sorted(numbers(results)) == ["kd", "vanilla"]


def test_a_damaged_run_does_not_reach_a_report_and_is_done_again_alone(results: Path, capsys: Captured) -> None:
    run(ONE, results)
    before = numbers(results)
    one, two = scan(results / "tiny")
    kept = two.path.stat().st_mtime_ns
    for name in ("record.jsonl", "predictions.npz"):
        data = (one.folder / name).read_bytes()
        (one.folder / name).write_bytes(data[: len(data) // 2] + b"\0\0\n" + data[len(data) // 2 :])
        capsys.readouterr()
        assert call("report", "tiny", "--results", str(results)) == 2
        assert f"{name}" in (said := capsys.readouterr().err) and "damaged" in said and "run its suite again" in said
        assert run(ONE, results).n_trained == 1
        assert f"{name}" in (said := capsys.readouterr().err) and "damaged" in said
        assert numbers(results) == before and two.path.stat().st_mtime_ns == kept


def test_a_changed_shard_or_teacher_file_is_refused(
    tiny_set: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    teacher = tmp_path / "teacher.pth"
    torch.save(models.build("resnet8w8", in_channels=3, size=6, n_classes=3).state_dict(), teacher)
    pair = {"teacher": "resnet8w8", "student": "resnet8w4", "teacher_file": str(teacher)}
    data = {"source": "parquet", "path": str(tiny_set), "validation": 6}
    raw = {**ONE, "data": data, "pairs": [pair], "methods": ["vanilla"]}
    assert run(raw, tmp_path).n_trained == 1
    for path in (tiny_set / "test-00000-of-00001.parquet", teacher):
        whole = path.read_bytes()
        if path == teacher:
            torch.save(models.build("resnet8w8", in_channels=3, size=6, n_classes=3).state_dict(), path)
        else:
            path.write_bytes((tiny_set / "train-00000-of-00002.parquet").read_bytes())
        with pytest.raises(UserError, match=f"{path.name} is not the file"):
            run(raw, tmp_path)
        path.write_bytes(whole)
    assert run(raw, tmp_path).n_trained == 0


def test_damaged_tuned_values_are_refused_and_written_anew(results: Path) -> None:
    raw = {**ONE, "methods": ["kd"]}
    asked = values.with_tuned_rows(validate(raw, "test"), "only").model_dump(mode="json")
    tuned(raw, results, trials=2)
    path = next(results.glob("tuned/tiny/*/kd.yaml"))
    whole = path.read_text()
    value = yaml.safe_load(whole)["values"]["tau"]
    path.write_text(whole.replace(f"tau: {value}", f"tau: {value + 1}"))
    with pytest.raises(UserError, match=r"kd\.yaml .*kdbench tune tiny --methods 'kd'"):
        run(asked, results)
    table = next(results.glob("tiny/tuning/*/trials.csv"))
    text = table.read_text()
    table.write_text(text.replace("complete", "pruned", 1))
    told = [p.stat().st_mtime_ns for p in results.glob("tiny/tuning/*/trials/*/record.jsonl")]
    tuned(raw, results, trials=2)
    assert [p.stat().st_mtime_ns for p in results.glob("tiny/tuning/*/trials/*/record.jsonl")] == told
    assert path.read_text() == whole and table.read_text() == text
    assert run(asked, results).n_trained == 1


BROKEN = """
from methods.kd import KD
class Broken(KD):
    {part}
"""
PARTS = {
    "init": "def __init__(self, dims, **hp): raise ZeroDivisionError('no layers')",
    "optimizer": "def optimizer(self, default): raise ZeroDivisionError('no optimiser')",
    "evaluation": "def predict(self, s, t): return s.logits[:, :0 if self.training else None] / 0 * 0",
    "teacher": "def loss(self, s, t, y, at): t.tail(2, t.feats[2]); return super().loss(s, t, y, at)",
}


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("init", "failed (ZeroDivisionError"),
        ("optimizer", "failed (ZeroDivisionError"),
        ("evaluation", "diverged ("),
        ("teacher", "failed ("),
    ],
)
def test_a_broken_plug_in_ends_alone(part: str, reason: str, results: Path, capsys: Captured, prose: Prose) -> None:
    name = f"broken_{part}"
    (results / f"{name}.py").write_text(BROKEN.format(part=PARTS[part]))
    methods.register_plugin(str(results / f"{name}.py"))
    try:
        outcome = run(ONE, results, methods=[name, "kd"])
        assert len(outcome.failures) == 1
        assert outcome.failures[0].startswith(f"{name} on resnet8w8->resnet8w4, seed 0: {reason}")
        if part != "teacher":  # the rest of that reason is torch's
            prose(outcome.failures[0])
        beside = numbers(results)["kd"]
        if part == "init":  # nothing to report, and so little to wait for
            (results / "tiny.yaml").write_text(yaml.safe_dump({k: v for k, v in ONE.items() if k != "name"}))
            words = ("--methods", name, "--results", str(results), "--quiet")
            assert call("run", str(results / "tiny.yaml"), *words) == 1
            assert f"not finished: {outcome.failures[0]}" in capsys.readouterr().out
    finally:
        os.environ.pop(methods.PLUGINS, None)
    shutil.rmtree(results / "tiny")
    run(ONE, results, methods=["kd"])
    assert numbers(results)["kd"] == beside
