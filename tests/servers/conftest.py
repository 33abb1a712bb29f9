"""Real servers on 127.0.0.1: MLflow's on a database, PostgreSQL where it is installed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.servers.proxy import Proxy, waited
from tests.tracking.conftest import make  # noqa: F401
from tracking.location import SETTINGS


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "KDBENCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MlflowServer:
    """`mlflow server` with one worker; `stop` and `start` are a restart on the same port."""

    def __init__(self, backend: str, folder: Path, *options: str, **environment: str) -> None:
        self.port, self.folder, self.options = free_port(), folder, options
        self.environment = {**SETTINGS, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment}
        self.environment["MLFLOW_BACKEND_STORE_URI"] = backend
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", *self.options]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *command],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        assert waited(self.answers, 120), (self.folder / "server.log").read_text()[-3000:]

    def answers(self) -> bool:
        try:
            with urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
            return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        os.killpg(self.process.pid, number)
        self.process.wait(30)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp("mlflow")
    server = MlflowServer(f"sqlite:///{folder}/mlflow.db", folder)
    yield server
    server.stop(signal.SIGKILL)


@pytest.fixture
def proxy(mlflow_server: MlflowServer) -> Iterator[Proxy]:
    """In front of a server that has seen nothing of this test's suite."""
    between = Proxy(mlflow_server.port)
    yield between
    between.stop()
