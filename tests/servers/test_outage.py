"""The tracking server goes away in every way it can. Records are whole, training goes on, a sync makes all equal."""

from __future__ import annotations

import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.conftest import MlflowServer
from tests.servers.held import holds_exactly
from tests.servers.proxy import DROP, ERROR, HANG, LOSE, PASS, Proxy, waited
from tests.test_cli import call
from tests.tracking.conftest import FINAL, environment, rows, spec
from tracking.deliver import last_delivery
from tracking.location import TrackingError
from tracking.mirror import Mirror, records, sync
from tracking.record import Record
from tracking.store import Store


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[str]:
    """A name that no other test's runs on this server have."""
    yield f"s{abs(hash(tmp_path.name)) % 10**9}-{tmp_path.name[:20]}"


def open_run(results: Path, suite: str, seed: int, epochs: int = 0) -> Record:
    record = Record(results / suite / "runs" / f"f{seed}")
    record.begin(f"f{seed}", spec(seed, suite=suite), environment())
    record.write_epochs(rows(epochs))
    return record


def ended(record: Record, epochs: int = 3) -> Record:
    record.write_epochs(rows(epochs))
    (record.folder / "student.safetensors").write_bytes(bytes(range(256)))
    record.end("finished", "", FINAL, ["student.safetensors"])
    return record


@pytest.mark.parametrize("fault", ["refused", HANG, ERROR, DROP, LOSE])
def test_the_server_goes_away_between_two_epochs_and_comes_back(
    tmp_path: Path, suite: str, proxy: Proxy, fault: str
) -> None:
    with Mirror(lambda: Store(proxy.uri, tmp_path), retry_s=0.2) as mirror:
        record = open_run(tmp_path, suite, 0, epochs=1)
        mirror.offer(record)
        assert waited(lambda: not mirror.pending(), 60)
        proxy.stop() if fault == "refused" else proxy.always(fault)
        record.write_epochs(rows(2))
        mirror.offer(record, every_s=0)
        ended(record)
        mirror.finish(record)
        other = ended(open_run(tmp_path, suite, 1))
        mirror.finish(other)
        assert waited(lambda: any(why not in ("", "waiting") for _, why in mirror.pending()), 60)
        assert mirror.time_waited < 1  # nobody waited for an answer
        proxy.start() if fault == "refused" else proxy.always(PASS)
        assert waited(lambda: not mirror.pending(), 60)
    assert holds_exactly(proxy.uri, tmp_path, suite) > 0
    assert sync(tmp_path, proxy.uri, suite)[:2] == (0, 2)


@pytest.mark.parametrize("fault", [LOSE, pytest.param(DROP, marks=pytest.mark.slow)])
def test_any_one_request_is_lost(tmp_path: Path, suite: str, proxy: Proxy, fault: str) -> None:
    """Every request of a delivery in turn, and the client's own retry of it, before or after the server has acted."""
    store = Store(proxy.uri, tmp_path)
    store.deliver(ended(open_run(tmp_path, suite, 0)))  # the experiment is there
    proxy.requests = 0
    store.deliver(ended(open_run(tmp_path, suite, 1)))
    count = proxy.requests
    assert count > 8
    for lost in range(count):
        for tries in (1, 2):
            proxy.requests = 0
            proxy.rule = lambda number, *_, lost=lost, tries=tries: fault if lost <= number < lost + tries else PASS
            record = ended(open_run(tmp_path, suite, 100 * tries + lost))
            try:
                store.deliver(record)
            except TrackingError:
                assert tries == 2
                proxy.always(PASS)
                store.deliver(record)
    proxy.always(PASS)
    assert holds_exactly(proxy.uri, tmp_path, suite, artifacts=False) > 0


def test_a_server_with_a_mind_of_its_own(tmp_path: Path, suite: str, proxy: Proxy) -> None:
    draw = random.Random(0)
    proxy.rule = lambda *_: draw.choices((PASS, ERROR, DROP, LOSE), (70, 10, 10, 10))[0]
    with Mirror(lambda: Store(proxy.uri, tmp_path), retry_s=0.01) as mirror:
        known = [open_run(tmp_path, suite, seed) for seed in range(6)]
        for epoch in (1, 2, 3):
            for record in known:
                record.write_epochs(rows(epoch))
                mirror.offer(record, every_s=0)
            time.sleep(0.3)
        for record in known:
            ended(record)
            mirror.finish(record)
        time.sleep(1)
        proxy.always(PASS)
    assert sync(tmp_path, proxy.uri, suite).failed == []
    assert holds_exactly(proxy.uri, tmp_path, suite) > 0


def test_an_experiment_whose_creation_was_not_answered(tmp_path: Path, suite: str, proxy: Proxy) -> None:
    proxy.rule = lambda number, method, path: LOSE if path.endswith("experiments/create") else PASS
    store = Store(proxy.uri, tmp_path)
    assert store.deliver(ended(open_run(tmp_path, suite, 0)))
    assert holds_exactly(proxy.uri, tmp_path, suite) > 0


@pytest.fixture
def small(tmp_path: Path, tiny: dict[str, Any], suite: str) -> Callable[..., int]:
    """`kdbench COMMAND` on a suite of seconds with a name of its own."""
    file = tmp_path / f"{suite}.yaml"
    plan = {"trials": 2, "batch": 2, "rule": "best_trial"}
    file.write_text(yaml.safe_dump({k: v for k, v in {**tiny, "seeds": 1, "tune": plan}.items() if k != "name"}))
    return lambda command, results: call(command, str(file), "--results", str(results))


def test_a_suite_trains_beside_a_server_that_hangs(
    tmp_path: Path, suite: str, small: Callable[..., int], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    proxy.always(HANG)
    mirrors: list[Mirror] = []
    monkeypatch.setattr(
        Mirror,
        "__enter__",
        lambda self: mirrors.append(self) or self,  # type: ignore[func-returns-value]
    )
    assert small("run", tmp_path / "r") == 0
    assert all(record.status == "finished" for record in records(tmp_path / "r", suite))
    assert mirrors[0].time_waited < 20 and len(mirrors[0].pending()) == 3  # two runs and the report
    proxy.always(PASS)
    assert call("sync", "--results", str(tmp_path / "r")) == 0
    assert holds_exactly(proxy.uri, tmp_path / "r", suite) > 0


def test_whole_suites_offline_then_synced_from_another_machine(
    tmp_path: Path,
    suite: str,
    small: Callable[..., int],
    mlflow_server: MlflowServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("KDBENCH_OFFLINE", "1")
    assert small("tune", tmp_path / "here") == 0 and small("run", tmp_path / "here") == 0
    assert "(offline)" in capsys.readouterr().out
    made = list(records(tmp_path / "here", suite))
    assert len(made) == 2 + 1 + 2 + 1 and not any(last_delivery(record) for record in made)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    monkeypatch.delenv("KDBENCH_OFFLINE")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    monkeypatch.setattr(socket, "gethostname", lambda: "another-machine")
    for said in ("6 records delivered, 0 were there already", "0 records delivered, 6 were there already"):
        assert call("sync", "--results", str(tmp_path / "there")) == 0
        assert said in capsys.readouterr().out
    assert holds_exactly(mlflow_server.uri, tmp_path / "there", suite) > 0
