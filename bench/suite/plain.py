"""YAML from anybody's hand as plain data: texts, finite numbers, lists and mappings of a size that a person writes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import yaml

MOST = 200_000
"""Characters of a text, and values in it, where what an alias stands for counts at every use."""
DEEPEST = 32
WIDEST = 200
"""Keys that a merge (`<<`) may bring into a mapping: merges of merges multiply while they are read."""


class _Loader(yaml.SafeLoader):
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        merging, before = any(key.value == "<<" for key, _ in node.value), len(node.value)
        super().flatten_mapping(node)
        if merging and len(node.value) > before + WIDEST:
            raise yaml.constructor.ConstructorError(None, None, "a merge brings in too many keys", node.start_mark)


def load(text: str) -> Any:
    """What the text says. Raises ValueError, in one line, for what is not YAML or not plain."""
    if len(text) > MOST:
        raise ValueError(f"it has {len(text)} characters, and more than {MOST} are not read")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}: " if where else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
        raise ValueError(f"{line}not readable as YAML: {reason}") from None
    except Exception as error:  # PyYAML lets through whatever its constructors run into
        raise ValueError(f"not readable as YAML ({type(error).__name__})") from None
    check(value)
    return value


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{kd: {tau: 2}} as {kd.tau: 2}."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where two nested mappings differ, as JSON sees them: {'data.pad': (1, None)}. None: absent."""
    old, new = (flat(json.loads(json.dumps(settings, default=str))) for settings in (before, now))
    return {key: (old.get(key), new.get(key)) for key in old | new if old.get(key) != new.get(key)}


def check(value: object) -> None:
    """Raises ValueError where this is not plain data, or too much of it."""
    todo: list[tuple[object, int, str]] = [(value, 0, "")]
    for _ in range(MOST):
        if not todo:
            return
        part, depth, where = todo.pop()
        if depth > DEEPEST:
            break
        if isinstance(part, dict):
            todo += [(inner, depth + 1, f"{where}.{_key(key)}".strip(".")) for key, inner in part.items()]
        elif isinstance(part, list):
            todo += [(inner, depth + 1, where) for inner in part]
        else:
            _check_value(part, where)
    if todo:
        raise ValueError("it nests too deeply or holds too much; what an alias stands for counts at every use")


def _key(key: object) -> str:
    if not isinstance(key, str | int):  # numbers of trials are keys in what tuning writes
        raise ValueError(f"the key {str(key)[:40]!r} is no text; put it in quotes")
    _check_value(key, ascii(key))
    return str(key)


def _check_value(value: object, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"'{where}' is {value}; it takes a finite number")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"'{where}' is a number of {len(str(value))} digits; whole numbers end at 2**63")
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"'{where}' holds half a letter (a surrogate); write the letter itself")
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"'{where}' is a {type(value).__name__}; put it in quotes")
