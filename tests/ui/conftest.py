"""What is shown of a suite in MLflow, in a real browser. Only `pytest tests/ui -m ui` (make test-ui) runs this."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.report import build
from tests.report import made_up
from tests.tracking.conftest import environment, spec
from tracking import summary
from tracking.frame import frame
from tracking.record import Record
from tracking.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "ui"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
METHODS = ("vanilla", "kd", "dkd", "fitnet", "at", "crd", "rkd", "sp", "vid", "pkt", "ofd", "nkd")  # above ten
PAIRS = ("big->small", "big->tiny")
SEEDS = 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.markexpr != "ui":
        here = Path(__file__).parent
        mine = [item for item in items if here in item.path.parents]
        items[:] = [item for item in items if item not in mine]
        config.hook.pytest_deselected(items=mine)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two suites in a store: `tiny` of one pair, with its report, and `pairs` of two."""
    folder = tmp_path_factory.mktemp("results")
    store = Store(f"sqlite:///{folder}/mlflow.db", folder)
    for suite, pairs in (("tiny", PAIRS[:1]), ("pairs", PAIRS)):
        records = [_run(folder, suite, *which) for which in enumerate(_grid(pairs))]
        for record in records:
            store.deliver(record)
        (folder / suite / "report.md").write_text("# tiny\n\nkd beats vanilla.\n")
        store.deliver(summary.write_record(folder / suite, "kd beats vanilla.", frame(records)))
    return folder


def _grid(pairs: tuple[str, ...]) -> list[tuple[str, str, int]]:
    return [(pair, method, seed) for pair in pairs for method in METHODS for seed in range(SEEDS)]


def _run(folder: Path, suite: str, number: int, which: tuple[str, str, int]) -> Record:
    pair, method, seed = which
    record = Record(folder / suite / "runs" / f"{suite}{number}")
    said = spec(seed, suite=suite, pair=pair, student=pair[5:], method=method, label=method, hp={"tau": number + 1.0})
    record.begin(f"{suite}{number}", said, environment())
    top1 = 60.0 + METHODS.index(method) + seed
    epochs = [{"epoch": e, "time": 1.7e9 + e, "metrics": _curve(top1, e)} for e in (1, 2, 3)]
    record.write_epochs(epochs)
    final = {"test/top1": top1, "test/agreement": top1 + 5, "test/nll": 1 / top1, "cost/step_alone_ms": 3.0 + number}
    record.end("finished", "", final, [])
    return record


def _curve(top1: float, epoch: int) -> dict[str, float]:
    return {"train/loss": 3 - epoch / 2, "validation/top1": top1 - 10 / epoch}


@pytest.fixture(scope="session")
def links(results: Path) -> Iterator[dict[str, str]]:
    """What `kdbench ui` prints, by suite (and pair) and what is shown: 'tiny charts', 'pairs, big->tiny one'."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bench", "ui", "--results", str(results), "--port", str(port), "--no-open"]
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    server = subprocess.Popen(command, cwd=ROOT, env=kept, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found, name = {}, ""
    for line in server.stdout:
        if line.startswith("Ctrl-C"):
            break
        if line.startswith("  "):
            found[f"{name} {line.split()[0].strip(',')}"] = line.split()[-1]
        else:
            name = line.partition(":")[0].strip()
    yield found
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 128 + signal.SIGTERM


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report on disk."""
    folder = tmp_path_factory.mktemp("reported")
    made_up.suite(folder, seeds=3)
    return build.write(folder, "made").html.as_uri()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("playwright is missing: make test-ui installs it")
    named = os.environ.get("KDBENCH_BROWSER")
    path = named or next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no browser: apt-get install chromium, or name a Chromium in KDBENCH_BROWSER")
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    """A fresh profile, as a newcomer has it."""
    context = browser.new_context(viewport={"width": 1700, "height": 1100})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()
