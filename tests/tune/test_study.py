"""Studies: on the validation split alone, the recipe first, and the same whatever is killed at whatever moment."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

import bench.tune.search
import bench.tune.study
import bench.tune.study_record
import bench.tune.trials
from bench.data import sources
from bench.data.raw import SplitArrays
from bench.data.spec import DigitsSpec
from bench.errors import UserError
from bench.training.cohort import Cohort
from methods import ofd
from methods.kd import KD
from tests.test_cli import call
from tests.tune.conftest import attributes_of, trials_of, tuned
from tracking.record import Record


@pytest.fixture(autouse=True)
def one_test_draws(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a study of four trials, Optuna's figures are most of the time."""
    if request.function is not test_a_study_begins_with_the_recipe_and_leaves_what_it_chose:
        monkeypatch.setattr(bench.tune.study_record, "study_figures", lambda study, folder: [])


def test_a_study_begins_with_the_recipe_and_leaves_what_it_chose(tmp_path: Path, tiny: dict[str, Any]) -> None:
    (got,) = tuned(tiny, tmp_path, rule="confirmed")  # vanilla has nothing to tune
    found = trials_of(tmp_path)
    assert len(found) == 4 and found[0][0] == {"kd": 0.9, "tau": 4.0}
    content = yaml.safe_load(got.file.read_text())
    values = {number: params for number, (params, *_) in enumerate(found)}
    assert {key: got.values[key] for key in ("kd", "tau")} == values[content["trial"]]
    assert content["values"] == got.values and content["recipe_validation_top1"] == found[0][2][0]
    assert content["budget"] == {"trials": 4, "pruned": 0, "failed": 0, "student_steps": 4 * 3 * 3}
    means = content["confirmation"]["validation_top1"]
    assert content["confirmation"]["seeds"] == [1000 + i for i in (1, 2, 3)] and len(means) == 3
    assert means[content["trial"]] == max(means.values()) and 0 in means
    assert attributes_of(tmp_path)["chosen trial"] == content["trial"]
    folder = tmp_path / "tiny" / "tuning" / "resnet8w8--resnet8w4_kd"
    table = pd.read_csv(folder / "trials.csv")
    assert list(table["top1"]) == [values[0] for _, _, values, _ in found] and list(table["recipe"])[:2] == [
        True,
        False,
    ]
    record = Record(folder)
    assert (
        record.status == "finished" and record.is_intact() and [row["epoch"] for row in record.epochs] == [0, 1, 2, 3]
    )
    assert {path.stem for path in folder.glob("figures/*.png")} == {
        "history",
        "slice",
        "contour",
        "parallel_coordinate",
    }


def test_calling_again_changes_nothing_and_more_trials_are_added(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = tuned(tiny, tmp_path, rule="confirmed")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("tiny/**/*") if path.is_file()}
    tuned({**tiny, "tune": {"trials": 6}}, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Cohort, "epochs", None)  # nothing is trained
        (again,) = tuned(tiny, tmp_path, rule="confirmed")
    assert again.values == first.values
    assert {path: path.stat().st_mtime_ns for path in before} == before
    tuned(tiny, tmp_path, trials=6)
    assert trials_of(tmp_path) == trials_of(tmp_path / "whole") and len(trials_of(tmp_path)) == 6


def test_methods_read_the_trained_teacher(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a method takes from the teacher at its construction (ofd: BatchNorm) is the trained teacher's."""
    built: list[tuple[torch.Tensor, torch.Tensor]] = []
    real = ofd.margin

    def margin(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        built.append((weight, bias))
        return real(weight, bias)

    monkeypatch.setattr(ofd, "margin", margin)
    tuned({**tiny, "methods": ["ofd"]}, tmp_path, trials=1, batch=1)
    state = load_file(next(tmp_path.glob("teachers/*/teacher.safetensors")))
    weight, bias = built[-1]
    norms = [name.removesuffix(".weight") for name in state if name.startswith("layer") and name.endswith("bn2.weight")]
    assert any(torch.equal(state[f"{n}.weight"], weight) and torch.equal(state[f"{n}.bias"], bias) for n in norms)


def test_the_test_split_is_never_read(tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The source's loader of the test split raises here; the bench of the same suite asks for it."""
    real = sources.digits

    def digits(spec: DigitsSpec) -> Any:
        def test() -> SplitArrays:
            raise AssertionError("the test split was read")

        return replace(real(spec), test=test)

    monkeypatch.setattr(sources, "digits", digits)
    tuned(tiny, tmp_path, rule="confirmed")
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in tiny.items() if k != "name"}))
    with pytest.raises(AssertionError, match="was read"):
        call("run", str(file), "--results", str(tmp_path / "bench"), "--quiet")


class Killed(BaseException):
    """Stands for kill -9: no handler of an error or of an interrupt may see it."""


def killed_at(count: int, real: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """A function that dies at its call of that number, before or after its work is done."""
    calls = 0

    def call(*words: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and not after:
            raise Killed
        out = real(*words, **named)
        if calls == count:
            raise Killed
        return out

    return call


PLACES: list[tuple[Any, str]] = [
    (optuna.Study, "add_trial"),
    (Cohort, "step"),
    (Cohort, "_train"),
    (Record, "begin"),
    (Record, "end"),
    (Record, "write_epochs"),
    (bench.tune.trials, "_prune"),
    (bench.tune.study.tuned, "write_tuned"),
]
ALWAYS = {
    "after-add_trial",
    "before-step",
    "after-hold_epochs",
    "before-write",
}  # the database, a step, a record, a file


def kills() -> Iterator[Any]:
    """Every place, before and after its work; all but four of them slow."""
    for (place, name), after in itertools.product(PLACES, (False, True)):
        title = f"{'after' if after else 'before'}-{name}"
        yield pytest.param(place, name, after, id=title, marks=[] if title in ALWAYS else [pytest.mark.slow])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was never killed; tests start from its teacher."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    tuned(TINY, folder, trials=8, batch=4, pruner="halving", rule="confirmed")
    return folder


@pytest.mark.parametrize(("place", "name", "after"), kills())
def test_a_kill_at_any_moment_changes_nothing(
    place: Any, name: str, after: bool, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.conftest import TINY

    plan: dict[str, Any] = {"trials": 8, "batch": 4, "pruner": "halving", "rule": "confirmed"}
    shutil.copytree(uninterrupted / "teachers", tmp_path / "teachers")
    monkeypatch.setattr("bench.jobs.run_writer.CHECKPOINT_EVERY_S", 0.0)
    kills = 0
    for count in (1, 3, 2, 5, 1000):  # one after the other, each in what the last one left
        with monkeypatch.context() as patch:
            patch.setattr(place, name, killed_at(count, getattr(place, name), after=after))
            try:
                tuned(TINY, tmp_path, **plan)
                break
            except Killed:
                kills += 1
    assert kills
    (got,) = tuned(TINY, tmp_path, **plan)
    assert trials_of(tmp_path) == trials_of(uninterrupted)
    there = next((uninterrupted / "tuned").glob("*/*/kd.yaml"))
    assert yaml.safe_load(got.file.read_text()) == yaml.safe_load(there.read_text())
    states = [trial.state.name for trial in optuna.load_study(
        study_name="tiny/resnet8w8->resnet8w4/kd", storage=f"sqlite:///{tmp_path / 'optuna.db'}"
    ).get_trials()]  # fmt: skip
    assert states.count("PRUNED") == 4 and len(states) == 8  # two of four in each batch, and none is left running


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many students each cohort trained, the teacher's among them."""
    sizes: list[int] = []
    epochs = Cohort.epochs

    def counted(self: Cohort, *words: Any) -> Iterator[int]:
        sizes.append(len(self.members))
        return epochs(self, *words)

    monkeypatch.setattr(Cohort, "epochs", counted)
    return sizes


def test_trials_that_a_study_asks_twice_are_trained_once(
    tmp_path: Path, tiny: dict[str, Any], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a sampler may do in a small space: same fingerprint, same record, same result."""
    monkeypatch.setattr(bench.tune.search, "grid", lambda *_: [(0.9, 4.0), (20.0, 4.0)])
    tuned(tiny, tmp_path, sampler="grid", trials=5, batch=5)
    assert sizes == [1, 2]  # the teacher; the recipe once
    first, second, *_ = trials_of(tmp_path)
    assert len(trials_of(tmp_path)) == 3 and first == second


def test_a_grid_is_trained_to_its_last_point_and_no_further(
    tmp_path: Path, tiny: dict[str, Any], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan: dict[str, Any] = {"sampler": "grid", "trials": 8, "batch": 3, "space": {"kd": {"kd": [0.9, 20]}}}
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "add_trial", killed_at(4, optuna.Study.add_trial, after=True))
        with pytest.raises(Killed):
            tuned(tiny, tmp_path, **plan)
    (got,) = tuned(tiny, tmp_path, **plan)
    points = [tuple(params.values()) for params, *_ in trials_of(tmp_path)]
    assert points == [(0.9, 4.0), (0.9, 1.0), (0.9, 20.0), (20.0, 1.0), (20.0, 20.0)]
    assert sizes == [1, 3, 2] and got.budget["trials"] == 5


def test_a_grid_that_the_budget_cannot_hold_trains_nothing(
    tmp_path: Path, tiny: dict[str, Any], sizes: list[int]
) -> None:
    with pytest.raises(UserError, match="type --trials 5, or --sampler"):
        tuned(tiny, tmp_path, sampler="grid", trials=4)
    assert not sizes and not list(tmp_path.glob("t*"))  # no teacher, no study


def test_a_study_of_something_else_is_refused_and_says_how_they_differ(tmp_path: Path, tiny: dict[str, Any]) -> None:
    tuned(tiny, tmp_path, trials=2)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"batch": 4}, "batch 2, not 4"),
        ({"space": {"kd": {"tau": [2, 5]}}}, "space.tau 1…20 log, not 2…5 log"),
        ({"sampler": "random"}, "sampler tpe, not random"),
        ({"seed": 3}, "search seed 0, not 3"),
    ]
    for plan, told in changes:
        with pytest.raises(UserError, match=told):
            tuned(tiny, tmp_path, **plan)
    with pytest.raises(UserError, match=r"protocol.epochs 3, not 2.*teacher.*--name NAME"):
        tuned({**tiny, "protocol": {**tiny["protocol"], "epochs": 2}}, tmp_path)
    assert len(trials_of(tmp_path)) == 2
    tuned(tiny, tmp_path, "wide", batch=4)  # beside the old one, under a name of its own
    assert len(trials_of(tmp_path, "kd/wide")) == 4 and len(trials_of(tmp_path)) == 2


def test_trials_added_by_hand_are_noticed(tmp_path: Path, tiny: dict[str, Any]) -> None:
    tuned(tiny, tmp_path, trials=2)
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = optuna.load_study(study_name="tiny/resnet8w8->resnet8w4/kd", storage=storage)
    study.add_trial(study.get_trials()[1])
    with pytest.raises(UserError, match="trial 2 of this study is not what its search asks"):
        tuned(tiny, tmp_path)


@pytest.mark.parametrize("worst", [5.0, 0.0])
def test_a_trial_that_diverges_fails_alone(
    worst: float, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where all do, the study says so, and the next row is tuned none the less."""
    real = KD.loss

    def loss(self: KD, *words: Any) -> dict[str, torch.Tensor]:
        return {name: term / (self.tau < worst) for name, term in real(self, *words).items()}

    monkeypatch.setattr(KD, "loss", loss)
    got, other = tuned({**tiny, "methods": ["kd", "lskd"]}, tmp_path, trials=6, batch=3)
    states = [state for _, state, _, _ in trials_of(tmp_path)]
    assert set(states) == ({"FAIL", "COMPLETE"} if worst else {"FAIL"})
    assert got.budget["failed"] == states.count("FAIL") and other.budget["failed"] == 0
    record = Record(tmp_path / "tiny" / "tuning" / "resnet8w8--resnet8w4_kd")
    assert record.status == ("finished" if worst else "failed")
    assert ("no trial finished" in got.failure) == (worst == 0.0) and got.file.exists() == (worst > 0)


def test_accuracy_and_cost(tmp_path: Path, tiny: dict[str, Any]) -> None:
    (got,) = tuned(tiny, tmp_path, objective=["accuracy", "cost"])
    found = trials_of(tmp_path)
    assert all(len(values) == 2 and values[1] > 0 for _, _, values, _ in found)
    best = yaml.safe_load(got.file.read_text())["validation_top1"]
    assert best == max(values[0] for _, _, values, _ in found)
