"""The registry of distillation methods: a file in this folder is a method, and its name is the method's name.

Methods from elsewhere: files named in the environment variable KDBENCH_PLUGINS (`--plugin`), and entry points of the
group `kdbench.methods` of installed packages. `a+b` is the sum of two methods.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from methods.base import Method, Refusal, unknown
from methods.combine import sum_class

NOT_METHODS = ("adapters", "base", "combine", "functional", "knobs", "view")
PLUGINS = "KDBENCH_PLUGINS"


def names() -> tuple[str, ...]:
    """Names of all methods, sorted."""
    return tuple(sorted(_sources(os.environ.get(PLUGINS, ""))))


def get(name: str) -> type[Method]:
    """The method's class. Raises `Refusal` for an unknown name, or a file without exactly one method."""
    if "+" in name:
        return sum_class(tuple(get(part.strip()) for part in name.split("+")))
    sources = _sources(os.environ.get(PLUGINS, ""))
    if name not in sources:
        raise unknown("method", name, sources)
    source = sources[name]
    if isinstance(source, EntryPoint):
        return _load_entry_point(source)
    if isinstance(source, Path):
        return _load_plugin(source)
    return _single_method(importlib.import_module(f"methods.{name}"))


def register_plugin(file: str) -> None:
    """Add a file of one method to the registry, for this process and those it starts. Raises `Refusal`."""
    path = Path(file).expanduser().absolute()
    if path.suffix != ".py" or not path.is_file():
        raise Refusal(f"--plugin {file}: no such Python file")
    _load_plugin(path)
    before = [p for p in os.environ.get(PLUGINS, "").split(os.pathsep) if p]
    if str(path) not in before:
        os.environ[PLUGINS] = os.pathsep.join([*before, str(path)])
    names()


@cache
def _sources(plugins: str) -> dict[str, EntryPoint | Path | None]:
    """Where each method comes from; None: this folder. Raises `Refusal` where two have one name."""
    found: dict[str, EntryPoint | Path | None] = {
        m.name: None for m in pkgutil.iter_modules(__path__) if m.name not in NOT_METHODS
    }
    plugins_found: list[tuple[str, EntryPoint | Path]] = [(p.name, p) for p in entry_points(group="kdbench.methods")]
    plugins_found += [(Path(p).stem, Path(p)) for p in plugins.split(os.pathsep) if p]
    for name, source in plugins_found:
        if name in found or name in NOT_METHODS:
            raise Refusal(f"{source}: a method '{name}' exists already; rename the file")
        found[name] = source
    return found


def _single_method(module: ModuleType) -> type[Method]:
    found = [
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Method) and v.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise Refusal(f"{module.__file__} holds {len(found)} methods; a method file holds exactly one")
    return found[0]


@cache
def _load_plugin(path: Path) -> type[Method]:
    """The method in a file from elsewhere; its version holds the file's checksum, so that an edit is a new method."""
    spec = importlib.util.spec_from_file_location(f"kdbench_plugins.{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise Refusal(f"{path}: {type(error).__name__}: {error}") from error
    kind = _single_method(module)
    kind.version = f"{kind.version}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    return kind


@cache
def _load_entry_point(point: EntryPoint) -> type[Method]:
    kind = point.load()
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise Refusal(f"entry point {point.value}: not a method's class")
    kind.entry_point_name = point.name
    kind.version = f"{kind.version}-{point.dist.version if point.dist else ''}"
    return kind
