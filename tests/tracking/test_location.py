from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.prose import Prose
from tracking.location import TrackingError, check_uri, default_uri, mask_secrets, tracking_error


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://gpu01:5000", "http://gpu01:5000"),
        ("http://me:pa55@gpu01:5000", "http://me:***@gpu01:5000"),
        ("http://me:p@55/w:rd@gpu01:5000/x", "http://me:***@gpu01:5000/x"),
        ("https://t0k3n@gpu01", "https://***@gpu01"),
        ("postgresql+psycopg://me:pa55@db/mlflow", "postgresql+psycopg://me:***@db/mlflow"),
        ("postgresql://db/mlflow?user=me&password=pa55&x=1", "postgresql://db/mlflow?user=me&password=***&x=1"),
        ("at http://a:b@c and sqlite:////d/e.db", "at http://a:***@c and sqlite:////d/e.db"),
    ],
)
def test_mask(text: str, shown: str) -> None:
    assert mask_secrets(text) == shown


def test_a_message_does_not_tell_the_password() -> None:
    error = tracking_error("postgresql://me:p%40ss@db/x", RuntimeError('FATAL: no "p@ss" for me\nsecond line'))
    assert "p@ss" not in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "uri", ["mlruns", "file:///tmp/x", "ftp://x/y", "sqlite://", "sqlite:///:memory:", "", "databricks"]
)
def test_wrong_uri_is_answered_with_a_right_one(uri: str, prose: Prose) -> None:
    with pytest.raises(TrackingError, match=r"sqlite:////folder/mlflow\.db") as error:
        check_uri(uri)
    prose(str(error.value))


def test_right_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_uri("sqlite:///a/b.db") == f"sqlite:///{tmp_path.resolve()}/a/b.db"
    assert check_uri("http://h:5000") == "http://h:5000" and check_uri("postgresql+psycopg://u@h/d")
    assert default_uri("results") == f"sqlite:///{tmp_path.resolve()}/results/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://h:5000")
    assert default_uri("results") == "http://h:5000"


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    modules = ["record", "frame", "location", "payload", "deliver", "store", "mirror", "query"]
    heavy = "{'mlflow', 'pandas', 'torch', 'bench'}"
    code = f"import sys, {', '.join(f'tracking.{m}' for m in modules)}; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "set()", done.stderr
