"""A record as MLflow's words: params, tags, metrics, note. Pure functions; nothing here imports mlflow."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tracking.frame import COLUMNS, describe
from tracking.lines import Lines

TAGS = {name: f"kd.{name}" for name in COLUMNS} | {
    "commit": "kd.git_sha",
    "dirty": "kd.git_dirty",
    "reason": "kd.end_reason",
}
INTEGERS = ("seed", "epochs", "threads", "tuned_trials")
BOOLEANS = ("tuned", "dirty")
SEARCH = ("sampler", "pruner", "objective", "batch", "rule")
PROTOCOL = ("epochs", "batch_size", "lr", "optimizer", "schedule", "weight_decay", "precision")
SETTINGS = ("protocol", "data")  # what the runs of one table must have in common; whole, as tags
MLFLOW_STATUS = {
    "finished": "FINISHED",
    "pruned": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "running": "RUNNING",
}
BEST, STUDY = "best/hp.", "study/"
INFINITE = 1.7976931348623157e308  # what MLflow's SQL store keeps of an infinity

Point = tuple[str, float, int, int]  # name, value, milliseconds, step


class RunDescription(NamedTuple):
    """What a run in MLflow is called and described by."""

    tags: dict[str, str]
    params: dict[str, str]
    name: str
    texts: dict[str, str]  # artifacts that are made for MLflow, by name

    def checksum(self) -> int:
        """Of the texts, which may change while the record stays; 0 without any."""
        return zlib.crc32(json.dumps(self.texts).encode()) if self.texts else 0


def run_description(lines: Lines, kind: str) -> RunDescription:
    return RunDescription(tags(lines, kind), params(lines), run_name(lines.header["spec"]), {})


def params(lines: Lines) -> dict[str, str]:
    """What one filters and groups by, flat. The whole spec goes along as an artifact."""
    spec = lines.header["spec"]
    protocol = spec.get("protocol") or {}
    names = ("method", "label", "recipe", "seed", "teacher", "student", "pair", "dataset", "trial")
    flat = {name: spec.get(name) for name in names}
    flat |= {name: protocol.get(name) for name in PROTOCOL}
    if _is_study(lines):  # no number of trials: it grows, and a param cannot be changed
        flat |= {name: spec["tune"].get(name) for name in SEARCH} | {"search_seed": spec["tune"].get("seed")}
        flat |= {f"space.{name}": text for name, text in spec["space"].items()}
    else:
        flat |= {f"hp.{name}": value for name, value in (spec.get("hp") or {}).items()}
    return {safe_name(name): _text(value) for name, value in flat.items() if value is not None}


def tags(lines: Lines, kind: str) -> dict[str, str]:
    """Every describing column of a run, its identity, and who works on it."""
    row, environment, spec = describe(lines), lines.environment, lines.header["spec"]
    out = {TAGS[name]: _text(value) for name, value in row.items() if value is not None}
    out |= {"kd.kind": kind, "kd.schema": _text(lines.header["schema"]), "kd.record": lines.header["id"]}
    out |= {f"kd.{name}": _text(environment[name]) for name in ("pid", "boot_id") if environment.get(name) is not None}
    named = ("teacher_hash", "study", "trial", "stage")
    out |= {f"kd.{name}": _text(spec[name]) for name in named if spec.get(name) not in (None, "")}
    out |= {f"kd.{name}": _text(spec[name]) for name in SETTINGS if spec.get(name)}
    out["kd.final"] = json.dumps(sorted(lines.end["metrics"]) if lines.end else [])
    out["mlflow.note.content"] = note(row, lines)
    return {name: value[:7900] for name, value in out.items()}


def run_name(spec: Mapping[str, Any]) -> str:
    """What a list of runs shows first."""
    label, seed = spec.get("label"), spec.get("seed")
    if spec.get("kind") == "study":
        return f"{label} {spec.get('pair')}"
    if spec.get("kind") == "trial":
        return f"{label} trial {spec['trial']}" + (f" s{seed}" if spec["stage"] == "confirm" else "")
    return f"{label}/s{seed}"


def note(row: Mapping[str, Any], lines: Lines) -> str:
    """The few lines that the run's page opens with."""
    reason, spec = f": {row['reason']}" if row["reason"] else "", lines.header["spec"]
    trial = f" · trial {spec['trial']} ({spec['stage']})" if spec.get("kind") == "trial" else ""
    done = f"{len(lines.epochs)} trials" if _is_study(lines) else f"{len(lines.epochs)} of {row['epochs']} epochs"
    text = [
        f"**{row['label']}** · {row['pair']} · {row['dataset']} · seed {row['seed']}{trial}",
        f"status {row['status']}{reason}, {done}",
        f"fingerprint `{row['fingerprint']}`, commit `{row['commit']}`{' with local changes' if row['dirty'] else ''}",
        f"{row['hardware']}, torch {row['torch']}, host {row['host']}",
    ]
    final = lines.end["metrics"] if lines.end else {}
    if name := next((name for name in ("test/top1", "validation/top1") if name in final), ""):
        text.insert(2, f"{name} {final[name]:g} ({_best_values(final) if _is_study(lines) else 'last epoch'})")
    return "  \n".join(text)


def _best_values(final: Mapping[str, float]) -> str:
    chosen = [f"{name.removeprefix(BEST)}={value:g}" for name, value in final.items() if name.startswith(BEST)]
    return ", ".join(["best", *chosen, "see tuned.yaml"])


def epoch_points(lines: Lines, start: int) -> list[Point]:
    """Metrics of the epochs after the first `start`, with the record's own times: sent twice, they are stored once."""
    return [point for line in lines.epochs[start:] for point in _points(line["metrics"], line["time"], line["epoch"])]


def final_points(lines: Lines, metrics_there: Mapping[str, float]) -> list[Point]:
    """Final metrics at the step of the last epoch.

    Those of a study that its trials have as well become `study/<name>`: the best or the sum of all trials is no point
    on the curve over trials. A study ends more than once: what MLflow has since an earlier
    end (`metrics_there`) is left out.
    """
    if not lines.end:
        return []
    step = lines.epochs[-1]["epoch"] if lines.epochs else 0
    metrics = lines.end["metrics"]
    if _is_study(lines):
        epoch_metrics = {name for line in lines.epochs for name in line["metrics"]}
        named = {STUDY + name if name in epoch_metrics else name: value for name, value in metrics.items()}
        metrics = {name: value for name, value in named.items() if metrics_there.get(safe_name(name)) != value}
    return list(_points(metrics, lines.end["time"], step))


def row_of(tags: Mapping[str, str], metrics: Mapping[str, float]) -> dict[str, Any]:
    """The inverse of `tags` and `final_points`: a run's row, as `frame` makes it from the record."""
    row: dict[str, Any] = {name: tags.get(tag) for name, tag in TAGS.items()}
    for name in INTEGERS:
        row[name] = int(row[name]) if str(row[name] or "").lstrip("-").isdigit() else None
    for name in BOOLEANS:
        row[name] = {"true": True, "false": False}.get(row[name] or "")
    row["reason"] = row["reason"] or ""
    final = json.loads(tags.get("kd.final") or "[]")
    values = {name: metrics.get(STUDY + safe_name(name), metrics.get(safe_name(name))) for name in final}
    return {name: _unbounded(value) for name, value in values.items() if value is not None} | row


def settings_of(tags: Mapping[str, str], params: Mapping[str, str], profile: str = "") -> dict[str, Any]:
    """Protocol and data of a run, as its spec has them. A run without those tags has a few of the protocol's values as
    params, and its data as the profile of its input."""
    known = {name: _value(params[name]) for name in PROTOCOL if name in params}
    protocol, data = (_value(tags.get(f"kd.{name}", "")) for name in SETTINGS)
    other = _value(profile)
    return {
        "protocol": protocol if isinstance(protocol, dict) else known,
        "data": data if isinstance(data, dict) else other if isinstance(other, dict) else {},
    }


def safe_name(name: str) -> str:
    """A name that MLflow takes: other signs than letters, digits and `_-. :/` become `_`."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII).strip("/")[:250]


def milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _points(metrics: Mapping[str, float], seconds: float, step: int) -> Iterator[Point]:
    for name, value in metrics.items():
        yield safe_name(name), value, milliseconds(seconds), step


def _is_study(lines: Lines) -> bool:
    return bool(lines.header["spec"].get("kind") == "study")


def _unbounded(value: float) -> float:
    return value if abs(value) < INFINITE or value != value else float("inf") * (1 if value > 0 else -1)


def _value(text: str) -> Any:
    """The inverse of `_text`."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
