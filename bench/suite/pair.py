"""Who teaches whom: a pair as a suite writes it, with one teacher, several, or a chain of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from bench.errors import UserError
from bench.suite.protocol import Protocol, Strict, digest
from bench.suite.spec import MAX_SEEDS, FileName, MethodSpec, normalise_row
from methods.base import unknown

FIRST_KEYS = ("teacher", "student", "teacher_file")  # of a pair, which every record holds


class InputSpec(Strict):
    """What images a teacher expects, where not the data's own."""

    mean: tuple[float, ...] | None = None  # of a channel, in units of the range 0 to 1
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    size: int | None = Field(None, ge=1, le=4096)  # pixels; the views are scaled to it


class TeacherSource(Strict):
    """A teacher's network, and what it begins with: nothing, a file, or its library's weights."""

    teacher: str
    teacher_file: str | None = None
    teacher_key: str = ""  # where in that file the teacher lies, if several of its states fit
    pretrained: bool = False  # the teacher begins with its library's weights, a new head where the classes are others
    finetune: dict[str, Any] | None = None  # how it is then trained: what changes of the teachers' protocol; {} nothing
    teacher_head: Literal["use", "ignore"] = "use"  # ignore: it knows other classes; its maps alone are looked at
    class_map: str = ""  # a YAML file: of every class of the data, its number among the teacher's
    teacher_input: InputSpec | None = None

    @model_validator(mode="after")
    def _teacher_is_made_one_way(self) -> Self:
        begun = self.pretrained or self.teacher_file
        if self.pretrained and self.teacher_file:
            raise ValueError("pretrained and teacher_file both say what the teacher begins with; leave out one of them")
        for key in ("finetune", "class_map", "teacher_head", "teacher_key"):
            if key in self.set_keys() and not begun:
                raise ValueError(f"{key} is of a teacher that is there; say which: pretrained: true, or teacher_file")
        if self.teacher_head == "ignore" and (self.class_map or self.finetune is not None):
            raise ValueError("teacher_head: ignore leaves no classes to map or to train; leave out one of the two")
        if self.pretrained and self.finetune is None and self.teacher_head == "use" and not self.class_map:
            raise ValueError(
                "a pretrained teacher has no head for these classes; add finetune: {epochs: 10, lr: 0.01}, or"
                " class_map: FILE where they are among its own, or teacher_head: ignore"
            )
        for key in self.finetune or {}:
            if key not in Protocol.model_fields:
                raise unknown("key of finetune", key, Protocol.model_fields)
        return self

    def set_keys(self) -> set[str]:
        """The keys that differ from their defaults."""
        fields = type(self).model_fields
        return {
            key for key, field in fields.items() if getattr(self, key) != field.get_default(call_default_factory=True)
        }

    @property
    def is_ready(self) -> bool:
        """Are the weights that it begins with used as they are?"""
        return bool(self.pretrained or self.teacher_file) and self.finetune is None

    @property
    def checkpoint(self) -> Path:
        """Where the teacher's file lies: `~` and `$NAMES` as a shell reads them."""
        return Path(os.path.expandvars(self.teacher_file or "")).expanduser()


class Pair(TeacherSource):
    """Teacher → student. In YAML: `resnet32x4 -> resnet8x4`, or a mapping that also says where the teacher comes from.

    `teacher: [a, b]` are several at a time, whose softened probabilities are averaged; each may be a mapping.
    `a -> b -> c` is a chain: b learns from a by the method `link`, then c from b; what is said of the teacher holds for
    its first. `generations: 3` repeats the student: a network that is born again learns from itself.
    """

    student: str
    student_file: str = ""  # what the student begins with; a head for other classes is left out of it
    label: FileName = ""  # what the pair is called, where two have the same networks
    ensemble: tuple[TeacherSource, ...] = ()
    ensemble_tau: float = Field(4.0, gt=0)  # at which their probabilities are averaged
    chain: tuple[str, ...] = ()  # the networks before the teacher
    link: Annotated[MethodSpec, BeforeValidator(normalise_row)] = MethodSpec(method="kd")

    @model_validator(mode="after")
    def _several_teachers_fit(self) -> Self:
        if self.ensemble and (extra := self.set_keys() & {*TeacherSource.model_fields} - {"teacher"}):
            raise ValueError(
                f"{min(extra)} is of one teacher; write it in the list: teacher: [{{teacher: a, {min(extra)}: …}}, b]"
            )
        if not self.chain and self.link.method != "kd":
            raise ValueError("link says how a chain's networks learn; write the pair as a -> b -> c")
        if "ensemble_tau" in self.set_keys() and not self.ensemble:
            raise ValueError("ensemble_tau is of several teachers: teacher: [a, b]")
        return self

    @model_serializer(mode="wrap")
    def _later_keys_where_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that came later are written where they are set, so that earlier suites are the same as ever."""
        kept = {*FIRST_KEYS, *self.set_keys()}
        return {key: value for key, value in dump(self).items() if key in kept}

    @property
    def student_checkpoint(self) -> Path:
        return Path(os.path.expandvars(self.student_file)).expanduser()

    @property
    def networks(self) -> str:
        """What methods know the pair by: "resnet56->resnet20"."""
        return f"{self.teacher}->{self.student}"

    @property
    def name(self) -> str:
        return self.label or "->".join([*self.chain, self.networks])

    @property
    def source(self) -> TeacherSource:
        """Where the teacher itself comes from: at the end of a chain from training alone."""
        return TeacherSource(teacher=self.teacher) if self.chain else self.sources[0]

    @property
    def sources(self) -> tuple[TeacherSource, ...]:
        """Of its teachers, or of its chain's first."""
        own = {key: getattr(self, key) for key in TeacherSource.model_fields}
        return self.ensemble or (TeacherSource(**own | {"teacher": self.teachers[0]}),)

    @property
    def teachers(self) -> tuple[str, ...]:
        """The networks that teach somebody."""
        return tuple(one.teacher for one in self.ensemble) or (*self.chain, self.teacher)

    @property
    def is_ready(self) -> bool:
        return not self.chain and all(one.is_ready for one in self.sources)

    @property
    def before(self) -> Pair:
        """The link before: the pair whose student is this one's teacher."""
        return self.model_copy(
            update={
                "chain": self.chain[:-1],
                "teacher": self.chain[-1],
                "student": self.teacher,
                "student_file": "",
                "label": "",
            }
        )

    def members(self) -> list[tuple[Pair, int]]:
        """Each teacher of several as a pair of its own, and what its seed differs by: equal ones are trained apart."""
        out: list[tuple[Pair, int]] = []
        for one in self.ensemble:
            pair = Pair(student=self.student, **{key: getattr(one, key) for key in TeacherSource.model_fields})
            out.append((pair, MAX_SEEDS * sum(other == pair for other, _ in out)))
        return out


def file_checksum(path: Path) -> str:
    """SHA-256 of a checkpoint's file; of one in several files, of theirs."""
    from bench import models

    try:
        sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in models.files(path)]
    except OSError as error:
        raise UserError(f"file {path}: {(error.strerror or 'not readable').lower()}") from None
    return sums[0] if len(sums) == 1 else digest({"files": sums})


def parse_pair(value: object) -> object:
    """A pair as a mapping, whichever way it is written."""
    if isinstance(value, str):
        networks = _split(value)
        if len(networks) < 2 or not all(networks):
            raise ValueError(f"a pair is written 'teacher -> student', got '{value}'")
        return _as_chain({}, networks)
    if not isinstance(value, dict):
        return value
    value = dict(value)
    generations = value.pop("generations", 1)
    if isinstance(generations, bool) or not isinstance(generations, int) or not 1 <= generations <= 100:
        raise ValueError(f"generations is a number from 1 to 100, got {generations!r}")
    teacher, student = value.get("teacher"), value.get("student")
    if isinstance(teacher, list):
        if len(teacher) < 2 or generations > 1:
            raise ValueError("teacher: [a, b] takes two or more teachers, and one generation of students")
        members = [one if isinstance(one, dict) else {"teacher": one} for one in teacher]
        return {**value, "teacher": " + ".join(str(one.get("teacher")) for one in members), "ensemble": members}
    if isinstance(teacher, str) and isinstance(student, str) and "ensemble" not in value:
        return _as_chain(value, [*_split(teacher), *[student] * generations])
    return value


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.replace("→", "->").split("->")]


def _as_chain(rest: dict[str, Any], networks: list[str]) -> dict[str, Any]:
    """The mapping with these networks, first the one that learns from nobody."""
    different = [b for a, b in zip(["", *networks], networks, strict=False) if a != b]
    if again := _first_twice(different):
        raise ValueError(
            f"the chain {' -> '.join(networks)} comes back to '{again}'; name each network once, or in a row"
        )
    *before, teacher, student = networks
    chain = {"chain": tuple(before)} if before else {}
    return {**rest, "teacher": teacher, "student": student, **chain}


def _first_twice(names: Iterable[str]) -> str:
    seen = set[str]()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""
