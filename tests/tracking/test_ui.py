"""Links into MLflow's UI, and the server that answers them; what a browser makes of them is in tests/ui."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, unquote

import pytest

from tests.prose import Prose
from tests.tracking.conftest import environment, spec
from tests.tracking.test_tuning import study
from tracking import query, ui, views
from tracking.location import TrackingError
from tracking.record import Record
from tracking.store import Store

BASE = "http://127.0.0.1:5000"
VALIDATION = {"vanilla": (80.0, 70.0), "kd": (75.0, 90.0), "dkd": (60.0, float("nan"))}


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> object:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(store: Store, suite: str, label: str, seed: int, pair: str = "big->small", status: str = "finished") -> str:
    """Deliver it; returns its id."""
    name = f"{suite}-{pair[5:]}-{label}-{seed}"
    record = Record(store.results / suite / "runs" / name)
    record.begin(name, spec(seed, suite=suite, pair=pair, method=label, label=label), environment())
    value = VALIDATION[label][seed]
    if value == value:
        record.write_epochs([{"epoch": 1, "time": 1.7e9, "metrics": {"validation/top1": value}}])
    record.end(status, "", {"test/top1": 100 - value}, [])
    store.deliver(record)
    return str(json.loads((record.folder / "mlflow.json").read_text())["run_id"])


def compared(link: str) -> tuple[list[str], list[str]]:
    query = parse_qs(link.partition("#/compare-runs?")[2])
    return json.loads(query["runs"][0]), json.loads(query["experiments"][0])


def test_links_of_a_suite(store: Store) -> None:
    ids = {(label, seed): run(store, "tiny", label, seed) for label in ("vanilla", "kd") for seed in (0, 1)}
    dkd = run(store, "tiny", "dkd", 1)
    (row,) = ui.links(store, BASE + "/", "tiny")
    experiment = store.experiment("kd/tiny")
    assert (row.suite, row.pair, row.runs, row.methods) == ("tiny", "", 5, ("dkd", "kd", "vanilla"))
    assert row.charts == views.ui_link(BASE, experiment) and row.charts.startswith(f"{BASE}/#/experiments/{experiment}")
    assert row.table == views.ui_link(BASE, experiment, table=True) and "compareRunsMode=TABLE" in row.table
    assert compared(row.compare) == ([dkd, ids["kd", 1], ids["vanilla", 1]], [experiment]), "the seed that most have"
    assert (row.report, row.tuning) == ("", "")
    view = json.loads(store.client.get_experiment(experiment).tags[views.TAG + views.VIEW])
    assert view == views.shared_view(("dkd", "kd", "vanilla")) and view["searchFilter"] == ""
    assert "metrics.`test/top1`" in view["selectedColumns"] and view["orderByKey"] == "metrics.`test/top1`"


def test_studies_are_shown_by_trial_and_by_value(store: Store, tmp_path: Path) -> None:
    run(store, "tiny", "kd", 0)
    store.deliver(study(tmp_path, 3))
    (row,) = ui.links(store, BASE, "tiny")
    experiment = store.experiment("kd-tune/tiny")
    assert row.tuning == views.ui_link(BASE, experiment)
    view = json.loads(store.client.get_experiment(experiment).tags[views.TAG + views.VIEW])
    lines = [chart["metricKey"] for chart in view["compareRunCharts"] if chart["type"] == "LINE"]
    assert lines == ["by_trial/validation_top1", "by_trial/best_validation_top1"]
    (values,) = [chart for chart in view["compareRunCharts"] if chart["type"] == "PARALLEL"]
    assert (values["selectedParams"], values["selectedMetrics"]) == (["hp.alpha", "hp.tau"], ["validation/top1"])
    assert values["displayName"] == "Values of kd"
    (there,) = store.search([experiment], "tags.`kd.kind` = 'study'")
    assert set(lines) <= there.data.metrics.keys()


def test_a_row_per_pair_with_its_own_view(store: Store) -> None:
    for pair in ("big->small", "big->tiny"):
        for label in ("vanilla", "kd"):
            run(store, "pairs", label, 0, pair)
    rows = ui.links(store, BASE, "pairs")
    assert [row.pair for row in rows] == ["big->small", "big->tiny"] and len({row.charts for row in rows}) == 2
    tags = store.client.get_experiment(store.experiment("kd/pairs")).tags
    for row in rows:
        key = row.charts.partition("viewStateShareKey=")[2]
        assert json.loads(tags[views.TAG + key])["searchFilter"] == f"params.pair = '{row.pair}'"
        assert row.runs == 2 and len(compared(row.compare)[0]) == 2


def test_a_report_knows_its_runs_without_asking(store: Store) -> None:
    ids = {seed: run(store, "tiny", "kd", seed) for seed in (0, 1)}
    records = [Record(store.results / "tiny" / "runs" / f"tiny-small-kd-{seed}") for seed in (0, 1, 2)]
    records[2].begin("later", spec(2, suite="tiny"), environment())  # not delivered
    experiment = store.experiment("kd/tiny")
    runs, views_ = ui.run_addresses(records)
    assert runs == {f"tiny-small-kd-{s}": views.run_link(BASE, experiment, ids[s]) for s in (0, 1)}
    assert list(views_.values()) == [views.ui_link(BASE, experiment)]
    found = query.suite(store.uri, "tiny", results=store.results)
    assert ui.run_addresses_of_store(found) == (runs, views_)
    assert ui.run_addresses([]) == ({}, {})


def test_a_server_has_pages_of_its_own() -> None:
    runs, _ = ui._addresses({"a": ("http://host:5000", "1", "r")})
    assert runs["a"].startswith("http://host:5000/#/experiments/1/runs/r")


def test_nothing_to_compare(store: Store) -> None:
    run(store, "tiny", "kd", 0)
    run(store, "tiny", "vanilla", 0, status="diverged")
    assert ui.links(store, BASE, "tiny")[0].compare == ""


def test_of_many_suites_the_newest_are_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "N_DETAILED_SUITES", 1)
    for suite in ("b", "c", "a"):
        run(store, suite, "kd", 0)
        time.sleep(0.01)
    rows = ui.links(store, BASE)
    assert [(row.suite, row.runs) for row in rows] == [("a", 1), ("c", 0), ("b", 0)]
    assert all(row.charts for row in rows)


def test_a_suite_or_a_store_without_runs(store: Store, prose: Prose) -> None:
    with pytest.raises(TrackingError, match=r"`kdbench run`") as error:
        ui.links(store, BASE)
    prose(str(error.value))
    run(store, "tiny", "kd", 0)
    with pytest.raises(TrackingError, match=r"'nix' in MLflow; there are tiny$") as error:
        ui.links(store, BASE, "nix")
    prose(str(error.value))


def test_the_view_is_written_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run(store, "tiny", "kd", 0)
    ui.links(store, BASE)
    monkeypatch.setattr(store.client, "set_experiment_tag", lambda *_: pytest.fail("written again"))
    ui.links(store, BASE)


def test_no_secret_stands_in_a_link() -> None:
    for link in (views.ui_link("http://me:hunter2@host", "1"), views.compare_link("http://me:hunter2@host", "1", "a")):
        assert "hunter2" not in unquote(link) and "host/#/" in link


def test_a_port_that_is_taken() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(TrackingError, match=rf"^port {port} .*type --port \d+$"):
            ui.free_port(port)
    ui.free_port(port)


def test_a_server_that_ends_at_once_is_one_line(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        ui.serve_mlflow(store.uri, 1, tmp_path) as server,
        pytest.raises(TrackingError, match="ended before it answered"),
    ):
        ui.wait_for(1, server)
    monkeypatch.setattr(sys, "executable", "/bin/cat")  # cat: -m: invalid option
    with ui.serve_mlflow(store.uri, 1, tmp_path) as server, pytest.raises(TrackingError, match=r"answered: .*cat"):
        ui.wait_for(1, server)


def test_a_server_that_never_answers(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sleeper").write_text("#!/bin/sh\nsleep 60\n")
    (tmp_path / "sleeper").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "sleeper"))
    with (
        ui.serve_mlflow(store.uri, 1, tmp_path) as server,
        pytest.raises(TrackingError, match="did not answer within 0 s"),
    ):
        ui.wait_for(1, server, 0.3)
    assert server.process.returncode == -signal.SIGTERM


def test_no_browser_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(ui.webbrowser, "open", lambda link: not opened.append(link))  # type: ignore[func-returns-value]
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not ui.open_browser(BASE) and opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert ui.open_browser(BASE) and opened == [BASE]


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", "bench", "ui", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=kept, cwd=Path(__file__).parents[2])


def test_no_store_yet_is_one_line(tmp_path: Path) -> None:
    done = cli("--results", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (2, "") and not (tmp_path / "none").exists()
    assert done.stderr.startswith("kdbench: no MLflow store") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_ui_serves_until_it_is_told_to_end(store: Store, tmp_path: Path) -> None:
    run(store, "tiny", "kd", 0)
    run(store, "tiny", "vanilla", 0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bench", "ui", "--results", str(tmp_path), "--port", str(port), "--no-open"]
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=kept, cwd=Path(__file__).parents[2])
    assert server.stdout is not None
    said = [server.stdout.readline() for _ in range(5)]
    assert said[0] == "tiny: 2 runs of 2 methods\n" and said[4].startswith("Ctrl-C")
    assert said[1].split()[-1] == views.ui_link(f"http://127.0.0.1:{port}", store.experiment("kd/tiny"))
    assert ui._answers(port)
    second = cli("--results", str(tmp_path), "--port", str(port))
    assert second.returncode == 2 and f"port {port} of 127.0.0.1 is taken" in second.stderr
    server.send_signal(signal.SIGINT)
    assert server.wait(20) == 0
    assert not ui._answers(port)
    assert not list(tmp_path.glob("mlruns")) and not list(tmp_path.glob("mlartifacts"))
