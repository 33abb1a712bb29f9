"""deploy/compose.yaml: what must be true of it without Docker, and its MLflow and PostgreSQL as they would run."""

from __future__ import annotations

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.conftest import MlflowServer, Postgres
from tests.servers.held import holds_exactly
from tests.tracking.conftest import Make
from tracking.location import TrackingError
from tracking.mirror import sync
from tracking.store import Store

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE = dict(re.findall(r"^#?([A-Z0-9_]+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
SECRETS = {name: f"{name.lower()}0secret" for name, value in EXAMPLE.items() if not value}


def compose(**environment: str) -> dict[str, Any]:
    """The file as Compose reads it with these variables: `$NAME`, `${NAME:-default}`, `${NAME:?refusal}`."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if name in environment:
            return environment[name]
        if kind == ":?":
            raise KeyError(f"{name}: {rest}")
        return str(rest or "")

    text = re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", value, (DEPLOY / "compose.yaml").read_text())
    return dict(yaml.safe_load(text))


def test_every_secret_is_asked_for_and_none_is_in_the_files() -> None:
    assert SECRETS and not any(EXAMPLE[name] for name in SECRETS)
    for name in SECRETS:
        with pytest.raises(KeyError, match=r"fill in deploy/\.env"):
            compose(**{other: value for other, value in SECRETS.items() if other != name})
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    assert used - set(EXAMPLE) <= {"POSTGRES_PORT", "MLFLOW_PORT"} and set(EXAMPLE) <= used
    text = (DEPLOY / "compose.yaml").read_text()
    assert not re.search(r"(?i)(password|secret_?key)\"?[:=] *(?!\$|\"\$)[\"']?\w", text)
    ignored = (DEPLOY.parent / ".gitignore").read_text().split()
    assert ".env" in ignored


def test_nothing_is_published_beyond_this_machine_unless_told() -> None:
    published = {n: s.get("ports", []) for n, s in compose(**SECRETS)["services"].items()}
    assert published == {
        "postgres": ["127.0.0.1:5432:5432"],
        "mlflow": ["127.0.0.1:5000:5000"],
        "s3": [],
        "bucket": [],
    }
    told = compose(**SECRETS, MLFLOW_BIND="10.0.0.5")["services"]
    assert told["mlflow"]["ports"] == ["10.0.0.5:5000:5000"] and told["postgres"]["ports"] == ["127.0.0.1:5432:5432"]


def test_services_fit_together() -> None:
    whole = compose(**SECRETS)
    services, mlflow = whole["services"], whole["services"]["mlflow"]
    assert all(config["source"] in whole["configs"] for s in services.values() for config in s.get("configs", []))
    assert all(v.split(":")[0] in whole["volumes"] for s in services.values() for v in s.get("volumes", []))
    assert all(needed in services for s in services.values() for needed in s.get("depends_on", []))
    assert all(":" in s["image"] for s in services.values() if "build" not in s)  # a version is pinned
    assert not any("network_mode" in s or s.get("privileged") for s in services.values())
    assert "--app-name=basic-auth" in mlflow["command"]
    assert mlflow["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"] == "localhost:*,127.0.0.1:*"
    (identity,) = yaml.safe_load(whole["configs"]["s3"]["content"])["identities"]  # JSON is YAML
    assert identity["credentials"] == [
        {"accessKey": mlflow["environment"]["AWS_ACCESS_KEY_ID"], "secretKey": SECRETS["S3_SECRET_KEY"]}
    ]
    assert services["bucket"]["environment"].items() <= mlflow["environment"].items()


@pytest.mark.slow
def test_its_servers_with_accounts(
    make: Make, tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database script, then MLflow by the file's own command and settings; artifacts in a folder instead of S3."""
    if find_spec("flask_wtf") is None:
        pytest.skip("mlflow's extra 'auth' is missing: make test-servers installs it")
    whole = compose(**SECRETS)
    mlflow, configs = whole["services"]["mlflow"], whole["configs"]
    postgres.database("mlflow")
    postgres.sql("CREATE ROLE mlflow SUPERUSER LOGIN; " + configs["databases"]["content"])
    place = f"127.0.0.1:{postgres.port}"
    (tmp_path / "auth.ini").write_text(configs["auth"]["content"].replace("@postgres/", f"@{place}/"))
    kept = {n: v for n, v in mlflow["environment"].items() if not n.startswith(("AWS_", "MLFLOW_S3"))}
    kept["MLFLOW_AUTH_CONFIG_PATH"] = str(tmp_path / "auth.ini")
    backend = kept.pop("MLFLOW_BACKEND_STORE_URI").replace("@postgres/", f"@{place}/")
    server = MlflowServer(backend, tmp_path, "--app-name=basic-auth", "--artifacts-destination", str(tmp_path), **kept)
    try:
        record = make()
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        with pytest.raises(TrackingError, match=r"^MLflow at .*(not authenticated|401)") as refused:
            sync(tmp_path, server.uri)
        assert "wrong" not in str(refused.value)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRETS["MLFLOW_ADMIN_PASSWORD"])
        from mlflow.server import get_app_client

        get_app_client("basic-auth", server.uri).create_user("ada", "a-long-password")
        Store(server.uri, tmp_path).experiment("kd/tiny")  # somebody else's
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-long-password")
        assert sync(tmp_path, server.uri) == (1, 0, [])
        assert holds_exactly(server.uri, tmp_path) > 0
        assert "a-long-password" not in (record.folder / "mlflow.json").read_text()
        by_name = subprocess.run(
            ["curl", "-s", "-o", "-", "-H", "Host: tracker:5000", f"{server.uri}/api/2.0/mlflow/experiments/search"],
            capture_output=True,
            text=True,
        )
        assert "Invalid Host header" in by_name.stdout
    finally:
        server.stop()
