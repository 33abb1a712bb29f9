"""A pydantic error as one line that says what to type."""

from __future__ import annotations

import difflib
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from bench.errors import unknown


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first error of a validation: where it is, what was got, what is expected, the nearest right key."""
    first = error.errors()[0]
    more = error.error_count() - 1
    tags = set(map(_tag, _models_at(model, ("data",))))  # a tagged union's tag stands in the path, and in no file
    where = ".".join(str(part) for part in first["loc"] if part not in tags) or "suite"
    text = _sentence(first, model, where)
    return " ".join(text.split()) + (f" (and {more} more)" if more else "")


def _sentence(first: Any, model: type[BaseModel], where: str) -> str:
    kind, got = first["type"], first.get("input")
    if kind == "extra_forbidden":
        known = {name for m in _models_at(model, first["loc"][:-1]) for name in m.model_fields}
        key = str(first["loc"][-1])
        return str(unknown("key", key, known)).replace(f"'{key}'", f"'{where}'", 1)
    if kind == "missing":
        return f"'{where}' is missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = sorted(filter(None, map(_tag, _models_at(model, first["loc"]))))
        if kind == "union_tag_not_found":
            return f"'{where}.source' is missing; there are {', '.join(tags)}"
        return f"'{where}': {unknown('data source', first['ctx']['tag'], tags)}"
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
    return f"'{where}' is {_shorten(got)}: {message[:1].lower()}{message[1:]}"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _models_at(model: Any, path: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The models that may stand at `path`, walking through lists, unions, and tagged unions."""
    options = _models(model)
    for part in path:
        inner = [m.model_fields[part].annotation for m in options if part in m.model_fields]
        if inner:
            options = [m for annotation in inner for m in _models(annotation)]
        else:  # a list index, or the tag of a union
            named = [m for m in options if _tag(m) == part]
            options = named or options
    return options


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("source")
    return typing.get_args(field.annotation)[0] if field else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in typing.get_args(annotation) for m in _models(arg)]
