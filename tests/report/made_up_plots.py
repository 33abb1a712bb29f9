"""Suites with records, learning curves and predictions, small enough to draw in a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.report import distance, published
from tests.report.made_up import ENVIRONMENT, GAINS, costs
from tests.report.made_up import run as row
from tracking.frame import frame
from tracking.record import Record, scan

IMAGES = 400
CRD: dict[str, Any] = {
    "epochs": 240, "batch_size": 64, "optimizer": "sgd", "lr": 0.05, "lr_of": {}, "momentum": 0.9, "nesterov": False,
    "weight_decay": 0.0005, "schedule": "step", "milestones": [150, 180, 210], "gamma": 0.1, "warmup_epochs": 0,
    "precision": "float32",
}  # fmt: skip
CIFAR = {"name": "CIFAR100", "train": 45_000, "validation": 5_000, "test": 10_000}


def suite(
    root: Path,
    gains: Mapping[str, float] = GAINS,
    pairs: Sequence[str] = ("resnet32x4->resnet8x4",),
    seeds: int = 2,
    epochs: int = 12,
    predictions: bool = True,
    protocol: Mapping[str, Any] = CRD,
) -> tuple[pd.DataFrame, list[Record]]:
    """A CIFAR-100 suite's frame and records; top-1, agreement and calibration agree with the predictions."""
    draw = np.random.default_rng(3)
    label = draw.integers(0, 100, IMAGES).astype(np.uint16)
    teacher = np.where(draw.random(IMAGES) < 0.8, label, (label + 1) % 100).astype(np.uint16)
    for p, pair in enumerate(pairs):
        for i, (name, gain) in enumerate(gains.items()):
            for seed in range(seeds):
                level = 0.70 + (gain + 0.3 * seed + p + 0.3 * draw.normal()) / 100
                right = draw.random(IMAGES) < level
                wrong = np.where(draw.random(IMAGES) < 0.5, (label + 1) % 100, (label + 2) % 100)
                guess = np.where(right, label, wrong).astype(np.uint16)
                confidence = np.where(right, draw.beta(5, 1, IMAGES), draw.beta(2, 2, IMAGES)).astype(np.float32)
                said = {"label": label, "guess": guess, "confidence": confidence, "teacher_guess": teacher}
                record = run(root, f"{p:08x}{i:04x}{seed:04x}", name, seed, pair, protocol)
                curve = level * 100 * (1 - np.exp(-np.arange(1, epochs + 1) / 3))
                record.write_epochs(_epoch(k, value) for k, value in enumerate(curve, 1))
                if predictions:
                    np.savez_compressed(record.folder / "predictions.npz", **said)  # type: ignore[arg-type]
                top1, best = 100 * float((guess == label).mean()), "test/top1_best_epoch_on_test"
                metrics = costs(i) | {"test/top1": top1, "test/agreement": 100 * float((guess == teacher).mean())}
                record.end("finished", "", metrics | {best: top1 + 0.5, "test/teacher_top1": 80.0}, [])
    records = scan(root)
    return frame(records), records


def run(root: Path, fingerprint: str, label: str, seed: int, pair: str, protocol: Mapping[str, Any] = CRD) -> Record:
    """A begun record."""
    teacher, student = pair.split("->")
    spec: dict[str, Any] = {"suite": "made", "dataset": "CIFAR100", "pair": pair, "teacher": teacher, "seed": seed}
    spec |= {"student": student, "method": label.split("(")[0], "label": label, "recipe": "paper", "hp": {}}
    record = Record(root / "runs" / fingerprint)
    record.begin(fingerprint, spec | {"protocol": protocol, "data": CIFAR}, ENVIRONMENT)
    return record


def _epoch(number: int, top1: float) -> dict[str, Any]:
    return {"epoch": number, "time": float(number), "metrics": {"validation/top1": float(top1), "train/loss": 1.0}}


def rows_of(tops: Mapping[str, Sequence[float]], extra: Mapping[str, dict[str, float]] | None = None) -> pd.DataFrame:
    """A frame with one row per label and seed, of these top-1 (%); `extra` are more metrics by label."""
    each = [(label, seed, top1) for label, values in tops.items() for seed, top1 in enumerate(values)]
    return pd.DataFrame([row(label, seed, top1) | (extra or {}).get(label, {}) for label, seed, top1 in each])


def near(runs: pd.DataFrame, records: Sequence[Record]) -> pd.DataFrame:
    """What is published beside these runs, as the report reads it."""
    spec = records[0].header["spec"] if records else {}
    return distance.beside(runs, published.read(), spec.get("protocol") or {}, spec.get("data") or {})
