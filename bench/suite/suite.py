"""A suite: the YAML file that says what is compared, validated, and expanded to runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

import methods
from bench.data.spec import DataSpec
from bench.errors import UserError, notice, unknown
from bench.seeds import fork_rng
from bench.suite import plain
from bench.suite.explain import explain
from bench.suite.pair import Pair, file_checksum, parse_pair
from bench.suite.protocol import Protocol, Strict, digest
from bench.suite.spec import (
    FileName,
    MethodSpec,
    Seed,
    SplitSpec,
    TeacherSpec,
    TuneSpec,
    UntilSpec,
    expand_rows,
    expand_seeds,
    normalise_row,
)

SUITES = Path(__file__).parent.parent / "suites"


class Suite(Strict):
    """What is compared with what. Expands to runs; runs that share pair and seed form a cohort."""

    name: Annotated[FileName, Field(min_length=1)]
    about: str = ""
    data: DataSpec
    protocol: Protocol
    teacher: TeacherSpec = TeacherSpec()
    split: SplitSpec = SplitSpec()
    tune: TuneSpec = TuneSpec()
    pairs: Annotated[list[Annotated[Pair, BeforeValidator(parse_pair)]], Field(min_length=1)]
    methods: Annotated[
        list[Annotated[MethodSpec, BeforeValidator(normalise_row)]], BeforeValidator(expand_rows), Field(min_length=1)
    ]
    seeds: Annotated[list[Seed], BeforeValidator(expand_seeds), Field(min_length=1)]
    until: UntilSpec | None = None  # where `seeds` says it; `seeds` are then those that it may take

    @model_validator(mode="before")
    @classmethod
    def _seeds_until_decided(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or not isinstance(raw.get("seeds"), dict):
            if isinstance(raw, dict) and raw.get("until") is not None:
                raise ValueError("'until' stands within seeds: write seeds: {until: decided}")
            return raw
        try:
            until = UntilSpec.model_validate(raw["seeds"])
        except ValidationError as error:
            raise ValueError(f"seeds: {explain(error, UntilSpec)}") from None
        return {**raw, "seeds": until.most, "until": until}

    @field_validator("seeds", "methods", "pairs")
    @classmethod
    def _no_duplicates(cls, values: list[Any]) -> list[Any]:
        names = [getattr(v, "title", getattr(v, "name", v)) for v in values]
        if duplicates := {n for n in names if names.count(n) > 1}:
            raise ValueError(f"'{sorted(map(str, duplicates))[0]}' stands twice")
        return values

    @model_validator(mode="after")
    def _teacher_protocol_fits(self) -> Self:
        for pair in (None, *self.pairs, *(member for one in self.pairs for member, _ in one.members())):
            self.teacher_protocol(pair)
        return self

    @model_validator(mode="after")
    def _teachers_can_differ(self) -> Self:
        if self.split.each == "seed" and self.teacher.each != "seed":
            raise ValueError("split: {each: seed} takes a teacher trained on each split; add teacher: {each: seed}")
        if self.teacher.each == "seed" and (
            files := [
                s.teacher_file or s.teacher for p in self.pairs for s in p.sources if s.teacher_file or s.is_ready
            ]
        ):
            raise ValueError(
                f"teacher: {{each: seed}} trains a teacher for every seed, and {files[0]} is one; write teacher:"
                " {each: suite}, or leave teacher_file out"
            )
        return self

    def by_teacher(self) -> list[Suite]:
        """The suite in parts whose students share a teacher and a split: itself, or a suite per seed, which names that
        seed's own teacher and split as a suite with one teacher would."""
        return [self] if self.teacher.each == "suite" else [self._of_seed(seed) for seed in self.seeds]

    def _of_seed(self, seed: int) -> Suite:
        own = {"seed": self.teacher.seed + seed, "each": "suite"}
        changes: dict[str, Any] = {"seeds": [seed], "teacher": self.teacher.model_copy(update=own)}
        if self.split.each == "seed":
            changes["data"] = self.data.model_copy(update={"split_seed": self.data.split_seed + seed})
        return self.model_copy(update=changes | {"split": SplitSpec()})

    def teacher_protocol(self, pair: Pair | None = None) -> Protocol:
        """The students' protocol with what the suite changes for teachers, who never look at the test split, and the
        pair to train its own further."""
        set_for_teacher = {
            key: value for key, value in self.teacher.protocol.items() if (key, value) != ("precision", "auto")
        }
        changes = {**set_for_teacher, **((pair and pair.source.finetune) or {}), "test_every_epoch": False}
        return Protocol.model_validate({**self.protocol.model_dump(), **changes})


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
    tuned: dict[str, Any] = field(default_factory=dict)  # where its values come from, if from a study

    @classmethod
    def of(
        cls,
        suite: Suite,
        pair: Pair,
        method: MethodSpec,
        seed: int,
        data: dict[str, Any],
        teacher: str,
        tuned: dict[str, Any] | None = None,
    ) -> Run:
        from bench import models

        kind = methods.get(method.method)
        hp = method.values(pair.networks)
        code = {name: made for name in (*pair.teachers, pair.student) if (made := models.version(name))}
        parts = {
            "numbers": suite.protocol.numbers,
            "data": data,
            "protocol": suite.protocol.model_dump(),
            "pair": pair.name,
            "teacher": teacher,
            "method": method.method,
            "version": kind.version,
            "hp": hp,
            "seed": seed,
            **({"networks": code} if code else {}),  # of networks of one's own
            **({"student_file": file_checksum(pair.student_checkpoint)} if pair.student_file else {}),
            **({"tuned": True} if tuned else {}),  # a row of its own, even where a study found the recipe best
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
            tuned or {},
        )

    @classmethod
    def of_rows(
        cls,
        suite: Suite,
        pair: Pair,
        rows: Iterable[tuple[MethodSpec, dict[str, Any]]],
        seed: int,
        data: dict[str, Any],
        teacher: str,
    ) -> list[Run]:
        """The cohort of a pair and seed. rows: the methods, each with the source of its tuned values ({}: none)."""
        return [cls.of(suite, pair, method, seed, data, teacher, source) for method, source in rows]

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
            **({"tuned": self.tuned} if self.tuned else {}),
        }


def built_in_suites() -> dict[str, Path]:
    """Suites that come with the project, by name."""
    return {path.stem: path for path in sorted(SUITES.glob("*.yaml"))}


def load(
    name: str, *, methods: list[str] | None = None, seeds: str | None = None, sets: list[str] | None = None
) -> Suite:
    """A suite by name or path, narrowed by the command line. Raises `UserError` for whatever is wrong with it."""
    path = built_in_suites().get(name) or Path(name)
    try:
        if not path.is_file():
            raise unknown("suite", name, built_in_suites())
        raw = plain.load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path}: not readable as YAML: it is no text in UTF-8") from None
    except OSError as error:
        raise UserError(f"{str(path)[:200]}: {error.strerror}") from None
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a suite is a mapping with data, protocol, pairs, methods and seeds")
    raw = {"name": path.stem, **raw}
    if methods:
        raw["methods"] = _select_rows(raw.get("methods"), methods)
    if seeds is not None:
        if isinstance(raw.get("seeds"), dict):
            notice(f"--seeds {seeds} fixes the seeds: no others are added until all is decided, as {path.name} says")
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
    for network in {name for pair in suite.pairs for name in (*pair.teachers, pair.student)}:
        if models.is_known_without_data(network):  # the others are built with the data
            with fork_rng("name"):
                models.build(network)
        if network in models.IMAGENET:
            notice(f"{network} is CIFAR's narrow network of 6n+2 layers; ImageNet's is torchvision/{network}")
    known = {p.student for p in suite.pairs} | set(models.names())
    for network in suite.protocol.lr_of:
        if network not in known:
            raise unknown("network in protocol.lr_of", network, known)
    return suite


def _select_rows(entries: object, names: list[str]) -> list[object]:
    """The suite's own entry for each wanted row where it has one (with its overrides), else the bare method."""
    own = {}
    for entry in entries if isinstance(entries, list) else []:
        try:
            own[MethodSpec.model_validate(normalise_row(entry)).title] = entry
        except (ValidationError, methods.base.Refusal):
            continue
    return [own.get(name, name) for name in names]


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
    mapping: Any = raw
    for part in parents:
        mapping = mapping.setdefault(part, {}) if isinstance(mapping, dict) else None
        if not isinstance(mapping, dict):
            raise UserError(f"--set {text}: '{part}' holds no keys")
    try:
        mapping[last] = plain.load(value)
    except ValueError as error:
        raise UserError(f"--set {text[:80]}: {error}") from None


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
