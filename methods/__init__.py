"""The registry of distillation methods: a file in this folder is a method, and its name is the method's name."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from methods.base import Method, unknown

SHARED = ("adapters", "base", "functional")


@cache
def names() -> tuple[str, ...]:
    """Names of all methods, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in SHARED))


def get(name: str) -> type[Method]:
    """The method's class. Raises `Refusal` for an unknown name, TypeError for a file without exactly one method."""
    if name not in names():
        raise unknown("method", name, names())
    module = importlib.import_module(f"methods.{name}")
    found = [
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Method) and v.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__file__} holds {len(found)} methods; a method file holds exactly one")
    return found[0]
