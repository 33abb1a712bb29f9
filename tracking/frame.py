"""Records as pandas tables: one row per run, or one row per epoch and metric."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tracking.lines import Lines
from tracking.record import Record

if TYPE_CHECKING:
    import pandas as pd

SPEC = ("suite", "dataset", "pair", "teacher", "student", "method", "label", "recipe")
ENVIRONMENT = (
    "commit",
    "dirty",
    "host",
    "device",
    "cpu",
    "cpu_capability",
    "cuda",
    "cudnn",
    "driver",
    "threads",
    "platform",
    "python",
    "torch",
    "mlflow",
    "kdbench",
)
COLUMNS = (
    *SPEC, "tuned", "tuned_row", "tuned_trials", "seed", "fingerprint", "status", "reason", "hp", "epochs",
    "teacher_fingerprint", "hardware", *ENVIRONMENT,
)  # fmt: skip
"""What describes a run, besides `time` (start, Unix seconds). MLflow keeps the same as tags: see `tracking.payload`."""


def describe(lines: Lines) -> dict[str, Any]:
    """The columns that describe a run; None where the record does not say."""
    header, spec, environment = lines.header, lines.header["spec"], lines.environment
    row: dict[str, Any] = {name: spec.get(name) for name in SPEC}
    study = spec.get("tuned") or {}
    row["tuned"], row["tuned_row"], row["tuned_trials"] = bool(study), study.get("row"), study.get("trials")
    row["seed"] = spec.get("seed")
    row["fingerprint"] = header["fingerprint"]
    row["status"] = lines.end["status"] if lines.end else "running"
    row["reason"] = lines.end["reason"] if lines.end else ""
    row["hp"] = json.dumps(spec.get("hp") or {}, sort_keys=True)
    row["epochs"] = (spec.get("protocol") or {}).get("epochs")
    row["teacher_fingerprint"] = spec.get("teacher_fingerprint")
    row["hardware"] = _hardware(environment)
    return row | {name: environment.get(name) for name in ENVIRONMENT}


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per run: what describes it, and one column per final metric."""
    rows = []
    for record in records:
        lines = record.read()
        metrics = lines.end["metrics"] if lines.end else {}
        rows.append(metrics | describe(lines) | {"time": round(lines.header["time"], 3)})
    return table(rows)


def epochs_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Long format: fingerprint, label, seed, epoch, metric, value."""
    import pandas as pd

    names = ["fingerprint", "label", "seed", "epoch", "metric", "value"]
    rows = []
    for record in records:
        lines = record.read()
        key = (lines.header["fingerprint"], lines.header["spec"].get("label"), lines.header["spec"].get("seed"))
        rows += [(*key, line["epoch"], name, value) for line in lines.epochs for name, value in line["metrics"].items()]
    return pd.DataFrame(rows, columns=names)


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a DataFrame: describing columns first, metrics by name after them; sorted by suite, pair, label, seed."""
    import pandas as pd

    first = [*COLUMNS, "time"]
    metrics = sorted({name for row in rows for name in row} - set(first))
    out = pd.DataFrame(rows, columns=[*first, *metrics])
    return out.sort_values(["suite", "pair", "label", "seed", "fingerprint"], ignore_index=True, kind="stable")


def _hardware(environment: Mapping[str, Any]) -> str | None:
    """What did the arithmetic: the accelerator's name, or the processor's."""
    device = str(environment.get("device") or "cpu")
    named = environment.get("hardware") or environment.get("gpu")
    return named or (environment.get("cpu") if device.startswith("cpu") else device)
