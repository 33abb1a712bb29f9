"""A pydantic error as one line that says what to type."""

from __future__ import annotations

import difflib
import typing
from typing import Any

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first error of a validation: where it is, what was got, what is expected, the nearest right key."""
    first = error.errors()[0]
    more = error.error_count() - 1
    where = ".".join(str(part) for part in first["loc"]) or "suite"
    text = _sentence(first, model, where)
    return text + (f" (and {more} more)" if more else "")


def _sentence(first: Any, model: type[BaseModel], where: str) -> str:
    kind, got = first["type"], first.get("input")
    if kind == "extra_forbidden":
        key = str(first["loc"][-1])
        known = sorted(_fields(model, first["loc"][:-1]))
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return f"unknown key '{where}'; {hint}there are {', '.join(known)}"
    if kind == "missing":
        return f"'{where}' is missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = [tag.strip(" '") for tag in str(first["ctx"].get("expected_tags", "")).split(",") if tag.strip()]
        tag = str(first["ctx"].get("tag", ""))
        close = difflib.get_close_matches(tag, tags, n=1, cutoff=0.4)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return f"no data source '{tag}' in '{where}'; {hint}there are {', '.join(tags) or 'digits, parquet, torchvision, image_folder'}"
    if kind == "literal_error":
        options = str(first["ctx"]["expected"])
        close = difflib.get_close_matches(
            str(got), [o.strip("' ") for o in options.replace(" or ", ",").split(",")], n=1
        )
        hint = f"did you mean '{close[0]}'? " if close else ""
        return f"'{where}' is {got!r}; {hint}it takes {options}"
    message = str(first["msg"]).removeprefix("Value error, ")
    if kind in ("value_error", "assertion_error"):
        return f"'{where}': {message}" if where != "suite" else message
    return f"'{where}' is {_short(got)}: {message[:1].lower()}{message[1:]}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields(model: Any, path: tuple[int | str, ...]) -> set[str]:
    """Field names of the model at `path`, walking through lists, unions, and tagged unions."""
    options = _models(model)
    for part in path:
        inner = [m.model_fields[part].annotation for m in options if part in m.model_fields]
        if inner:
            options = [m for annotation in inner for m in _models(annotation)]
        else:  # a list index, or the tag of a union
            tagged = [m for m in options if part in {f.default for f in m.model_fields.values()}]
            options = tagged or options
    return {name for m in options for name in m.model_fields}


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in typing.get_args(annotation) for m in _models(arg)]
