"""The one error that a person can mend: shown as a single line, exit code 2. And what is told without stopping."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable

from tracking.location import mask_secrets


class UserError(ValueError):
    """One line: what was got, and what to type instead."""


def error_message(error: BaseException, when: str = "") -> str:
    """Why a run failed, in one line without secrets: 'ValueError in epoch 3: ...'."""
    kind = " ".join(filter(None, (type(error).__name__, when)))
    return mask_secrets(" ".join(f"{kind}: {error}".rstrip(": ").splitlines()[:1]))


def short_message(error: BaseException) -> str:
    """An error of somebody else's code within a sentence of ours: its kind and its words, at most 160 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def notice(text: str) -> None:
    """Tell, on the error stream, of damage that was found and mended: the work goes on."""
    sys.stderr.write(f"kdbench: {text}\n")


def unknown(kind: str, name: object, known: Iterable[str]) -> UserError:
    """The refusal of a misspelt name, with the nearest right one first."""
    options = sorted(known)
    close = difflib.get_close_matches(str(name), options, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return UserError(f"no {kind} '{name}'; {hint}there are {', '.join(options) or 'none'}")
