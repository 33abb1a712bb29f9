"""What a suite's YAML says, part by part: teacher, pairs, rows of the comparison, seeds, and how it is tuned."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

import methods
from bench.suite.plain import flatten
from bench.suite.protocol import Strict
from methods.base import Choice, Float, Int, Knob, Refusal, Value, unknown
from methods.combine import parse

TUNED = "tuned"  # the recipe that a study found


def _check_file_name(name: str) -> str:
    if name.startswith(".") or not name.isprintable() or {*name} & {"/", "\\"} or len(name.encode()) > 120:
        raise ValueError("it names a file, and takes up to 120 letters, none of them / or \\, no dot first")
    return name


FileName = Annotated[str, AfterValidator(_check_file_name)]
"""What a folder or file of the results is called by."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
MAX_SEEDS = 10_000


Each = Literal["suite", "seed"]


class TeacherSpec(Strict):
    """How the teachers of a suite come about: what their training changes of the protocol, and their seed."""

    seed: Seed = 0
    each: Each = "suite"  # seed: the students of seed s learn from a teacher of their own, trained with `seed` + s
    protocol: dict[str, Any] = {}


class SplitSpec(Strict):
    """Whether all seeds share the split of the data."""

    each: Each = "suite"  # seed: teacher and students of seed s have the split of `data.split_seed` + s


class MethodSpec(Strict):
    """One row of the comparison: a method, a recipe of it, and hyper-parameters that differ from that recipe.

    In YAML: `dkd`, or `{dkd: {beta: 2.0}}`, or `{method: dkd, label: dkd-b2, recipe: paper, set: {beta: 2.0}}`. A sum
    of methods: `crd + 0.5*kd`, or `{crd + kd: {crd: {tau: 0.1}, kd: {weight: 0.5}}}`.
    """

    method: str
    label: FileName = ""
    recipe: str = "paper"
    set: dict[str, Any] = {}
    if_fit: bool = False  # left out on a pair that its method does not take, instead of ending the suite
    study: FileName = ""  # of a tuned row: the title of the row that was tuned, where it is not the method's name

    @model_validator(mode="after")
    def _exists(self) -> Self:
        self.values("")
        return self

    def values(self, pair: str) -> dict[str, Value]:
        """Every hyper-parameter of the row on a pair; of a tuned row, `set` holds what its study found."""
        return methods.get(self.method).resolve(pair, "paper" if self.tuned else self.recipe, self.set)

    @property
    def tuned(self) -> bool:
        """Do its values come from a study? They differ from pair to pair."""
        return self.recipe == TUNED

    @property
    def title(self) -> str:
        """The row's name: the label, or the method with what differs from its default recipe."""
        if self.label:
            return self.label
        if self.study not in ("", self.method):
            return f"{self.study[:-1]},tuned)" if self.study.endswith(")") else f"{self.study}(tuned)"
        changes = [self.recipe] * (self.recipe != "paper") + [
            f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.set.items()
        ]
        return f"{self.method}({','.join(changes)})" if changes else self.method


def normalise_row(value: object) -> object:
    """Any of the three ways to write a row, as the last of them; a sum's weights go where its settings are."""
    if isinstance(value, str):
        value = {"method": value}
    elif isinstance(value, dict) and len(value) == 1 and "method" not in value:
        name, settings = next(iter(value.items()))
        value = {"method": name, "set": settings}
    if isinstance(value, dict) and isinstance(name := value.get("method"), str) and set(name) & {"+", "*"}:
        name, weights = parse(name)
        settings = value.get("set") or {}
        value = {
            **value,
            "method": name,
            "set": weights | flatten(settings) if isinstance(settings, dict) else settings,
        }
    return value


def _method_name(name: str) -> str:
    """The name of a method, or of a sum however it is spaced and weighted: 'crd + 0.5*kd' is 'crd+kd'."""
    return parse(name)[0] if set(name) & {"+", "*"} else name


def expand_rows(value: object) -> object:
    """The list of rows, where `all` stands for every method that no other row names as it is, where the pair fits."""
    rows = [value] if isinstance(value, str) else value
    if not isinstance(rows, list) or "all" not in rows:
        return rows
    named = {str(row.get("method")) for row in map(normalise_row, rows) if isinstance(row, dict)}
    others = [{"method": name, "if_fit": True} for name in methods.names() if name not in named]
    return [row for entry in rows for row in (others if entry == "all" else [entry])]


def expand_seeds(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MAX_SEEDS:
            raise ValueError(f"a number of seeds is 1 to {MAX_SEEDS}, got {value}")
        return list(range(value))
    return value


class UntilSpec(Strict):
    """Seeds are added until every row's difference to the reference is decided, by `bench.suite.decide`.

    In YAML, in place of a number of seeds: `{until: decided, margin: 0.5}`.
    """

    until: Literal["decided"]
    margin: float = Field(0.5, gt=0)  # points of test top-1: a difference below it, either way, counts as none
    least: int = Field(3, ge=2)  # seeds before the first look
    most: int = Field(30, ge=2, le=MAX_SEEDS)

    @model_validator(mode="after")
    def _least_comes_first(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least {self.least} is more than most {self.most}; write least: {self.most} or less")
        return self


class TuneSpec(Strict):
    """How `kdbench tune` searches: one budget, sampler and rule for every method of a call."""

    trials: int = Field(24, ge=1, le=100_000)  # per study, the recipe included
    batch: int = Field(8, ge=1, le=1000)  # trials that train in lockstep
    sampler: Literal["tpe", "random", "grid", "cmaes", "gp"] = "tpe"
    pruner: Literal["none", "halving", "hyperband"] = "none"
    objective: list[Literal["accuracy", "cost"]] = ["accuracy"]
    rule: Literal["confirmed", "best_trial"] = "confirmed"
    seed: Seed = 0  # of the search
    space: dict[str, dict[str, Any]] = {}  # method → hyper-parameter → [low, high], or a list of choices

    @field_validator("objective")
    @classmethod
    def _accuracy_first(cls, names: list[str]) -> list[str]:
        if names not in (["accuracy"], ["accuracy", "cost"]):
            raise ValueError(f"'accuracy' or 'accuracy,cost', got '{','.join(names)}'")
        return names

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.objective) > 1 and (self.pruner != "none" or self.sampler == "cmaes"):
            other = f"pruner {self.pruner}" if self.pruner != "none" else "sampler cmaes"
            raise ValueError(f"{other} knows one objective; use objective accuracy alone, or leave it out")
        for name in self.space:
            self.search_space(_method_name(name))
        return self

    def search_space(self, method: str) -> dict[str, Knob]:
        """The knobs of a method that a study turns, with the ranges that the suite gives. Raises `Refusal`."""
        declared = methods.get(method).space
        ranges = {_method_name(name): knobs for name, knobs in self.space.items()}.get(method, {})
        for key in ranges:
            if key not in declared:
                raise unknown(f"hyper-parameter of {method}", key, declared)
        knobs = {
            key: _narrow_range(f"tune.space.{method}.{key}", knob, ranges.get(key)) for key, knob in declared.items()
        }
        return {key: knob for key, knob in knobs.items() if knob.tune or key in ranges}


def _narrow_range(where: str, knob: Knob, range_given: object) -> Knob:
    """The knob with the given range, which must lie within its own."""
    if range_given is None:
        return knob
    if not isinstance(range_given, list) or not range_given:
        raise Refusal(f"{where}: write [low, high], or a list of choices; got {range_given!r}")
    if isinstance(knob, Float | Int):
        if len(range_given) != 2:
            raise Refusal(f"{where}: a range is [low, high], got {range_given!r}")
        try:
            low, high = (knob.check(value) for value in range_given)
        except ValueError as error:
            raise Refusal(f"{where}: both ends are {error}, got {range_given!r}") from None
        if low >= high:
            raise Refusal(f"{where}: the range {range_given!r} is empty; write the lower end first")
        if knob.log and low <= 0:
            raise Refusal(f"{where}: a logarithmic scale starts above 0, got {range_given!r}")
        return type(knob)(low, high, log=knob.log)  # type: ignore[arg-type]
    if isinstance(knob, Choice):
        try:
            return Choice(tuple(knob.check(value) for value in range_given))
        except ValueError as error:
            raise Refusal(f"{where}: choices are {error}, got {range_given!r}") from None
    raise Refusal(f"{where}: it is a text that no study turns")
