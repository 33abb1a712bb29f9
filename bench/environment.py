"""Where a number was made: commit, versions, hardware. No value of the environment's variables is read but our own."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import bench
from bench.errors import UserError
from tracking.location import mask_secrets

PACKAGES = ("torch", "torchvision", "numpy", "mlflow", "optuna", "scikit-learn", "pyarrow", "pillow")


def resolve_device(name: str) -> torch.device:
    """The device of that name; 'auto' is the first GPU where there is one. Raises `UserError` where it is not there."""
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise UserError(f"no device '{name}'; use auto, cpu, cuda or cuda:<number>") from None
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            raise UserError(f"device '{name}' is not on this machine ({count} CUDA devices found); use --device cpu")
        chosen = torch.device("cuda", chosen.index or 0)
        torch.cuda.set_device(chosen)  # whatever is said of "cuda" from here on is of this one
        return chosen
    if chosen.type != "cpu":
        raise UserError(f"device '{name}' is not supported; use auto, cpu or cuda")
    return chosen


def describe(device: torch.device) -> dict[str, Any]:
    """All that a reader needs to judge, or repeat, a number."""
    commit, dirty = _git_state()
    return {
        "kdbench": bench.__version__,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        **{name: _package_version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        **(_cuda_versions() if device.type == "cuda" else {}),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": mask_secrets(" ".join(["kdbench", *sys.argv[1:]])),
    }


def _package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@cache
def _git_state() -> tuple[str, bool]:
    """The commit of the code that runs, and whether it was changed since; outside a checkout, $KDBENCH_COMMIT."""
    root = Path(bench.__file__).parent.parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()) != root.resolve():
            return os.environ.get("KDBENCH_COMMIT", ""), False
        return git("rev-parse", "HEAD").strip(), bool(
            git("status", "--porcelain", "--", "bench", "methods", "tracking").strip()
        )
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("KDBENCH_COMMIT", ""), False


@cache
def _cuda_versions() -> dict[str, str]:
    """Versions of what computes on an NVIDIA GPU; the driver's is empty where nvidia-smi does not say it."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.SubprocessError):
        driver = ""
    return {"cuda": torch.version.cuda or "", "cudnn": str(torch.backends.cudnn.version() or ""), "driver": driver}


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
