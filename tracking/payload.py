"""A record as MLflow's words: params, tags, metrics, note. Pure functions; nothing here imports mlflow."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tracking.frame import COLUMNS, describe
from tracking.lines import Lines

TAGS = {name: f"kd.{name}" for name in COLUMNS if name != "hp"} | {
    "commit": "kd.git_sha",
    "dirty": "kd.git_dirty",
    "reason": "kd.end_reason",
}
INTEGERS = ("seed", "epochs", "threads", "tuned_trials")
BOOLEANS = ("tuned", "dirty")
SEARCH = ("sampler", "pruner", "objective", "batch", "rule")
PROTOCOL = ("epochs", "batch_size", "lr", "optimizer", "schedule", "weight_decay", "precision")
SETTINGS = ("protocol", "data")  # what the runs of one table must have in common; once whole, as tags
HP, SPACE, REST = "hp.", "space.", "protocol."  # params: of a method, of a study, of the protocol besides `PROTOCOL`
MLFLOW_STATUS = {
    "finished": "FINISHED",
    "pruned": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "running": "RUNNING",
}
BEST, STUDY = "best/hp.", "study/"  # the latter once stood before a study's final metrics
CURVE, BY_TRIAL = "curve/", "by_trial/"  # curves that must not be taken for final values of the same name
OTHER_NAMES = {"cost/step_ms": "cost/step_own_part_ms"}  # the step time of reports is `cost/step_alone_ms`
CHOSEN = "best"  # tag of the trial that its study chose, and of the study, which names it
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
        flat |= {SPACE + name: text for name, text in spec["space"].items()}
    else:
        flat |= {HP + name: _text(value) for name, value in (spec.get("hp") or {}).items()}
    flat |= {REST + name: _text(value) for name, value in protocol.items() if name not in PROTOCOL}
    return {safe_name(name): _text(value) for name, value in flat.items() if value is not None}


def tags(lines: Lines, kind: str) -> dict[str, str]:
    """Every describing column of a run, its identity, and who works on it."""
    row, environment, spec = describe(lines), lines.environment, lines.header["spec"]
    out = {TAGS[name]: _text(value) for name, value in row.items() if name in TAGS and value is not None}
    out |= {"kd.kind": kind, "kd.schema": _text(lines.header["schema"]), "kd.record": lines.header["id"]}
    out |= {f"kd.{name}": _text(environment[name]) for name in ("pid", "boot_id") if environment.get(name) is not None}
    named = ("teacher_hash", "study", "trial", "stage")
    out |= {f"kd.{name}": _text(spec[name]) for name in named if spec.get(name) not in (None, "")}
    out["kd.final"] = ", ".join(sorted(lines.end["metrics"])) if lines.end else ""
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
    """Metrics of the epochs after the first `start`, with the record's own times: sent twice, they are stored once.

    A test metric of every epoch is `curve/test_<name>`, since `test/<name>` is one value, the last epoch's; what a
    study has of every trial is `by_trial/<name>`.
    """
    curve = _curve_of_study if _is_study(lines) else _curve_of_run
    return [
        point
        for line in lines.epochs[start:]
        for point in _points({curve(name): v for name, v in line["metrics"].items()}, line["time"], line["epoch"])
    ]


def final_points(lines: Lines, metrics_there: Mapping[str, float]) -> list[Point]:
    """Final metrics at the step of the last epoch.

    A study ends more than once: what MLflow has since an earlier end (`metrics_there`) is left out.
    """
    if not lines.end:
        return []
    step = lines.epochs[-1]["epoch"] if lines.epochs else 0
    metrics = lines.end["metrics"]
    if _is_study(lines):
        metrics = {name: value for name, value in metrics.items() if metrics_there.get(stored_name(name)) != value}
    return list(_points(metrics, lines.end["time"], step))


def row_of(tags: Mapping[str, str], metrics: Mapping[str, float], params: Mapping[str, str]) -> dict[str, Any]:
    """The inverse of `tags`, `params` and `final_points`: a run's row, as `frame` makes it from the record; also of
    a run that an older version delivered."""
    row: dict[str, Any] = {name: tags.get(tag) for name, tag in TAGS.items()}
    for name in INTEGERS:
        row[name] = int(row[name]) if str(row[name] or "").lstrip("-").isdigit() else None
    for name in BOOLEANS:
        row[name] = {"true": True, "false": False}.get(row[name] or "")
    row["reason"] = row["reason"] or ""
    hp = {name.removeprefix(HP): _value(text) for name, text in params.items() if name.startswith(HP)}
    row["hp"] = tags.get("kd.hp") or json.dumps(hp, sort_keys=True)
    values = {name: _final_value(name, metrics) for name in _final_names(tags.get("kd.final", ""))}
    return {name: _unbounded(value) for name, value in values.items() if value is not None} | row


def _final_names(text: str) -> list[str]:
    """Which of a run's metrics are final; an older version wrote them as JSON."""
    names = json.loads(text) if text.startswith("[") else text.split(", ")
    return [str(name) for name in names if name]


def _final_value(name: str, metrics: Mapping[str, float]) -> float | None:
    """Under the name that it has, or had in an older version."""
    is_older_study = not any(there.startswith(BY_TRIAL) for there in metrics)
    places = [STUDY + safe_name(name)] * is_older_study + [stored_name(name), safe_name(name)]
    return next((metrics[place] for place in places if place in metrics), None)


def settings_of(tags: Mapping[str, str], params: Mapping[str, str], profile: str = "") -> dict[str, Any]:
    """Protocol and data of a run, as its spec has them: the protocol as params, the data as the profile of its input;
    an older version had both as tags."""
    known = {name: _value(params[name]) for name in PROTOCOL if name in params}
    known |= {name.removeprefix(REST): _value(text) for name, text in params.items() if name.startswith(REST)}
    protocol, data = (_value(tags.get(f"kd.{name}", "")) for name in SETTINGS)
    other = _value(profile)
    return {
        "protocol": protocol if isinstance(protocol, dict) else known,
        "data": data if isinstance(data, dict) else other if isinstance(other, dict) else {},
    }


def has_whole_protocol(tags: Mapping[str, str], params: Mapping[str, str]) -> bool:
    """Whether all of the protocol can be read from a run; the oldest ones have `PROTOCOL` alone."""
    return "kd.protocol" in tags or any(name.startswith(REST) for name in params)


def safe_name(name: str) -> str:
    """A name that MLflow takes: other signs than letters, digits and `_-. :/` become `_`."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII).strip("/")[:250]


def stored_name(name: str) -> str:
    """What MLflow calls a metric of a record."""
    return safe_name(OTHER_NAMES.get(name, name))


def milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _points(metrics: Mapping[str, float], seconds: float, step: int) -> Iterator[Point]:
    for name, value in metrics.items():
        yield stored_name(name), value, milliseconds(seconds), step


def _curve_of_run(name: str) -> str:
    return CURVE + name.replace("/", "_") if name.startswith("test/") else name


def _curve_of_study(name: str) -> str:
    return BY_TRIAL + name.replace("/", "_")


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
