"""What `kdbench time --tune` measures is what it says: k trials, one teacher forward per step or one per trial."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from bench import data as datasets
from bench.suite import suite as suites
from bench.timing import tune as timing_tune
from bench.timing.step import STEPS
from bench.timing.tune import make_trials, measure_trials, sequential_and_lockstep_laps
from bench.training.cohort import Cohort
from tests.test_cli import call

K = 3
CPU = torch.device("cpu")


@pytest.fixture
def cohort(tiny: dict[str, Any]) -> Cohort:
    suite = suites.validate({**tiny, "methods": ["kd"]}, "tiny")
    return make_trials(suite, K, datasets.load(suite.data, CPU))


@pytest.mark.parametrize(("way", "forwards_per_step"), [("lockstep", 1), ("sequential", K)])
def test_every_trial_takes_every_step_and_only_lockstep_shares_the_teacher(
    cohort: Cohort, way: str, forwards_per_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwards = []
    teachers = [cohort.folded_teacher]
    monkeypatch.setattr("bench.training.cohort.folded_copy", lambda network: teachers[0])
    assert teachers[0] is not None
    teachers[0].register_forward_hook(lambda *_: forwards.append(1))
    before = [[p.clone() for p in member.network.parameters()] for member in cohort.members]
    sequential_and_lockstep_laps(cohort)[way]()
    assert len(forwards) == STEPS * forwards_per_step
    for member, old in zip(cohort.members, before, strict=True):
        assert member.status == "running" and member.images["images"] == STEPS * cohort.protocol.batch_size
        assert all((p != o).any() for p, o in zip(member.network.parameters(), old, strict=True))


def test_the_trials_are_the_recipe_and_others_within_the_space(tiny: dict[str, Any]) -> None:
    suite = suites.validate({**tiny, "methods": ["kd"], "tune": {"space": {"kd": {"kd": [0.5, 2.0]}}}}, "tiny")
    first, *others = (vars(m.method) for m in make_trials(suite, 5, datasets.load(suite.data, CPU)).members)
    assert (first["kd"], first["tau"]) == (0.9, 4.0)
    assert len({(m["kd"], m["tau"]) for m in others}) == 4
    assert all(0.5 < m["kd"] < 2 and 1 < m["tau"] < 20 and m["ce"] == first["ce"] for m in others)


@pytest.mark.parametrize("method", ["fitnet", "crd", "block_kd", "dist"])
def test_every_kind_of_knob_spreads(tiny: dict[str, Any], method: str) -> None:
    """Trains before its first epoch; takes whole numbers; takes choices; takes real numbers."""
    suite = suites.validate({**tiny, "methods": [method]}, "tiny")
    cohort = make_trials(suite, 2, datasets.load(suite.data, CPU))
    sequential_and_lockstep_laps(cohort)["lockstep"]()
    assert {m.status for m in cohort.members} == {"running"} and {m.epoch for m in cohort.members} == {0}


def test_the_figures_are_medians_over_the_rounds_without_the_first(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spans() -> Iterator[float]:
        for sequential, lockstep in ((900, 1), (6, 4), (8, 4), (10, 5)):
            yield from (sequential * STEPS * K, lockstep * STEPS * K)

    clock = spans()
    monkeypatch.setattr(timing_tune, "milliseconds_of", lambda lap, device: next(clock))
    suite = suites.validate({**tiny, "methods": ["kd"]}, "tiny")
    figures = measure_trials(suite, K, 3, CPU, Console(quiet=True))
    assert (figures["sequential_ms"], figures["lockstep_ms"], figures["speed_up"]) == (8, 4, 2)
    assert (figures["speed_up_lowest"], figures["speed_up_highest"]) == (1.5, 2)


def test_a_trial_that_breaks_is_not_timed_as_a_fast_one(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    suite = suites.validate({**tiny, "methods": ["kd"]}, "tiny")
    monkeypatch.setattr("methods.kd.KD.loss", lambda *_: 1 / 0)
    with pytest.raises(suites.UserError, match="trial 0 ended: ZeroDivisionError"):
        measure_trials(suite, K, 3, CPU, Console(quiet=True))


def test_the_command_prints_the_speed_up_and_what_it_comes_from(
    tiny_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("time", str(tiny_file), "--tune", "--batch", "2", "--rounds", "3", "--json", "--device", "cpu") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["k"], figures["rounds"], figures["threads"], figures["method"]) == (2, 3, 1, "kd")
    assert figures["sequential_ms"] > 0 and figures["lockstep_ms"] > 0
    assert figures["speed_up"] == pytest.approx(figures["sequential_ms"] / figures["lockstep_ms"])
    assert 0 < figures["speed_up_lowest"] <= figures["speed_up"] <= figures["speed_up_highest"]
    assert call("time", str(tiny_file), "--tune", "--rounds", "3", "--device", "cpu") == 0
    assert "speed_up" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tune", "--batch", "0"), "type --batch 2 or more"),
        (("--tune", "--batch", "1"), "type --batch 2 or more"),
        (("--tune", "--methods", "kdd"), "did you mean 'kd'?"),
        (("--tune", "--methods", "vanilla"), "type --methods kd"),
        (("--tune", "--methods", "kd,dkd"), "got 2; type e.g. --methods kd"),
        (("--tune", "--set", "protocol.batch_size=91"), "type --set protocol.batch_size=90"),
        (("--batch", "8"), "type --tune --batch 8"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_type(
    tiny_file: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert call("time", str(tiny_file), *words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
