"""Frames and records as a suite would leave them, with made-up numbers from a named draw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tracking.record import Record

GAINS = {"vanilla": 0.0, "kd": 1.2, "dkd": 1.5, "fitnet": -0.4, "crd": 0.9, "block_kd": 1.9}
ENVIRONMENT = {
    "commit": "0123456789abcdef0123",
    "dirty": False,
    "torch": "2.6.0",
    "device": "cpu",
    "cpu": "A processor",
    "threads": 2,
}


def frame(
    gains: Mapping[str, float] = GAINS, seeds: int = 5, pair: str = "big->small", noise: float = 0.4
) -> pd.DataFrame:
    """One row per label and seed; a seed moves all labels alike, as a shared cohort does."""
    draw = np.random.default_rng(7)
    shared = draw.normal(0, 1, seeds)
    rows = []
    for i, (label, gain) in enumerate(gains.items()):
        for seed in range(seeds):
            top1 = round(86.5 + shared[seed] + gain + noise * draw.normal(), 2)
            rows.append(run(label, seed, top1, pair) | costs(i))
    return pd.DataFrame(rows)


def run(
    label: str, seed: int, top1: float, pair: str = "big->small", status: str = "finished", reason: str = ""
) -> dict[str, Any]:
    teacher, student = pair.split("->")
    spec = {"suite": "made", "dataset": "digits", "pair": pair, "teacher": teacher, "student": student}
    row = {"method": label.split("(")[0], "label": label, "recipe": "paper", "seed": seed, "hp": "{}"}
    ended = {"fingerprint": f"{pair}/{label}/{seed}", "status": status, "reason": reason, "test/top1": top1}
    return spec | row | ended | ENVIRONMENT


def costs(i: int) -> dict[str, float]:
    return {
        "test/agreement": 90.0 + i,
        "test/nll": 0.5 - 0.01 * i,
        "test/ece": 4.0 + 0.1 * i,
        "test/teacher_top1": 93.4,
        "cost/step_alone_ms": 10.0 * (1 + 0.5 * i),
        "cost/extra_params": 1000.0 * i,
        "cost/images_seen": 12000.0 * (1 + (i == 4)),
        "test/top1_best_epoch_on_validation": 86.0 + i,
        "test/top1_best_epoch_on_test": 90.0 + i,
    }


def suite(root: Path, gains: Mapping[str, float] = GAINS, seeds: int = 2, ended: int = 100) -> dict[str, Any]:
    """A suite's folder as a call of `run` leaves it, `ended` of its runs with an end; returns the manifest."""
    protocol = {"epochs": 3, "batch_size": 32, "lr": 0.05, "milestones": [2]}
    data = {"name": "digits", "n_train": 90, "n_validation": 60, "n_test": 100}
    names = []
    for i, row in enumerate(frame(gains, seeds).to_dict("records")):
        name = f"{i:016x}"
        names.append(name)
        keys = ("suite", "dataset", "pair", "teacher", "student", "method", "label", "recipe", "seed")
        spec = {key: row[key] for key in keys} | {"hp": {"tau": 4.0}, "protocol": protocol, "data": data}
        record = Record(root / "made" / "runs" / name)
        record.begin(name, spec | {"teacher_fingerprint": "t"}, ENVIRONMENT)
        metrics = {str(key): value for key, value in row.items() if "/" in str(key)}
        if i < ended:
            record.end("finished", "", metrics, [])
    manifest = {
        "suite": {"name": "made", "about": "Made up", "data": {"source": "digits"}, "protocol": protocol},
        "fingerprints": names,
        "teacher_top1": {"big": 93.4},
    }
    (root / "made" / "suite.json").write_text(json.dumps(manifest))
    return manifest
