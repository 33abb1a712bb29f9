"""How MLflow's UI shows a suite: the links into it, and the shared views that they open.

A shared view is an experiment's tag that holds the state of its page as JSON, the fields being those of MLflow's
`ExperimentPageUIState`. MLflow's own page would open elsewhere ("GenAI"), show ten rows and one point per run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from tracking.location import REPORTS, mask_secrets, tuning_name
from tracking.payload import CHOSEN, HP

VIEW = "method-mean"
TAG = "mlflow.sharedViewState."
MODE = "workflowType=machine_learning"
PAGE = 100  # runs that the UI loads at once; means over seeds are taken over what is loaded

OVERVIEW, STUDIES = "Means over seeds", "Studies"
FOLDED = ("test", "curve", "validation", "train", "cost", "Model metrics", "System metrics")  # what is left

TOP1 = "test/top1"
STEP = "cost/step_alone_ms"  # the report's step time: with all that the method needs, whatever its company needed
OBJECTIVE = "validation/top1"
TRIALS = {"by_trial/validation_top1": "Objective by trial", "by_trial/best_validation_top1": "Best so far"}

NOTE = "mlflow.note.content"
RUN_NOTE = (
    "One run per student, written by kdbench. Compare only runs of one pair; group by the param `label` to average "
    "over seeds. The headline is `test/top1`, one value, of the last epoch; `curve/test_*` is for looking at only. "
    "Every choice reads `validation/*`. The step time of reports is `cost/step_alone_ms`; `cost/step_own_part_ms` is "
    "that without the views and the teacher's forward that students of a cohort share."
)
TUNING_NOTE = (
    "One run per tuning study, written by kdbench, with its trials below it. `by_trial/*` of a study has the number of "
    "a trial as its step; the tag `best` marks the trial that the study chose, and the study's names it. Everything is "
    "measured on the validation split."
)
REPORT_NOTE = (
    "One run per report of a suite, written by kdbench; the newest is what the last `kdbench run` said. Its artifacts "
    "are the report, its table and its figures, and its description names the runs that they were made from."
)


def shared_view(labels: Iterable[str] = (), pair: str | None = None) -> dict[str, Any]:
    """The state of a page that shows means over seeds by method: headline, curves, cost.

    labels: groups to show folded, so that all names fit on the page; pair: only this pair's runs.
    """
    view: dict[str, Any] = {
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "label"}]},
        "useGroupedValuesInCharts": True,
        "groupsExpanded": {f"param.label.{label}": False for label in labels},
        "runsHiddenMode": "SHOW_ALL",  # else the first ten rows alone
        "searchFilter": "" if pair is None else f"params.pair = '{pair}'",
        "selectedColumns": [_metric(TOP1), _metric(OBJECTIVE), _metric(STEP), _param("label"), _param("seed")],
        **_layout(_charts(), OVERVIEW, TOP1),
    }
    return view


def tuning_view(hyper_parameters: Mapping[str, Iterable[str]] = MappingProxyType({})) -> dict[str, Any]:
    """The state of a page that shows studies: the objective by trial, the best so far, and for every set of
    hyper-parameters what values gave what. No groups: an average over trials means nothing.

    hyper_parameters: names of those that were searched, by method.
    """
    methods: dict[tuple[str, ...], list[str]] = {}
    for method, names in hyper_parameters.items():
        methods.setdefault(tuple(sorted(names)), []).append(method)
    charts = [_line(metric) | {"displayName": title} for metric, title in TRIALS.items()]
    charts += [_parallel(names, f"Values of {', '.join(labels)}") for names, labels in methods.items() if names]
    return {
        "runsHiddenMode": "SHOW_ALL",
        "searchFilter": "",
        "selectedColumns": [
            *(_metric(OBJECTIVE), f"tags.`{CHOSEN}`", _param("label"), _param("trial")),
            *(_param(HP + name) for name in sorted({name for names in methods for name in names})),
        ],
        **_layout(charts, STUDIES, OBJECTIVE),
    }


def view_key(pair: str | None = None) -> str:
    """What a link calls the view by."""
    return VIEW if pair is None else f"{VIEW}-{hashlib.sha256(pair.encode()).hexdigest()[:8]}"


def view_tag(labels: Iterable[str] = (), pair: str | None = None) -> tuple[str, str]:
    """The experiment's tag that holds the view: name, value."""
    return TAG + view_key(pair), json.dumps(shared_view(labels, pair))


def ui_link(base: str, experiment_id: str, pair: str | None = None, *, table: bool = False) -> str:
    """The experiment's page with charts (or the table of runs) grouped by method; of one pair, if its view has been
    written."""
    query = f"{MODE}&compareRunsMode={'TABLE' if table else 'CHART'}&viewStateShareKey={view_key(pair)}"
    return f"{_root(base)}/#/experiments/{experiment_id}/runs?{query}"


def compare_link(base: str, experiment_id: str, run_ids: Iterable[str]) -> str:
    """MLflow's page that sets runs side by side: parallel coordinates, and tables of what differs."""
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (list(run_ids), [experiment_id]))
    return f"{_root(base)}/#/compare-runs?runs={runs}&experiments={experiments}&{MODE}"  # MLflow wants runs first


def run_link(base: str, experiment_id: str, run_id: str, artifact: str = "") -> str:
    """The page of one run, or of one of its artifacts."""
    shown = f"/artifacts/{artifact}" if artifact else ""
    return f"{_root(base)}/#/experiments/{experiment_id}/runs/{run_id}{shown}?{MODE}"


def experiment_tags(name: str) -> dict[str, str]:
    """What an experiment of that name is made with: its note, and the view that its link opens."""
    if name == REPORTS:
        return {NOTE: REPORT_NOTE}
    if name.startswith(tuning_name("")):
        return {NOTE: TUNING_NOTE, TAG + VIEW: json.dumps(tuning_view())}
    return {NOTE: RUN_NOTE, TAG + VIEW: json.dumps(SHARED_VIEW)}


def _root(base: str) -> str:
    return mask_secrets(base).rstrip("/")


def _charts() -> list[dict[str, Any]]:
    return [
        _bars(TOP1),
        _line(OBJECTIVE),
        _scatter(STEP, TOP1),
        _bars("test/agreement"),
        _bars("test/nll"),
        _bars(STEP),
        _line("train/loss"),
    ]


def _bars(metric: str) -> dict[str, Any]:
    return _card("BAR", metric) | {"metricKey": metric}


def _line(metric: str) -> dict[str, Any]:
    x = {"xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear", "useGlobalXaxisKey": True}
    return _card("LINE", metric) | {"metricKey": metric, "selectedMetricKeys": [metric], "lineSmoothness": 0} | x


def _scatter(x: str, y: str) -> dict[str, Any]:
    return _card("SCATTER", f"{x}.{y}") | {
        "xaxis": {"key": x, "type": "METRIC"},
        "yaxis": {"key": y, "type": "METRIC"},
    }


def _parallel(names: Iterable[str], title: str) -> dict[str, Any]:
    axes = {"selectedParams": [HP + name for name in names], "selectedMetrics": [OBJECTIVE], "showAllRuns": True}
    return _card("PARALLEL", title) | axes | {"displayName": title}


def _layout(charts: list[dict[str, Any]], title: str, best_first: str) -> dict[str, Any]:
    """The charts in one open section, those that the UI makes of the rest folded; bars and rows by a metric."""
    return {
        "orderByKey": _metric(best_first),
        "orderByAsc": False,
        "compareRunCharts": [chart | {"metricSectionId": title} for chart in charts],
        "compareRunSections": [_section(title, expanded=True), *(_section(name, expanded=False) for name in FOLDED)],
        "isAccordionReordered": True,  # else sections are sorted by name
    }


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _param(name: str) -> str:
    return f"params.`{name}`"


def _card(kind: str, name: str) -> dict[str, Any]:
    made = {"deleted": False, "isGenerated": False, "runsCountToCompare": PAGE}
    return {"uuid": f"{kind}.{name}", "type": kind} | made


def _section(name: str, *, expanded: bool) -> dict[str, Any]:
    return {
        "uuid": name,
        "name": name,
        "display": expanded,
        "isReordered": False,
        "deleted": False,
        "isGenerated": True,
    }


SHARED_VIEW = shared_view()
"""Of a suite whose methods are not known yet."""
