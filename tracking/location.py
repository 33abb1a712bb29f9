"""Where MLflow is: its URI, checked and shown without secrets; and settings that keep a client quiet."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds without an answer; MLflow's own 120 s and 7 retries block for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
NOISY_LOGGERS = ("alembic", "mlflow.store.db.utils", "urllib3.connectionpool")


class TrackingError(RuntimeError):
    """One line: why MLflow did not take or give something. The local record is not touched by it."""


def default_uri(results: str | os.PathLike[str]) -> str:
    """`MLFLOW_TRACKING_URI` if set, else a SQLite file in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(results).resolve() / 'mlflow.db'}"


def experiment_name(suite: str) -> str:
    """The one MLflow experiment of a suite."""
    return f"kd/{suite}"


def tuning_name(suite: str) -> str:
    """Its twin, which holds the suite's tuning studies and their trials."""
    return f"kd-tune/{suite}"


REPORTS = "kd-report"
"""The experiment of all suites' reports."""


def experiment_of(spec: Mapping[str, Any]) -> str:
    """The experiment of a record, by the spec in its header."""
    if spec.get("kind") == "suite":
        return REPORTS
    return (tuning_name if spec.get("kind") in ("study", "trial") else experiment_name)(spec["suite"])


def check_uri(uri: str) -> str:
    """The URI as it will be used (a SQLite path made absolute), or `TrackingError` that says what to write instead."""
    scheme, colon, rest = uri.partition("://")
    kind = scheme.partition("+")[0].lower()
    if not colon or kind not in SERVERS + DATABASES:
        known = "http://host:5000, sqlite:////folder/mlflow.db or postgresql://user@host/mlflow"
        raise TrackingError(
            f"cannot track to '{mask_secrets(uri)}': write {known} (MLflow no longer writes plain folders)"
        )
    if kind != "sqlite":
        return uri
    if not rest.startswith("/") or rest in ("/", "/:memory:"):
        raise TrackingError(f"cannot track to '{uri}': a file is needed, as in sqlite:////folder/mlflow.db")
    return f"{scheme}:///{Path(rest[1:]).resolve()}"


def sqlite_file(uri: str) -> Path | None:
    """The database file of a SQLite URI, else None."""
    scheme, _, rest = uri.partition("://")
    return Path(rest[1:]) if scheme.partition("+")[0] == "sqlite" else None


def mask_secrets(text: str) -> str:
    """Text with the user names, passwords and tokens of its URLs replaced by `***`."""
    text = re.sub(r"(\b[\w+.-]+://)([^\s/:@]*):\S*@", r"\1\2:***@", text)
    text = re.sub(r"(\b[\w+.-]+://)[^\s/:@]+@", r"\1***@", text)
    return re.sub(r"(?i)((?:password|passwd|token|secret|api_?key)=)[^&\s]+", r"\1***", text)


def tracking_error(uri: str, error: BaseException) -> TrackingError:
    """Any failure at MLflow's border as one line without secrets."""
    text = " ".join(str(error).split()) or type(error).__name__
    try:
        secret = urlsplit(uri).password or ""
    except ValueError:
        secret = ""
    for form in {secret, unquote(secret)} - {""}:
        text = text.replace(form, "***")
    for sign, plain in REASONS.items():
        if re.search(sign, text):
            text = plain
            break
    return TrackingError(f"MLflow at {mask_secrets(uri)}: {mask_secrets(text)[:300]}")


REASONS = {
    r"Connection refused|NewConnectionError": "nobody answers there",
    r"Name or service not known|NameResolutionError|getaddrinfo": "no such host",
    r"[Rr]ead timed out|ConnectTimeout|timed out": "no answer in time",
    r"database is locked": "the database is locked by another process",
    r"Invalid Host header": "the server refuses this host name; start it with --allowed-hosts",
    r"out-of-date database schema": "made by another MLflow version; back the database up, then `mlflow db upgrade`",
}


def set_mlflow_defaults() -> None:
    """Settings that MLflow reads on import; what the user has set stays. Call before any import of mlflow."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    quiet_loggers()


def quiet_loggers() -> None:
    """Failures come back as `TrackingError`; their tracebacks and retries need not be logged as well."""
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
