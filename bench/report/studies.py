"""Optuna's own figures of a study, where it has enough trials for them to say something."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import matplotlib
import numpy as np
from matplotlib.ticker import NullLocator

from bench.report import style
from bench.report.files import put

if TYPE_CHECKING:  # it takes half a second to import, and a report is made without it
    import optuna

TARGET = "validation top-1 (%)"
NEEDS = {  # complete trials, hyper-parameters that vary, different values
    "history": (1, 0, 1),
    "slice": (2, 1, 1),
    "contour": (4, 2, 2),
    "parallel_coordinate": (2, 1, 1),
    "importances": (8, 2, 2),
}
SHOWN = 4  # hyper-parameters of a contour, the most important ones
ABOVE = 5  # trials that PED-ANOVA should have above its quantile, as its documentation asks


def study_figures(study: optuna.Study, folder: Path) -> list[str]:
    """History, slice, contour, parallel coordinates and importances as PNG under folder/figures; their relative names.

    Of several objectives the first is drawn, which is the accuracy. A figure is left out, and an old one removed, where
    the study has too few complete trials for it, too few hyper-parameters that vary, or one value alone.
    """
    with _our_style():
        figures = {f"figures/{name}.png": _png(draw) for name, draw in _drawers(accuracies(study)).items()}
    put(folder, figures, stale=[path for path in (f"figures/{name}.png" for name in NEEDS) if path not in figures])
    return list(figures)


def accuracies(study: optuna.Study) -> optuna.Study:
    """A copy in memory with the same numbers, of the first objective alone; all that is not complete counts as failed.

    It spares a query per figure, and tells PED-ANOVA the direction: a `target` it would take for something to minimise.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    out = optuna.create_study(direction=study.directions[0])
    for trial in study.get_trials(deepcopy=False):
        complete = trial.state == TrialState.COMPLETE and math.isfinite(trial.values[0])
        end: dict[str, Any] = {"value": trial.values[0]} if complete else {"state": TrialState.FAIL}
        out.add_trial(create_trial(params=trial.params, distributions=trial.distributions, **end))
    return out


def _drawers(study: optuna.Study) -> dict[str, Callable[[], Any]]:
    """By name, the figures that this study can show."""
    import optuna.visualization.matplotlib as plots
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values: dict[str, set[Any]] = {}
    for trial in done:
        for knob, value in trial.params.items():
            values.setdefault(knob, set()).add(value)
    knobs = sorted(knob for knob, different in values.items() if len(different) > 1)
    have = (len(done), len(knobs), len({trial.value for trial in done}))
    able = {name for name, need in NEEDS.items() if all(h >= n for h, n in zip(have, need, strict=True))}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, max(0.1, ABOVE / max(1, len(done)))))
    weights: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # ties: it cannot tell the best trials from the others
        try:
            weights = get_param_importances(study, evaluator=evaluator, params=knobs) if "contour" in able else {}
        except UserWarning:
            able.discard("importances")
    shown = sorted(sorted(knobs, key=lambda knob: -weights.get(knob, 0.0))[:SHOWN])
    drawers: dict[str, Callable[[], Any]] = {
        "history": lambda: plots.plot_optimization_history(study, target_name=TARGET),
        "slice": lambda: plots.plot_slice(study, knobs, target_name=TARGET),
        "contour": lambda: plots.plot_contour(study, shown, target_name=TARGET),
        "parallel_coordinate": lambda: plots.plot_parallel_coordinate(study, knobs, target_name=TARGET),
        "importances": lambda: plots.plot_param_importances(study, evaluator, knobs, target_name=TARGET),
    }
    return {name: draw for name, draw in drawers.items() if name in able}


def _png(draw: Callable[[], Any]) -> bytes:
    """What Optuna draws, as a file; the figure is closed again. Grids and parallel axes get room for every panel."""
    from matplotlib import pyplot

    before = set(pyplot.get_fignums())
    try:
        grid, figure = np.atleast_1d(draw()), pyplot.gcf()
        for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) if axis.get_scale() == "log"):
            axis.set_minor_locator(NullLocator())  # half of the time that a figure takes
        if grid.ndim == 2:
            figure.set_size_inches(2.1 * len(grid) + 1.6, 1.9 * len(grid) + 0.6)
            for ax in grid.flat:
                ax.label_outer()
        elif grid.size == 1 and len(figure.axes) > 2:  # parallel coordinates: an axis for each
            figure.set_size_inches(1.5 * len(figure.axes), 4.8)
            for ax in figure.axes:
                ax.spines["right"].set_visible(True)
        figure.suptitle("")  # the file's name says what it is
        for ax in figure.axes:
            ax.set_title("")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
        return buffer.getvalue()
    finally:
        for number in set(pyplot.get_fignums()) - before:
            pyplot.close(number)


@contextmanager
def _our_style() -> Iterator[None]:
    """Optuna draws by pyplot, asks for a style of its own, and says that this is experimental. All is undone."""
    import optuna
    from matplotlib import pyplot

    backend, verbosity = matplotlib.get_backend(), optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else every study that is made says so
    pyplot.switch_backend("agg")
    ours = style.RC | {"text.parse_math": True}  # of a logarithmic axis
    try:
        with warnings.catch_warnings(), matplotlib.rc_context(ours), patch.object(pyplot.style, "use"):
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
        pyplot.switch_backend(backend)
