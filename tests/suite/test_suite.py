"""Suites: what expands to what, and what a fingerprint depends on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from bench.suite import suite as suites
from bench.suite.protocol import Protocol
from bench.suite.suite import MethodSpec, Run, Suite, validate


def runs_of(raw: dict[str, Any]) -> list[Run]:
    suite = validate(raw, "test")
    data = {"name": "digits", "fingerprint": "d"}
    return [Run.of(suite, p, m, s, data, "t") for p in suite.pairs for s in suite.seeds for m in suite.methods]


def test_every_suite_of_the_project_is_valid() -> None:
    assert {"digits", "cifar100", "cifar100-mini"} <= set(suites.built_in_suites())
    for name in suites.built_in_suites():
        assert suites.load(name).name == name


def test_a_suite_expands_to_pairs_times_seeds_times_methods(tiny: dict[str, Any]) -> None:
    runs = runs_of(tiny)
    assert len(runs) == 4 and len({r.fingerprint for r in runs}) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": {"epochs": 4, "batch_size": 32, "lr": 0.05, "milestones": [2]}},
        {"methods": ["vanilla", {"kd": {"tau": 3.0}}]},
        {"pairs": ["resnet8w8 -> resnet8w6"]},
    ],
)
def test_what_determines_a_number_changes_the_fingerprint(tiny: dict[str, Any], change: dict[str, Any]) -> None:
    before, after = runs_of(tiny), runs_of({**tiny, **change})
    assert before[1].fingerprint != after[1].fingerprint


def test_what_does_not_determine_a_number_leaves_it(tiny: dict[str, Any]) -> None:
    before = runs_of(tiny)
    after = runs_of(
        {
            **tiny,
            "about": "other words",
            "name": "other",
            "methods": [{"method": "vanilla", "label": "alone"}, "kd"],
            "seeds": 3,
        }
    )
    assert [r.fingerprint for r in before] == [r.fingerprint for r in after[:4]]


def test_methods_are_narrowed_with_the_suites_own_settings(tmp_path: Path, tiny: dict[str, Any]) -> None:
    import yaml

    path = tmp_path / "s.yaml"
    path.write_text(
        yaml.safe_dump({**tiny, "methods": ["vanilla", {"method": "kd", "label": "hot", "set": {"tau": 9.0}}]})
    )
    got = suites.load(str(path), methods=["hot", "dkd"], seeds="4,7", sets=["protocol.epochs=2"])
    assert [m.title for m in got.methods] == ["hot", "dkd"] and got.methods[0].set == {"tau": 9.0}
    assert got.seeds == [4, 7] and got.protocol.epochs == 2
    assert suites.load(str(path), seeds="3").seeds == [0, 1, 2]


def test_a_row_is_named_after_what_it_changes() -> None:
    assert MethodSpec(method="kd").title == "kd"
    assert MethodSpec(method="kd", set={"tau": 2.5}).title == "kd(tau=2.5)"
    assert MethodSpec(method="kd", recipe="simkd-repo").title == "kd(simkd-repo)"


def test_the_step_schedule_is_the_literatures() -> None:
    """The first epoch at a tenth is 151, counted from 1."""
    p = suites.load("cifar100").protocol
    assert [p.lr_factor(e, 0.5) for e in (1, 150, 151, 180, 181, 210, 211, 240)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3]
    )
    assert (p.lr_for("resnet8x4"), p.lr_for("MobileNetV2"), p.lr_for("ShuffleV1")) == (0.05, 0.01, 0.01)
    assert (p.epochs, p.batch_size, p.momentum, p.nesterov, p.weight_decay) == (240, 64, 0.9, False, 5e-4)


def test_the_other_schedules() -> None:
    cosine = Protocol(epochs=10, schedule="cosine", warmup_epochs=2)
    assert cosine.lr_factor(2, 0.0) == pytest.approx(0.5)
    assert cosine.lr_factor(3, 0.0) == pytest.approx(1.0)
    assert cosine.lr_factor(7, 0.0) == pytest.approx(0.5)
    one = Protocol(epochs=10, schedule="onecycle")
    assert one.lr_factor(1, 0.0) == pytest.approx(1 / 25) and one.lr_factor(4, 0.0) == pytest.approx(1.0)
    assert one.lr_factor(10, 0.999) < 1e-3
    assert math.isclose(Protocol(epochs=10, schedule="constant").lr_factor(9, 0.3), 1.0)


def test_teachers_may_train_differently(tiny: dict[str, Any]) -> None:
    suite = Suite.model_validate({**tiny, "teacher": {"protocol": {"epochs": 9}}})
    assert suite.teacher_protocol().epochs == 9 and suite.protocol.epochs == 3
