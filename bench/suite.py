"""A suite: the YAML file that says what is compared, validated, and expanded to runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

import methods
from bench.data.spec import DataSpec
from bench.errors import UserError, unknown
from bench.explain import explain
from bench.protocol import NUMBERS, Protocol, Strict, digest
from bench.seeds import drawing_from
from methods.combine import parse

SUITES = Path(__file__).parent / "suites"


class TeacherSpec(Strict):
    """How the teachers of a suite come about: what their training changes of the protocol, and their seed."""

    seed: int = Field(0, ge=0)
    protocol: dict[str, Any] = {}


class Pair(Strict):
    """Teacher → student. In YAML: `resnet32x4 -> resnet8x4`, or a mapping that also names the teacher's file."""

    teacher: str
    student: str
    teacher_file: str | None = None

    @property
    def name(self) -> str:
        return f"{self.teacher}->{self.student}"


def _pair(value: object) -> object:
    if not isinstance(value, str):
        return value
    teacher, arrow, student = (part.strip() for part in value.replace("→", "->").partition("->"))
    if not (teacher and arrow and student):
        raise ValueError(f"a pair is written 'teacher -> student', got '{value}'")
    return {"teacher": teacher, "student": student}


class MethodSpec(Strict):
    """One row of the comparison: a method, a recipe of it, and hyper-parameters that differ from that recipe.

    In YAML: `dkd`, or `{dkd: {beta: 2.0}}`, or `{method: dkd, label: dkd-b2, recipe: paper, set: {beta: 2.0}}`. A sum
    of methods: `crd + 0.5*kd`, or `{crd + kd: {crd: {tau: 0.1}, kd: {weight: 0.5}}}`.
    """

    method: str
    label: str = ""
    recipe: str = "paper"
    set: dict[str, Any] = {}

    @model_validator(mode="after")
    def _exists(self) -> Self:
        methods.get(self.method).resolve("", self.recipe, self.set)
        return self

    @property
    def title(self) -> str:
        """The row's name: the label, or the method with what differs from its default recipe."""
        if self.label:
            return self.label
        changes = [self.recipe] * (self.recipe != "paper") + [
            f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.set.items()
        ]
        return f"{self.method}({','.join(changes)})" if changes else self.method


def _method(value: object) -> object:
    """Any of the three ways to write a row, as the last of them; a sum's weights go where its settings are."""
    if isinstance(value, str):
        value = {"method": value}
    elif isinstance(value, dict) and len(value) == 1 and "method" not in value:
        name, settings = next(iter(value.items()))
        value = {"method": name, "set": settings}
    if isinstance(value, dict) and isinstance(name := value.get("method"), str) and set(name) & {"+", "*"}:
        name, weights = parse(name)
        settings = value.get("set") or {}
        value = {**value, "method": name, "set": weights | _flat(settings) if isinstance(settings, dict) else settings}
    return value


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """{kd: {tau: 2}} as {kd.tau: 2}."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        out |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return out


def _rows(value: object) -> object:
    """The list of rows, where `all` stands for every method that no other row names as it is."""
    rows = [value] if isinstance(value, str) else value
    if not isinstance(rows, list) or "all" not in rows:
        return rows
    named = {row.get("method") for row in map(_method, rows) if isinstance(row, dict)}
    others = [name for name in methods.names() if name not in named]
    return [row for entry in rows for row in (others if entry == "all" else [entry])]


def _seeds(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"at least one seed is needed, got {value}")
        return list(range(value))
    return value


class Suite(Strict):
    """What is compared with what. Expands to runs; runs that share pair and seed form a cohort."""

    name: str
    about: str = ""
    data: DataSpec
    protocol: Protocol
    teacher: TeacherSpec = TeacherSpec()
    pairs: Annotated[list[Annotated[Pair, BeforeValidator(_pair)]], Field(min_length=1)]
    methods: Annotated[
        list[Annotated[MethodSpec, BeforeValidator(_method)]], BeforeValidator(_rows), Field(min_length=1)
    ]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(_seeds), Field(min_length=1)]

    @field_validator("seeds", "methods", "pairs")
    @classmethod
    def _no_twins(cls, values: list[Any]) -> list[Any]:
        names = [getattr(v, "title", getattr(v, "name", v)) for v in values]
        if twins := {n for n in names if names.count(n) > 1}:
            raise ValueError(f"'{sorted(map(str, twins))[0]}' stands twice")
        return values

    @model_validator(mode="after")
    def _teacher_protocol_fits(self) -> Self:
        self.teacher_protocol()
        return self

    def teacher_protocol(self) -> Protocol:
        """The students' protocol with what the suite changes for teachers."""
        return Protocol.model_validate({**self.protocol.model_dump(), **self.teacher.protocol})


@dataclass(frozen=True)
class Run:
    """One student, one method, one seed, one protocol; the fingerprint is a hash of all that determines its numbers."""

    suite: str
    pair: Pair
    method: str
    label: str
    recipe: str
    hp: dict[str, Any]
    seed: int
    protocol: Protocol
    data: dict[str, Any]
    teacher_fingerprint: str
    fingerprint: str = field(default="")

    @classmethod
    def of(cls, suite: Suite, pair: Pair, method: MethodSpec, seed: int, data: dict[str, Any], teacher: str) -> Run:
        kind = methods.get(method.method)
        hp = kind.resolve(pair.name, method.recipe, method.set)
        parts = {
            "numbers": NUMBERS,
            "data": data,
            "protocol": suite.protocol.model_dump(),
            "pair": pair.name,
            "teacher": teacher,
            "method": method.method,
            "version": kind.version,
            "hp": hp,
            "seed": seed,
        }
        fingerprint = digest(parts)
        return cls(
            suite.name,
            pair,
            method.method,
            method.title,
            method.recipe,
            hp,
            seed,
            suite.protocol,
            data,
            teacher,
            fingerprint,
        )

    def spec(self) -> dict[str, Any]:
        """The flat description that the record keeps."""
        return {
            "suite": self.suite,
            "dataset": self.data["name"],
            "pair": self.pair.name,
            "teacher": self.pair.teacher,
            "student": self.pair.student,
            "method": self.method,
            "label": self.label,
            "recipe": self.recipe,
            "seed": self.seed,
            "hp": self.hp,
            "protocol": self.protocol.model_dump(),
            "data": self.data,
            "teacher_fingerprint": self.teacher_fingerprint,
        }


def available() -> dict[str, Path]:
    """Suites that come with the project, by name."""
    return {path.stem: path for path in sorted(SUITES.glob("*.yaml"))}


def load(
    name: str, *, methods: list[str] | None = None, seeds: str | None = None, sets: list[str] | None = None
) -> Suite:
    """A suite by name or path, narrowed by the command line. Raises `UserError` for whatever is wrong with it."""
    path = available().get(name) or Path(name)
    if not path.is_file():
        raise unknown("suite", name, available())
    try:
        raw = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise UserError(f"{path}{line}: not readable as YAML: {getattr(error, 'problem', None) or error}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a suite is a mapping with data, protocol, pairs, methods and seeds")
    raw = {"name": path.stem, **raw}
    if methods:
        raw["methods"] = _narrowed(raw.get("methods"), methods)
    if seeds is not None:
        raw["seeds"] = _seed_list(seeds)
    for text in sets or []:
        _override(raw, text)
    return validate(raw, str(path))


def validate(raw: dict[str, Any], source: str) -> Suite:
    """A suite from plain data; whatever does not fit becomes one line naming `source`."""
    from bench import models
    from methods.base import Refusal

    try:
        suite = Suite.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, Suite)}") from None
    except Refusal as error:
        raise UserError(f"{source}: {error}") from None
    for network in {name for pair in suite.pairs for name in (pair.teacher, pair.student) if "/" not in name}:
        with drawing_from("name"):  # adapted networks depend on the images' size: they are built with the data
            models.build(network)
    known = {p.student for p in suite.pairs} | set(models.names())
    for network in suite.protocol.lr_of:
        if network not in known:
            raise unknown("network in protocol.lr_of", network, known)
    return suite


def _narrowed(entries: object, wanted: list[str]) -> list[object]:
    """The suite's own entry for each wanted row where it has one (with its overrides), else the bare method."""
    own = {}
    for entry in entries if isinstance(entries, list) else []:
        try:
            own[MethodSpec.model_validate(_method(entry)).title] = entry
        except (ValidationError, methods.base.Refusal):
            continue
    return [own.get(name, name) for name in wanted]


def _seed_list(text: str) -> object:
    """'3' is the seeds 0, 1, 2; '3,' or '4,7' are those very seeds."""
    try:
        return [int(part) for part in text.split(",") if part.strip()] if "," in text else int(text)
    except ValueError:
        raise UserError(f"seeds are a count ('5') or a list ('0,1,7'), got '{text}'") from None


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"an override is written key.key=value, got '{text}'")
    *parents, last = key.split(".")
    place: Any = raw
    for part in parents:
        place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise UserError(f"--set {text}: '{part}' holds no keys")
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {text}: the value is not readable as YAML") from None


def results_folder(results: str | os.PathLike[str] | None) -> Path:
    """The folder that runs are written to, created and known to be writable."""
    folder = Path(results or os.environ.get("KDBENCH_RESULTS") or "results").absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"results folder {folder} is not writable ({error.strerror}); name another with --results"
        ) from None
    return folder
