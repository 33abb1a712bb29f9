"""The command line as a person uses it, on a suite of seconds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from bench import data as datasets
from bench import models
from bench.cli import main
from bench.jobs.check import check_pair
from bench.models import student
from bench.suite.suite import validate
from tests.prose import numbers
from tracking.record import Record, scan


def call(*words: str) -> int:
    before, sys.argv = sys.argv, ["kdbench", *words]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny suite was run once."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("ran")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({k: v for k, v in TINY.items() if k != "name"}))
    torch.set_num_threads(1)
    assert call("run", str(folder / "tiny.yaml"), "--results", str(folder / "results"), "--quiet") == 0
    return folder


def counts(out: str, word: str) -> list[float]:
    """The numbers of the first line with this word."""
    return numbers(next(line for line in out.splitlines() if word in line))


def records(folder: Path) -> list[Record]:
    return scan(folder / "results" / "tiny")


def final(record: Record) -> dict[str, float]:
    assert record.final is not None
    return record.final["metrics"]  # type: ignore[no-any-return]


def test_a_run_leaves_everything(ran: Path) -> None:
    found = records(ran)
    assert len(found) == 4 and all(r.status == "finished" and r.is_intact() for r in found)
    for record in found:
        final_ = final(record)
        assert {
            "test/top1",
            "test/nll",
            "test/ece",
            "test/agreement",
            "test/kl",
            "validation/top1",
            "test/teacher_top1",
        } <= final_.keys()
        assert {
            "test/top1_best_epoch_on_validation",
            "test/top1_best_epoch_on_test",
            "cost/step_alone_ms",
        } <= final_.keys()
        assert final_["test/top1_best_epoch_on_test"] >= final_["test/top1"]
        assert [row["epoch"] for row in record.epochs] == [1, 2, 3]
        assert record.header["environment"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
        assert not (record.folder / "checkpoint.pt").exists()
        said = np.load(record.folder / "predictions.npz")
        assert (said["guess"] == said["label"]).mean() * 100 == pytest.approx(final_["test/top1"], abs=1e-4)
        assert (said["guess"] == said["teacher_guess"]).mean() * 100 == pytest.approx(
            final_["test/agreement"], abs=1e-4
        )
        assert 0.1 <= said["confidence"].min() <= said["confidence"].max() <= 1
        assert (said["teacher_guess"] == said["label"]).mean() * 100 == pytest.approx(final_["test/teacher_top1"])
        assert final_["cost/memory_mb"] > 0.1
    for name in ("table.csv", "report.md", "figures/difference.png"):
        assert (ran / "results/tiny" / name).stat().st_size > 100
    assert (ran / "results/mlflow.db").exists()


def test_mlflow_holds_every_run(ran: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{ran}/results/mlflow.db")
    experiment = client.get_experiment_by_name("kd/tiny")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert sorted(r.info.run_name for r in found) == ["kd/s0", "kd/s1", "vanilla/s0", "vanilla/s1"]
    finals = {r.folder.name: final(r) for r in records(ran)}
    for run in found:
        assert run.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "validation/top1")) == 4  # three epochs and the final
        assert run.data.metrics["test/top1"] == pytest.approx(finals[run.data.tags["kd.fingerprint"]]["test/top1"])


def test_a_second_run_trains_nothing_and_rerun_repeats_it_bit_for_bit(
    ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", str(ran / "tiny.yaml"), "--results", str(ran / "results"), "--quiet")
    before = {r.folder.name: (final(r), (r.folder / "student.safetensors").read_bytes()) for r in records(ran)}
    assert call(*words) == 0
    assert counts(capsys.readouterr().out, "trained")[:2] == [0, 4]
    assert call(*words, "--rerun") == 0
    for record in records(ran):
        metrics, weights = before[record.folder.name]
        again = final(record)
        assert (record.folder / "student.safetensors").read_bytes() == weights
        assert {k: v for k, v in again.items() if "_ms" not in k} == {
            k: v for k, v in metrics.items() if "_ms" not in k
        }


def test_more_methods_join_the_finished_ones(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "run",
        str(ran / "tiny.yaml"),
        "--results",
        str(ran / "results"),
        "--quiet",
        "--methods",
        "vanilla,kd,dkd",
        "--seeds",
        "1",
    )
    assert call(*words) == 0
    out = capsys.readouterr().out
    assert counts(out, "trained")[:2] == [1, 2] and "dkd" in out


def test_an_interrupted_suite_goes_on_to_the_same_numbers(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.training.cohort import Cohort

    monkeypatch.setattr("bench.jobs.run_writer.CHECKPOINT_EVERY_S", 0.0)
    train, count = Cohort._train, 0

    def stop(self: Cohort, members: list[Any], epoch: int, *callbacks: Any) -> None:
        nonlocal count
        count += 1
        if count == 6:  # teacher: three epochs; then the third of the first cohort, whose second is saved
            raise KeyboardInterrupt
        train(self, members, epoch, *callbacks)

    words = ("run", str(ran / "tiny.yaml"), "--results", str(tmp_path / "results"), "--quiet")
    monkeypatch.setattr(Cohort, "_train", stop)
    assert call(*words) == 130
    stopped = scan(tmp_path / "results" / "tiny")
    assert [r.status for r in stopped] == ["interrupted"] * 2 and [len(r.epochs) for r in stopped] == [2, 2]
    monkeypatch.setattr(Cohort, "_train", train)
    assert call(*words) == 0
    whole = {r.folder.name: r for r in records(ran)}
    for record in scan(tmp_path / "results" / "tiny"):
        twin = whole[record.folder.name]
        assert record.status == "finished"
        assert (record.folder / "student.safetensors").read_bytes() == (
            twin.folder / "student.safetensors"
        ).read_bytes()


def test_a_suite_in_pieces_of_time_gives_the_same_numbers(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Of 9 steps of a teacher and 18 of two cohorts, each call does 5 before its timer rings."""
    from bench.jobs import stop
    from bench.training.cohort import Cohort

    monkeypatch.setattr(stop, "_end", float("inf"))
    monkeypatch.setattr(stop, "end_after", lambda seconds: None)
    step, n_steps = Cohort.step, 0

    def stop_at_the_fifth(self: Cohort, *args: Any) -> None:
        nonlocal n_steps
        n_steps += 1
        if n_steps == 5:
            signal.raise_signal(stop.TIME_IS_UP)
        step(self, *args)

    monkeypatch.setattr(Cohort, "step", stop_at_the_fifth)
    words = ("run", str(ran / "tiny.yaml"), "--results", str(tmp_path / "results"), "--quiet", "--minutes", "9")
    codes: list[int] = []
    while not codes or codes[-1] == 75:
        n_steps = 0
        codes.append(call(*words))
        if codes[-1]:
            assert capsys.readouterr().err.endswith("(--minutes); the same command goes on where it was\n")
    assert codes == [75] * 5 + [0]
    whole = {r.folder.name: r for r in records(ran)}
    for record in scan(tmp_path / "results" / "tiny"):
        twin, student = whole[record.folder.name], "student.safetensors"
        assert (record.folder / student).read_bytes() == (twin.folder / student).read_bytes()
        losses = [[row["metrics"]["train/loss"] for row in r.epochs] for r in (record, twin)]
        assert record.status == "finished" and losses[0] == losses[1]


def test_a_time_too_short_is_refused(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from bench.jobs import stop
    from bench.training.cohort import Cohort

    monkeypatch.setattr(stop, "_end", float("inf"))
    words = ("run", str(ran / "tiny.yaml"), "--results", str(tmp_path / "results"), "--quiet", "--minutes")
    assert call(*words, "0.01") == 2
    assert "kdbench: --minutes 0.01: to start and to leave takes" in capsys.readouterr().err
    monkeypatch.setattr(stop, "end_after", lambda seconds: None)
    monkeypatch.setattr(stop, "GRACE_S", 0.05)

    def never_ends(self: Cohort, *args: Any) -> None:
        signal.raise_signal(stop.TIME_IS_UP)
        time.sleep(30)

    monkeypatch.setattr(Cohort, "step", never_ends)
    assert call(*words, "9") == 2
    assert capsys.readouterr().err == "kdbench: --minutes 9 is too short for one step here; type a longer time\n"


@pytest.mark.parametrize("left", [0.2, -1.0])
def test_the_time_of_a_call_ends_by_itself(left: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.jobs import stop

    monkeypatch.setattr(stop, "_end", time.monotonic() + left)
    with pytest.raises(stop.Interrupted) as stopped, stop.stop_gracefully() as raise_if_asked:
        began = time.monotonic()
        while time.monotonic() < began + 30:
            raise_if_asked()
    assert stopped.value.number == stop.TIME_IS_UP and stopped.value.between_steps
    assert time.monotonic() - began < 5 and signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_student_is_taken_home(ran: Path, tmp_path: Path) -> None:
    record = records(ran)[0]
    for name in ("s.safetensors", "s.pth"):
        assert call("export", record.folder.name[:10], str(tmp_path / name), "--results", str(ran / "results")) == 0
    taken = student.load(tmp_path / "s.safetensors")
    network = taken.network
    assert not taken.training and network.arch == "resnet8w4"
    x = torch.zeros(2, 1, 8, 8)
    assert torch.equal(taken(x), student.load(record.folder / "student.safetensors")(x))
    assert torch.equal(taken(x), network(x).logits)
    state = torch.load(tmp_path / "s.pth", weights_only=True)["state_dict"]
    assert state.keys() == network.state_dict().keys()


def test_an_unreachable_server_stops_nothing(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert call("run", str(ran / "tiny.yaml"), "--results", str(results), "--quiet", "--seeds", "1") == 0
    assert "kdbench sync" in capsys.readouterr().out
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert call("sync", "--results", str(results)) == 0
    assert counts(capsys.readouterr().out, "delivered")[:2] == [3, 0]
    assert call("sync", "--results", str(results)) == 0
    assert counts(capsys.readouterr().out, "delivered")[:2] == [0, 3]


@pytest.mark.slow
def test_a_results_folder_that_was_moved_goes_on(ran: Path, tmp_path: Path) -> None:
    """Each call in a process of its own, as MLflow keeps the database open."""
    old, new = tmp_path / "old" / "results", tmp_path / "new" / "results"

    def run(results: Path, methods: str) -> None:
        words = ["run", str(ran / "tiny.yaml"), "--results", str(results), "--seeds", "1", "--methods", methods]
        subprocess.run([sys.executable, "-m", "bench", *words, "--quiet"], check=True, cwd=Path(__file__).parents[1])

    run(old, "vanilla")
    new.parent.mkdir()
    old.rename(new)
    old.parent.rmdir()
    run(new, "vanilla,kd")
    client = mlflow.MlflowClient(f"sqlite:///{new}/mlflow.db")
    experiments = [client.get_experiment_by_name(name) for name in ("kd/tiny", "kd-report")]
    found = client.search_runs([experiment.experiment_id for experiment in experiments if experiment])
    assert sorted(run.info.run_name for run in found) == ["kd/s0", "tiny", "tiny", "vanilla/s0"]  # two reports
    for run_ in found:
        assert run_.info.artifact_uri.startswith(f"file://{new}/artifacts/")
        files = client.download_artifacts(run_.info.run_id, "", str(tmp_path))
        assert (Path(files) / "record.jsonl").stat().st_size
    assert not old.parent.exists()


@pytest.mark.parametrize("what", ["methods", "networks", "datasets", "suites"])
def test_lists(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", what, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) >= 3
    assert call("list", what) == 0


def test_check_refuses_what_a_run_refuses(
    tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiny-ImageNet as it is downloaded: test has no classes, and val has them in a file beside its images."""
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    places = ("train/ant/images", "train/bee/images", "val/images", "test/images")
    for place, path in enumerate(tmp_path / "tiny" / name for name in places):
        path.mkdir(parents=True)
        for i in range(12):
            Image.fromarray(np.full((8, 8, 3), 20 * i + place, np.uint8)).save(path / f"{i}.png")
    data = {"source": "image_folder", "path": str(tmp_path / "tiny"), "size": 8, "validation": 6}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**tiny, "name": "own", "data": data}))

    def said() -> list[str]:
        words = str(tmp_path / "own.yaml"), "--device", "cpu"
        codes = [call("check", *words), call("run", *words, "--results", str(tmp_path / "results"))]
        assert codes == [2, 2] and not scan(tmp_path / "results" / "own")
        return capsys.readouterr().err.splitlines()

    checked, ran = said()
    assert checked == ran and "tiny/val is not sorted by class: it holds 'images', and train 'ant'; move" in checked
    (tmp_path / "tiny/val/images").rename(tmp_path / "tiny/val/bee")
    checked, ran = said()
    assert checked == ran and "tiny/test is not sorted by class" in checked
    (tmp_path / "tiny/test").rename(tmp_path / "unlabelled")
    assert call("check", str(tmp_path / "own.yaml")) == 0
    assert "'test': 12" in "".join(capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("own", [False, True])
def test_what_a_teacher_from_elsewhere_may_know_is_said(
    own: bool, tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    raw = {**tiny, "pairs": [{"teacher": "resnet8w8", "student": "resnet8w4", "teacher_file": str(tmp_path / "t.pth")}]}
    suite = validate(raw, "test")
    data = datasets.load(suite.data)
    torch.save(models.build("resnet8w8", in_channels=1, size=8, n_classes=10).state_dict(), tmp_path / "t.pth")
    data.own_validation = own
    check_pair(suite, suite.pairs[0], data)
    assert ("validation split is 60 images taken from train" in capsys.readouterr().err) is not own


def test_check_says_what_would_run(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check", str(ran / "tiny.yaml")) == 0
    assert "4 runs in 2 cohorts" in capsys.readouterr().out
