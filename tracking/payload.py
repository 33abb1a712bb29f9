"""A record as MLflow's words: params, tags, metrics, note. Pure functions; nothing here imports mlflow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tracking.frame import COLUMNS, describe
from tracking.lines import Lines

TAGS = {name: f"kd.{name}" for name in COLUMNS} | {
    "commit": "kd.git_sha",
    "dirty": "kd.git_dirty",
    "reason": "kd.end_reason",
}
INTEGERS = ("seed", "epochs", "threads")
BOOLEANS = ("tuned", "dirty")
PROTOCOL = ("epochs", "batch_size", "lr", "optimizer", "schedule", "weight_decay", "precision")
MLFLOW_STATUS = {
    "finished": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "running": "RUNNING",
}
INFINITE = 1.7976931348623157e308  # what MLflow's SQL store keeps of an infinity

Point = tuple[str, float, int, int]  # name, value, milliseconds, step


def params(lines: Lines) -> dict[str, str]:
    """What one filters and groups by, flat. The whole spec goes along as an artifact."""
    spec = lines.header["spec"]
    protocol = spec.get("protocol") or {}
    flat = {
        name: spec.get(name) for name in ("method", "label", "recipe", "seed", "teacher", "student", "pair", "dataset")
    }
    flat |= {name: protocol.get(name) for name in PROTOCOL}
    flat |= {f"hp.{name}": value for name, value in (spec.get("hp") or {}).items()}
    return {safe(name): _text(value) for name, value in flat.items() if value is not None}


def tags(lines: Lines, kind: str) -> dict[str, str]:
    """Every describing column of a run, its identity, and who works on it."""
    row, environment = describe(lines), lines.environment
    out = {TAGS[name]: _text(value) for name, value in row.items() if value is not None}
    out |= {"kd.kind": kind, "kd.schema": _text(lines.header["schema"]), "kd.record": lines.header["id"]}
    out |= {f"kd.{name}": _text(environment[name]) for name in ("pid", "boot_id") if environment.get(name) is not None}
    if hashed := lines.header["spec"].get("teacher_hash"):
        out["kd.teacher_hash"] = _text(hashed)
    out["kd.final"] = json.dumps(sorted(lines.end["metrics"]) if lines.end else [])
    out["mlflow.note.content"] = note(row, lines)
    return {name: value[:7900] for name, value in out.items()}


def note(row: Mapping[str, Any], lines: Lines) -> str:
    """The few lines that the run's page opens with."""
    reason = f": {row['reason']}" if row["reason"] else ""
    text = [
        f"**{row['label']}** · {row['pair']} · {row['dataset']} · seed {row['seed']}",
        f"status {row['status']}{reason}, {len(lines.epochs)} of {row['epochs']} epochs",
        f"fingerprint `{row['fingerprint']}`, commit `{row['commit']}`{' with local changes' if row['dirty'] else ''}",
        f"{row['hardware']}, torch {row['torch']}, host {row['host']}",
    ]
    if lines.end and "test/top1" in lines.end["metrics"]:
        text.insert(2, f"test/top1 {lines.end['metrics']['test/top1']:g} (last epoch)")
    return "  \n".join(text)


def epoch_points(lines: Lines, start: int) -> list[Point]:
    """Metrics of the epochs after the first `start`, with the record's own times: sent twice, they are stored once."""
    return [point for line in lines.epochs[start:] for point in _points(line["metrics"], line["time"], line["epoch"])]


def final_points(lines: Lines) -> list[Point]:
    """Final metrics at the step of the last epoch."""
    step = lines.epochs[-1]["epoch"] if lines.epochs else 0
    return list(_points(lines.end["metrics"], lines.end["time"], step)) if lines.end else []


def row_of(tags: Mapping[str, str], metrics: Mapping[str, float]) -> dict[str, Any]:
    """The inverse of `tags` and `final_points`: a run's row, as `frame` makes it from the record."""
    row: dict[str, Any] = {name: tags.get(tag) for name, tag in TAGS.items()}
    for name in INTEGERS:
        row[name] = int(row[name]) if str(row[name] or "").lstrip("-").isdigit() else None
    for name in BOOLEANS:
        row[name] = {"true": True, "false": False}.get(row[name] or "")
    row["reason"] = row["reason"] or ""
    values = {name: metrics[safe(name)] for name in json.loads(tags.get("kd.final") or "[]") if safe(name) in metrics}
    return {name: _unbounded(value) for name, value in values.items()} | row


def safe(name: str) -> str:
    """A name that MLflow takes: other signs than letters, digits and `_-. :/` become `_`."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII).strip("/")[:250]


def milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _points(metrics: Mapping[str, float], seconds: float, step: int) -> Iterator[Point]:
    for name, value in metrics.items():
        yield safe(name), value, milliseconds(seconds), step


def _unbounded(value: float) -> float:
    return value if abs(value) < INFINITE or value != value else float("inf") * (1 if value > 0 else -1)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
