"""Hyper-parameters: what values they take, on which scale, and whether a study tunes them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass


class Refusal(ValueError):
    """A method cannot be used as asked. The message is one line: what was got, what is possible."""


def unknown(kind: str, name: object, known: Iterable[str]) -> Refusal:
    """The refusal of a misspelt name, with the nearest right one first."""
    options = sorted(known)
    close = difflib.get_close_matches(str(name), options, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return Refusal(f"no {kind} '{name}'; {hint}there are {', '.join(options) or 'none'}")


Value = str | bool | int | float


def plain(value: Value) -> str:
    """A value as it is typed in a suite, numbers to four digits: 0.08333, 30000, true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.4g}"
    return str(value if isinstance(value, str) else int(value))


@dataclass(frozen=True)
class Float:
    """A real hyper-parameter: range (inclusive), scale, and whether a study tunes it."""

    low: float
    high: float
    log: bool = False
    tune: bool = True

    def check(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise ValueError(f"a number from {self.low:g} to {self.high:g}")
        return float(value)

    def __str__(self) -> str:
        return f"{plain(self.low)}…{plain(self.high)}{' log' * self.log}"


@dataclass(frozen=True)
class Int:
    """A whole-number hyper-parameter: range (inclusive), scale, and whether a study tunes it."""

    low: int
    high: int
    log: bool = False
    tune: bool = True

    def check(self, value: object) -> int:
        whole = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and value == int(value)
        )
        if not whole or not self.low <= value <= self.high:  # type: ignore[operator]
            raise ValueError(f"a whole number from {self.low} to {self.high}")
        return int(value)  # type: ignore[call-overload]

    def __str__(self) -> str:
        return f"{self.low}…{self.high} whole{' log' * self.log}"


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    options: tuple[str | bool | int | float, ...]
    tune: bool = True

    def check(self, value: object) -> str | bool | int | float:
        for option in self.options:
            if value == option and isinstance(value, bool) == isinstance(option, bool):
                return option
        raise ValueError(f"one of {', '.join(map(str, self.options))}")

    def __str__(self) -> str:
        return ", ".join(map(plain, self.options))


@dataclass(frozen=True)
class Text:
    """A text of a given form, for structure that no list of values can hold. Never tuned."""

    pattern: str
    description: str  # the form in words
    tune: bool = False

    def check(self, value: object) -> str:
        if not re.fullmatch(self.pattern, str(value)):
            raise ValueError(self.description)
        return str(value)

    def __str__(self) -> str:
        return self.description


Knob = Float | Int | Choice | Text
