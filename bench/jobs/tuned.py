"""Values that a study chose, as YAML under results/tuned: written by a study, read by the bench."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import methods
from bench.errors import UserError, unknown
from bench.jobs import teacher as teachers
from bench.suite import plain as from_yaml
from bench.suite.spec import TUNED, MethodSpec, Pair, flat
from bench.suite.suite import Suite
from methods.base import Refusal
from tracking.lines import plain, replace
from tracking.seal import MARK, opened, sealed


def file_of(results: Path, suite: str, pair: Pair, title: str) -> Path:
    return results / "tuned" / suite / f"{pair.teacher}__{pair.student}".replace("/", "_") / f"{title}.yaml"


def write(file: Path, content: Mapping[str, Any]) -> None:
    replace(file, sealed(f"# {MARK}\n{yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)}"))


def conditions(suite: Suite, spec: MethodSpec, described: Mapping[str, Any], teacher: str) -> dict[str, Any]:
    """What tuned values hold for: they are refused for anything else."""
    parts = {
        "protocol": suite.protocol.model_dump() | {"test_every_epoch": False},  # it changes no number of a student
        "data": described,
        "teacher": teacher,
        "method": spec.method,
        "version": methods.get(spec.method).version,
    }
    return dict(plain(parts))


def rows(suite: Suite, how: str) -> Suite:
    """The suite with every row that a study can tune in its tuned form ('only'), or beside it ('both')."""
    if how not in ("only", "both"):
        raise unknown("way to run tuned rows", how, ("only", "both"))
    out: list[MethodSpec] = []
    for spec in suite.methods:
        tunable = not spec.tuned and any(knob.tune for knob in methods.get(spec.method).space.values())
        if how == "both" or not tunable:
            out.append(spec)
        if tunable:
            out.append(MethodSpec(method=spec.method, recipe=TUNED, study=spec.title))
    return suite.model_copy(update={"methods": out})


def resolved(
    spec: MethodSpec, suite: Suite, pair: Pair, described: Mapping[str, Any], results: Path
) -> tuple[MethodSpec, dict[str, Any]]:
    """A tuned row with its values for this pair, and on what budget they were found; any other row as it is.

    Raises `UserError` where there are none, or where they were found under other conditions.
    """
    if not spec.tuned:
        return spec, {}
    title = spec.study or spec.method
    file = file_of(results, suite.name, pair, title)
    try:
        content = from_yaml.load(opened(file.read_text(encoding="utf-8")))
        values, budget, made_for = dict(content["values"]), dict(content["budget"]), dict(content["made_for"])
        about = {"row": title, "study": content["study"], "trial": content["trial"], "rule": content["rule"], **budget}
    except FileNotFoundError:
        again = f"kdbench tune {suite.name} --methods '{title}'"
        raise UserError(f"no tuned values of {title} on {pair.name} ({file}); find them: {again}") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        again = f"kdbench tune {suite.name} --methods '{title}'"
        raise UserError(f"{file} is not what kdbench tune writes ({reason}); have it written anew: {again}") from None
    mark = teachers.fingerprint(pair, dict(described), suite.teacher_protocol(pair), suite.teacher.seed)
    wanted = conditions(suite, spec, described, mark)
    if made_for != wanted:
        raise UserError(
            f"{file} was tuned with {differences(made_for, wanted)}; tune again: kdbench tune {suite.name}"
            f" --methods '{title}' --name <new name>"
        )
    try:
        out = spec.model_copy(update={"set": {**values, **spec.set}, "label": spec.title})
        out.values(pair.name)
    except Refusal as error:
        raise UserError(f"{file}: {error}") from None
    return out, about


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """'protocol.epochs 30, not 20; batch 4, not 8': the first three of what differs."""
    old, new = flat(before), flat(now)
    parts = [f"{k} {old.get(k, 'none')}, not {new.get(k, 'none')}" for k in old | new if old.get(k) != new.get(k)]
    return "; ".join(parts[:3]) + (f" (and {len(parts) - 3} more)" if len(parts) > 3 else "")
