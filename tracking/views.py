"""How MLflow's UI shows a suite: the links into it, and the shared views that they open.

A shared view is an experiment's tag that holds the state of its page as JSON, the fields being those of MLflow's
`ExperimentPageUIState`. MLflow's own page would open elsewhere ("GenAI"), show ten rows and one point per run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from tracking.location import REPORTS, mask_secrets, tuning_name

VIEW = "method-mean"
TAG = "mlflow.sharedViewState."
MODE = "workflowType=machine_learning"
PAGE = 100  # runs that the UI loads at once; means over seeds are taken over what is loaded

OVERVIEW = "Means over seeds"
FOLDED = ("test", "validation", "train", "cost", "Model metrics", "System metrics")  # what the UI makes of the rest

STEP = "cost/step_alone_ms"  # the report's step time: with all that the method needs, whatever its company needed

NOTE = "mlflow.note.content"
RUN_NOTE = (
    "One run per student, written by kdbench. Compare only runs of one pair; group by the param `label` to average "
    "over seeds. The headline is `test/top1` at the last step, taken once; every choice reads `validation/*`."
)
TUNING_VIEW = {"searchFilter": ""}  # no groups: an average over trials means nothing
TUNING_NOTE = (
    "One run per tuning study, written by kdbench, with its trials below it; a study's step is the number of a trial. "
    "Everything is measured on the validation split."
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
        "compareRunCharts": _charts(),
        "compareRunSections": [_section(OVERVIEW, expanded=True), *(_section(name, expanded=False) for name in FOLDED)],
        "isAccordionReordered": True,  # else sections are sorted by name
    }
    return view


def view_key(pair: str | None = None) -> str:
    """What a link calls the view by."""
    return VIEW if pair is None else f"{VIEW}-{hashlib.sha256(pair.encode()).hexdigest()[:8]}"


def view_tag(labels: Iterable[str] = (), pair: str | None = None) -> tuple[str, str]:
    """The experiment's tag that holds the view: name, value."""
    return TAG + view_key(pair), json.dumps(shared_view(labels, pair))


def ui_link(base: str, experiment_id: str, pair: str | None = None) -> str:
    """The experiment's page with charts grouped by method; of one pair, if its view has been written."""
    query = f"{MODE}&compareRunsMode=CHART&viewStateShareKey={view_key(pair)}"
    return f"{_root(base)}/#/experiments/{experiment_id}/runs?{query}"


def compare_link(base: str, experiment_id: str, run_ids: Iterable[str]) -> str:
    """MLflow's page that sets runs side by side: parallel coordinates, and tables of what differs."""
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (list(run_ids), [experiment_id]))
    return f"{_root(base)}/#/compare-runs?runs={runs}&experiments={experiments}"


def run_link(base: str, experiment_id: str, run_id: str, artifact: str = "") -> str:
    """The page of one run, or of one of its artifacts."""
    shown = f"/artifacts/{artifact}" if artifact else ""
    return f"{_root(base)}/#/experiments/{experiment_id}/runs/{run_id}{shown}?{MODE}"


def experiment_tags(name: str) -> dict[str, str]:
    """What an experiment of that name is made with: its note, and the view that its link opens."""
    if name == REPORTS:
        return {NOTE: REPORT_NOTE}
    if name.startswith(tuning_name("")):
        return {NOTE: TUNING_NOTE, TAG + VIEW: json.dumps(TUNING_VIEW)}
    return {NOTE: RUN_NOTE, TAG + VIEW: json.dumps(SHARED_VIEW)}


def _root(base: str) -> str:
    return mask_secrets(base).rstrip("/")


def _charts() -> list[dict[str, Any]]:
    return [
        _bars("test/top1"),
        _line("validation/top1"),
        _scatter(STEP, "test/top1"),
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


def _card(kind: str, name: str) -> dict[str, Any]:
    made = {"deleted": False, "isGenerated": False, "runsCountToCompare": PAGE, "metricSectionId": OVERVIEW}
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
