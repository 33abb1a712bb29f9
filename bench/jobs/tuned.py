"""Values that a study chose, as YAML under results/tuned: written by a study, read by the bench."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import methods
from bench.errors import UserError, unknown
from bench.jobs.teacher_source import teacher_fingerprint
from bench.suite import plain as from_yaml
from bench.suite.pair import Pair
from bench.suite.plain import changes
from bench.suite.spec import TUNED, MethodSpec
from bench.suite.suite import Suite
from methods.base import Refusal
from tracking.lines import as_plain_json, write_atomically
from tracking.seal import CHECKSUM_PLACEHOLDER, add_checksum, verify_checksum


def tuned_file(results: Path, suite: str, pair: Pair, title: str) -> Path:
    return results / "tuned" / suite / pair.name.replace("->", "__").replace("/", "_") / f"{title}.yaml"


def write_tuned(file: Path, content: Mapping[str, Any]) -> None:
    write_atomically(
        file,
        add_checksum(f"# {CHECKSUM_PLACEHOLDER}\n{yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)}"),
    )


def tuning_conditions(
    suite: Suite, spec: MethodSpec, data_description: Mapping[str, Any], teacher: str
) -> dict[str, Any]:
    """What tuned values hold for: they are refused for anything else."""
    parts = {
        "protocol": suite.protocol.model_dump() | {"test_every_epoch": False},  # it changes no number of a student
        "data": data_description,
        "teacher": teacher,
        "method": spec.method,
        "version": methods.get(spec.method).version,
    }
    return dict(as_plain_json(parts))


def with_tuned_rows(suite: Suite, mode: str) -> Suite:
    """The suite with every row that a study can tune in its tuned form ('only'), or beside it ('both')."""
    if mode not in ("only", "both"):
        raise unknown("way to run tuned rows", mode, ("only", "both"))
    out: list[MethodSpec] = []
    for spec in suite.methods:
        tunable = not spec.tuned and any(knob.tune for knob in methods.get(spec.method).space.values())
        if mode == "both" or not tunable:
            out.append(spec)
        if tunable:
            out.append(MethodSpec(method=spec.method, recipe=TUNED, study=spec.title))
    return suite.model_copy(update={"methods": out})


def resolve_values(
    spec: MethodSpec, suite: Suite, pair: Pair, data_description: Mapping[str, Any], results: Path
) -> tuple[MethodSpec, dict[str, Any]]:
    """A tuned row with its values for this pair, and on what budget they were found; any other row as it is.

    Raises `UserError` where there are none, or where they were found under other conditions.
    """
    if not spec.tuned:
        return spec, {}
    title = spec.study or spec.method
    file = tuned_file(results, suite.name, pair, title)
    try:
        content = from_yaml.load(verify_checksum(file.read_text(encoding="utf-8")))
        values, budget, made_for = dict(content["values"]), dict(content["budget"]), dict(content["made_for"])
        about = {"row": title, "study": content["study"], "trial": content["trial"], "rule": content["rule"], **budget}
    except FileNotFoundError:
        command = f"kdbench tune {suite.name} --methods '{title}'"
        raise UserError(f"no tuned values of {title} on {pair.name} ({file}); find them: {command}") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        command = f"kdbench tune {suite.name} --methods '{title}'"
        raise UserError(f"{file} is not what kdbench tune writes ({reason}); have it written anew: {command}") from None
    fingerprint = teacher_fingerprint(suite, pair, dict(data_description))
    expected = tuning_conditions(suite, spec, data_description, fingerprint)
    if made_for != expected:
        raise UserError(
            f"{file} was tuned with {describe_differences(made_for, expected)}; tune again: kdbench tune {suite.name}"
            f" --methods '{title}' --name <new name>"
        )
    try:
        out = spec.model_copy(update={"set": {**values, **spec.set}, "label": spec.title})
        out.values(pair.networks)
    except Refusal as error:
        raise UserError(f"{file}: {error}") from None
    return out, about


def describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """'protocol.epochs 30, not 20; batch 4, not 8': the first three of what differs."""
    pairs = [(key, *("none" if v is None else v for v in pair)) for key, pair in changes(before, now).items()]
    parts = [f"{key} {old}, not {new}" for key, old, new in pairs]
    return "; ".join(parts[:3]) + (f" (and {len(parts) - 3} more)" if len(parts) > 3 else "")
