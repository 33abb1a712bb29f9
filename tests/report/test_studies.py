from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import optuna
import pytest
from matplotlib import pyplot
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from bench.report.studies import NEEDS, _drawers, accuracies, study_figures

ALL = [f"figures/{name}.png" for name in NEEDS]
TAU, WEIGHT = FloatDistribution(1, 20), FloatDistribution(0.01, 100, log=True)
LOSS = CategoricalDistribution(("mse", "cosine", "none"))


def study(trials: int, knobs: int = 3, objectives: int = 1, top1: float | None = None) -> optuna.Study:
    """tau decides, and is best at 6; the second knob is a choice, the others do nothing. Every seventh trial failed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out = optuna.create_study(directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][:objectives])
    draw = np.random.default_rng(0)
    for number in range(trials):
        space: dict[str, BaseDistribution] = {"tau": TAU, "loss": LOSS, **{f"w{i}": WEIGHT for i in range(knobs)}}
        space = dict(list(space.items())[:knobs])
        tau = 1 + 19 * draw.random()
        values = {"tau": tau, "loss": LOSS.choices[draw.integers(3)]}
        values |= {f"w{i}": 10 ** draw.uniform(-2, 2) for i in range(knobs)}
        params = {name: values[name] for name in space}
        reached = top1 if top1 is not None else 70 - 10 * abs(math.log(tau / 6))
        end = (
            {"values": [reached, 20.0 + draw.random()][:objectives]} if number % 7 != 6 else {"state": TrialState.FAIL}
        )
        out.add_trial(create_trial(params=params, distributions=space, **end))  # type: ignore[arg-type]
    return out


@pytest.mark.parametrize("objectives", [1, 2])
def test_every_figure_is_drawn_without_a_word_and_leaves_nothing_open(
    tmp_path: Path, objectives: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    made = study(24, 6, objectives)
    before, open_before, backend = dict(matplotlib.rcParams), pyplot.get_fignums(), matplotlib.get_backend()
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error")
        assert study_figures(made, tmp_path) == ALL
    assert sorted(f"figures/{path.name}" for path in (tmp_path / "figures").iterdir()) == sorted(ALL)
    for name in ALL:
        content = (tmp_path / name).read_bytes()
        assert content.startswith(b"\x89PNG") and 5_000 < len(content) < 400_000
    assert dict(matplotlib.rcParams) == before and pyplot.get_fignums() == open_before
    assert matplotlib.get_backend() == backend and optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert not caplog.records and capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("made", "left_out"),
    [
        (study(0), {*NEEDS}),
        (study(1), {*NEEDS} - {"history"}),
        (study(3), {"contour", "importances"}),
        (study(24, 1), {"contour", "importances"}),
        (study(24, top1=50.0), {"contour", "importances"}),
        (study(24, top1=math.inf), {*NEEDS}),
        (study(24, 0), {*NEEDS} - {"history"}),
        (study(24), set()),
    ],
    ids=["nothing", "one trial", "few", "one knob", "one value", "infinite", "no knob", "enough"],
)
def test_what_says_nothing_is_left_out(
    tmp_path: Path, made: optuna.Study, left_out: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "figures").mkdir()
    for name in NEEDS:
        (tmp_path / "figures" / f"{name}.png").write_text("of the call before")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = study_figures(made, tmp_path)
    assert got == [f"figures/{name}.png" for name in NEEDS if name not in left_out]
    assert sorted(path.stem for path in (tmp_path / "figures").iterdir()) == sorted({*NEEDS} - left_out)
    assert capsys.readouterr() == ("", "")


def test_ties_that_hide_the_best_give_no_importances(tmp_path: Path) -> None:
    """All but one trial share the best value, so that the best half are nearly all."""
    made = optuna.create_study(direction="maximize")
    for number in range(12):
        params = {"tau": 2.0 + number, "kd": 0.1 + number}
        value = 50.0 if number < 11 else 60.0
        made.add_trial(create_trial(params=params, distributions={"tau": TAU, "kd": WEIGHT}, value=value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert study_figures(made, tmp_path) == ALL[:-1]


def test_a_knob_that_never_varied_is_no_axis(tmp_path: Path) -> None:
    made = optuna.create_study(direction="maximize")
    for number in range(12):
        params = {"tau": 4.0, "kd": 0.1 + number}
        made.add_trial(create_trial(params=params, distributions={"tau": TAU, "kd": WEIGHT}, value=float(number)))
    assert study_figures(made, tmp_path) == [name for name in ALL if "contour" not in name and "importance" not in name]


@pytest.mark.parametrize("objectives", [1, 2])
def test_the_copy_is_of_the_accuracy_and_knows_its_direction(objectives: int) -> None:
    made = study(24, 3, objectives)
    copy = accuracies(made)
    assert copy.direction.name == "MAXIMIZE" and [t.number for t in copy.trials] == [t.number for t in made.trials]
    done = [t for t in made.trials if t.state == TrialState.COMPLETE]
    assert [t.value for t in copy.get_trials(states=(TrialState.COMPLETE,))] == [t.values[0] for t in done]
    assert len(done) == 21 and all(a.params == b.params for a, b in zip(copy.trials, made.trials, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        drawn = _drawers(copy)["importances"]().get_yticklabels()
    assert drawn[-1].get_text() == "tau"  # the most important stands on top
    pyplot.close()


def test_a_figure_that_fails_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna.visualization.matplotlib as plots

    def fail(*_: object, **__: object) -> None:
        pyplot.figure()
        raise RuntimeError("no room")

    monkeypatch.setattr(plots, "plot_slice", fail)
    before = dict(matplotlib.rcParams)
    with pytest.raises(RuntimeError, match="no room"):
        study_figures(study(24), tmp_path)
    assert pyplot.get_fignums() == [] and dict(matplotlib.rcParams) == before
