"""MLflow's UI on a suite: the links that lead there, and the server on this machine that answers them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from tracking.deliver import last_delivery
from tracking.location import REPORTS, SERVERS, SETTINGS, TrackingError, experiment_name, mask_secrets, tuning_name
from tracking.payload import SPACE
from tracking.store import Store
from tracking.views import TAG, VIEW, compare_link, run_link, tuning_view, ui_link, view_tag

N_DETAILED_SUITES = 5  # suites whose runs are looked at if none is named; a store may hold many
START_TIMEOUT_S = 120.0
PORT = 5000

if TYPE_CHECKING:
    from tracking.query import StoreRuns
    from tracking.record import Record


class Links(NamedTuple):
    """Where one pair of a suite is shown. An empty link: there is nothing to show there."""

    suite: str
    pair: str  # empty where all runs are of one pair
    runs: int
    methods: tuple[str, ...]
    charts: str
    table: str = ""
    compare: str = ""  # one seed's run of every method
    report: str = ""
    tuning: str = ""


def links(store: Store, base: str, suite: str | None = None) -> list[Links]:
    """Of every suite in the store, the one that was run last first; of the newest five, or of the one that is named,
    with a row per pair and the views that their links open written to the store.

    base: the server's address. Raises `TrackingError` for a store without runs, or without that suite.
    """
    experiments = store.experiments()
    prefix = experiment_name("")
    experiment_of = {
        name.removeprefix(prefix): number for name, number in experiments.items() if name.startswith(prefix)
    }
    if not experiment_of:
        raise TrackingError("no runs in MLflow yet; `kdbench run` makes some")
    if suite is not None and suite not in experiment_of:
        raise TrackingError(f"no runs of '{suite}' in MLflow; there are {', '.join(sorted(experiment_of))}")
    suites = [suite] if suite is not None else _newest_first(store, experiment_of)
    out = []
    for place, name in enumerate(suites):
        plain = [Links(name, "", 0, (), ui_link(base, experiment_of[name]))]
        rows = _of_suite(store, base, name, experiment_of[name]) if place < N_DETAILED_SUITES else plain
        report, tuning = _report(store, base, name), _tuning(store, base, experiments.get(tuning_name(name), ""))
        out += [row._replace(report=report, tuning=tuning) for row in rows]
    return out


def run_addresses(records: Iterable[Record]) -> tuple[dict[str, str], dict[str, str]]:
    """Where a report leads: addresses of the runs in MLflow by fingerprint, and of the views of all of them by what
    they show, as far as the last deliveries tell; nobody is asked. Runs in a database without a server have none.
    """
    deliveries = {record.header["fingerprint"]: last_delivery(record) for record in records}
    return _addresses(
        {name: (c["store"], c["experiment_id"], c["run_id"]) for name, c in deliveries.items() if "run_id" in c}
    )


def run_addresses_of_store(found: StoreRuns) -> tuple[dict[str, str], dict[str, str]]:
    """The same of runs that came out of a store."""
    return _addresses({name: (found.where, *ids) for name, ids in found.ids.items()})


def _addresses(runs: Mapping[str, tuple[str, str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """runs: store, experiment and run by fingerprint."""
    served = {name: ids for name, ids in runs.items() if ids[0].startswith(SERVERS)}
    of_runs = {name: run_link(store, experiment, run) for name, (store, experiment, run) in served.items()}
    whole = {ui_link(store, experiment) for store, experiment, _ in served.values()}
    return of_runs, {"MLflow: all runs side by side": whole.pop()} if len(whole) == 1 else {}


def _of_suite(store: Store, base: str, suite: str, experiment: str) -> list[Links]:
    runs = store.search([experiment], "tags.`kd.kind` = 'run'")
    pairs = sorted({run.data.params.get("pair", "") for run in runs})
    out = []
    for pair in pairs if len(pairs) > 1 else [None]:
        runs_of_pair = [run for run in runs if pair in (None, run.data.params.get("pair", ""))]
        labels = sorted({run.data.params.get("label", "") for run in runs_of_pair})
        _write_view(store, experiment, *view_tag(labels, pair))
        same_seed = _of_one_seed(runs_of_pair)
        compare = compare_link(base, experiment, [run.info.run_id for run in same_seed]) if len(same_seed) > 1 else ""
        charts, table = (ui_link(base, experiment, pair, table=table) for table in (False, True))
        out.append(Links(suite, pair or "", len(runs_of_pair), tuple(labels), charts, table, compare))
    return out


def _of_one_seed(runs: list[Any]) -> list[Any]:
    """The finished runs of the seed that most methods have finished, the lowest of several; by method."""
    of_seed: dict[int, dict[str, Any]] = {}
    for run in runs:
        if run.data.tags.get("kd.status") == "finished":
            of_seed.setdefault(int(run.data.params["seed"]), {})[run.data.params.get("label", "")] = run
    if not of_seed:
        return []
    chosen = of_seed[min(of_seed, key=lambda seed: (-len(of_seed[seed]), seed))]
    return [chosen[label] for label in sorted(chosen)]


def _tuning(store: Store, base: str, experiment: str) -> str:
    """The link to the studies, whose view is written; empty where there are none."""
    if not experiment:
        return ""
    searched: dict[str, set[str]] = {}
    for study in store.search([experiment], "tags.`kd.kind` = 'study'"):
        names = {name.removeprefix(SPACE) for name in study.data.params if name.startswith(SPACE)}
        searched.setdefault(study.data.params.get("label", ""), set()).update(names)
    _write_view(store, experiment, TAG + VIEW, json.dumps(tuning_view(dict(sorted(searched.items())))))
    return ui_link(base, experiment)


def _write_view(store: Store, experiment: str, tag: str, view: str) -> None:
    if store.client.get_experiment(experiment).tags.get(tag) != view:
        store.client.set_experiment_tag(experiment, tag, view)


def _newest_first(store: Store, experiment_of: dict[str, str]) -> list[str]:
    def started(number: str) -> int:
        with store.translate_errors():
            found = store.client.search_runs([number], max_results=1, order_by=["attributes.start_time DESC"])
        return int(found[0].info.start_time) if found else 0

    return sorted(experiment_of, key=lambda name: (-started(experiment_of[name]), name))


def _report(store: Store, base: str, suite: str) -> str:
    with store.translate_errors():
        experiment = store.client.get_experiment_by_name(REPORTS)
        if experiment is None or experiment.lifecycle_stage != "active":
            return ""
        query, newest = f"tags.`kd.suite` = '{suite}'", ["attributes.start_time DESC"]
        found = store.client.search_runs([experiment.experiment_id], query, max_results=1, order_by=newest)
        if not found:
            return ""
        run_id = found[0].info.run_id
        files = {artifact.path for artifact in store.client.list_artifacts(run_id)}
    name = next((name for name in ("report.html", "report.md") if name in files), "")
    return run_link(base, experiment.experiment_id, run_id, name)


def free_port(port: int) -> None:
    """Return if nobody uses the port of 127.0.0.1, else raise `TrackingError` with one that is free."""
    if not _is_free(port):
        other = next((p for p in range(port + 1, min(port + 100, 65536)) if _is_free(p)), None)
        raise TrackingError(f"port {port} of 127.0.0.1 is taken; type --port {other or 8080}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


class Server(NamedTuple):
    process: subprocess.Popen[bytes]
    output: IO[bytes]  # what it writes, which is of no use while all is well


@contextmanager
def serve_mlflow(uri: str, port: int, folder: Path) -> Iterator[Server]:
    """MLflow's server on 127.0.0.1, ended with the block; also if this process is told to end.

    uri: of a database, which the server gets by its environment since other users see command lines; folder: where
    the server would keep artifacts of its own.
    """
    command = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]  # else one line per request
    environment = SETTINGS | os.environ | {"MLFLOW_BACKEND_STORE_URI": uri}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # it would start eight more processes
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    output = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the server runs)
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command],
        env=environment,
        cwd=folder,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    )
    try:
        yield Server(process, output)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(port: int, server: Server, seconds: float = START_TIMEOUT_S) -> None:
    """Return when the server answers. Raises `TrackingError` if it ends first, or does not in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if server.process.poll() is not None:
            server.output.seek(0)
            last = server.output.read().decode(errors="replace").splitlines()[-1:]
            raise TrackingError(f"MLflow's server ended before it answered: {mask_secrets(' '.join(last))[:300]}")
        if _answers(port):
            return
        time.sleep(0.2)
    raise TrackingError(f"MLflow's server did not answer within {seconds:.0f} s")


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)  # which asks no proxy
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def open_browser(link: str) -> bool:
    """Open a browser on it; False where there is no display."""
    display = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(display) and webbrowser.open(link)
