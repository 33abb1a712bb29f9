from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.prose import prose, pytest_addoption, pytest_collection_modifyitems, pytest_pyfunc_call

__all__ = ["prose", "pytest_addoption", "pytest_collection_modifyitems", "pytest_pyfunc_call"]  # pytest finds them here

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"source": "digits", "train": 90, "validation": 60, "test": 100},
    "protocol": {"epochs": 3, "batch_size": 32, "lr": 0.05, "milestones": [2], "test_every_epoch": True},
    "pairs": ["resnet8w8 -> resnet8w4"],
    "methods": ["vanilla", "kd"],
    "seeds": 2,
}


def pytest_configure(config: pytest.Config) -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ["KDBENCH_WORKERS"] = "1"  # many tests replace functions of their own process
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's `make test &` starts deaf to it


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny networks: a second thread costs more than it gives, and the order of sums must not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny() -> dict[str, Any]:
    """A suite that trains in seconds, as plain data to change and validate."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in TINY.items()}


@pytest.fixture
def tiny_file(tmp_path: Path, tiny: dict[str, Any]) -> Path:
    import yaml

    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in tiny.items() if k != "name"}))
    return path
