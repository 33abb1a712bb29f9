from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracking.record import Record
from tracking.store import Store

Make = Callable[..., Record]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "KDBENCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def spec(seed: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "suite": "tiny",
        "dataset": "digits",
        "pair": "big->small",
        "teacher": "big",
        "student": "small",
        "method": "kd",
        "label": "KD (τ=4)",
        "recipe": "paper",
        "seed": seed,
        "hp": {"tau": 4.0, "alpha": 0.9, "taps": [1, 2]},
        "protocol": {
            "epochs": 3,
            "batch_size": 64,
            "lr": 0.05,
            "optimizer": "sgd",
            "schedule": "step",
            "momentum": 0.9,
            "milestones": [1, 2],
        },
        "data": {"name": "digits", "fingerprint": "d1g1t5"},
        "teacher_fingerprint": "7eac4e7",
        "teacher_hash": "ab12",
        **changes,
    }


def environment(**changes: Any) -> dict[str, Any]:
    here = {"commit": "c0ffee", "dirty": True, "python": "3.11", "torch": "2.6", "mlflow": "3.10", "kdbench": "0.1"}
    here |= {"platform": "linux", "cpu": "abacus", "threads": 2, "device": "cpu"}
    return here | {"host": os.uname().nodename, "pid": os.getpid(), **changes}


def rows(count: int, metrics: int = 2) -> list[dict[str, Any]]:
    start = 1_700_000_000.125
    return [
        {"epoch": e, "time": start + e, "metrics": {f"train/m{i}": e + i / 7 for i in range(metrics)}}
        for e in range(1, count + 1)
    ]


FINAL = {"test/top1": 0.875, "test/nll": float("nan"), "cost/step_ms": float("inf"), "cost/odd@name": -1.0}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A record under `tmp_path`, with so many epochs, ended or not."""

    def build(seed: int = 0, epochs: int = 3, status: str | None = "finished", reason: str = "") -> Record:
        record = Record(tmp_path / "tiny" / "runs" / f"f{seed}")
        record.begin(f"f{seed}", spec(seed), environment())
        record.write_epochs(rows(epochs))
        if status:
            (record.folder / "student.safetensors").write_bytes(bytes(range(256)))
            (record.folder / "predictions.npz").write_bytes(b"npz")
            record.end(status, reason, FINAL, ["student.safetensors", "predictions.npz"])
        return record

    return build


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables, which take seconds to make."""
    folder = tmp_path_factory.mktemp("template")
    Store(f"sqlite:///{folder}/mlflow.db", folder).ping()
    return folder / "mlflow.db"


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Store:
    copy = sqlite3.connect(tmp_path / "mlflow.db")
    original = sqlite3.connect(template)
    original.backup(copy)
    copy.close()
    original.close()
    return Store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
