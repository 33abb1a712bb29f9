"""Networks of one's own: a class or function in a Python file, a torch.hub folder, a package's entry point, or a
Hugging Face image classifier. Any module from images to logits will do."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from bench.errors import UserError, short_message, unknown
from bench.models import hugging_face
from methods.base import Method

NETWORKS = "KDBENCH_NETWORKS"  # files named by --plugin, for this process and those it starts
GROUP = "kdbench.networks"
KNOWN = {
    "n_classes": ("num_classes", "n_classes", "classes"),
    "in_channels": ("in_channels", "in_chans", "channels"),
    "size": ("size", "img_size", "image_size"),
}
"""What a constructor may ask for, by the names it may call it."""


def register_plugin(file: str) -> bool:
    """Make a file's networks known by its name, for this process and those it starts; False: it is a file of a method.

    Raises `UserError` for what is no Python file, or holds neither."""
    path = Path(file).expanduser().absolute()
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"--plugin {file}: no such Python file")
    if any(issubclass(v, Method) for v in _own_classes(_module(path))):
        return False
    if not _networks(path):
        raise UserError(
            f"{path} holds 0 methods and 0 networks; write one class, of methods.base.Method or torch.nn.Module"
        )
    before = _plugged()
    if others := [p for p in before if p.stem == path.stem and p != path]:
        raise UserError(f"{path}: the networks of {others[0]} have that name already; rename the file")
    os.environ[NETWORKS] = os.pathsep.join(map(str, dict.fromkeys([*before, path])))
    return True


def is_own(name: str) -> bool:
    """Is the name that of a network of one's own?"""
    return name.startswith("hf/") or _source(name) is not None


def is_file(name: str) -> bool:
    """Does the name lead to a Python file, which making the network would run?"""
    source = _source(name)
    return source is not None and isinstance(source[0], Path)


def make(name: str, in_channels: int, size: int, n_classes: int, pretrained: bool) -> nn.Module:
    """The network's module, with fresh weights. Raises `UserError` for whatever is wrong with its code."""
    if name.startswith("hf/"):
        return hugging_face.make(name, in_channels, size, n_classes, pretrained)
    if pretrained:
        raise UserError(f"'{name}' has no packaged weights; name its file: teacher_file")
    values = {"n_classes": n_classes, "in_channels": in_channels, "size": size}
    net = _called(name, _maker(name), {alias: values[key] for key, names in KNOWN.items() for alias in names})
    if not isinstance(net, nn.Module):
        raise UserError(f"'{name}' makes a {type(net).__name__}; it takes a torch.nn.Module, from images to logits")
    return net


def stages(name: str, net: nn.Module) -> tuple[str, ...]:
    """The modules that the network names as its stages: `stages = ["layer1", "layer2"]`."""
    named = getattr(net, "stages", ())
    if not isinstance(named, list | tuple) or not all(isinstance(stage, str) for stage in named):
        return ()
    modules = [module for module, _ in net.named_modules() if module]
    for stage in named:
        if stage not in modules:
            raise unknown(f"module of '{name}' for a stage", stage, modules[:40])
    return tuple(named)


def version(name: str) -> str:
    """What a network's code is, for fingerprints: the checksum of its files, or the version of its package; empty for
    those that come with the project and its libraries."""
    if name.startswith("hf/"):
        return hashlib.sha256(hugging_face.config_of(name).to_json_string().encode()).hexdigest()[:12]
    source = _source(name)
    if source is None:
        return ""
    if isinstance(source[0], EntryPoint):
        return f"{source[0].value} {source[0].dist.version if source[0].dist else ''}".strip()
    return str(_module(source[0]).kdbench_version)


# ------------------------------------------------------------------------------------------------ where the code lies


def _plugged() -> list[Path]:
    return [Path(p) for p in os.environ.get(NETWORKS, "").split(os.pathsep) if p]


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _source(name: str) -> tuple[Path | EntryPoint, str] | None:
    """Where the name's code lies, and what it is called there; an empty name: the file's only network."""
    place, _, attribute = name.partition(":") if ".py:" not in name else name.rpartition(":")
    for path in _plugged():
        if path.stem == place:
            return path, attribute
    if name in _points():
        return _points()[name], ""
    path = Path(os.path.expandvars(place)).expanduser()
    if place.endswith(".py"):
        return path.absolute(), attribute
    if attribute and (path / "hubconf.py").is_file():
        return (path / "hubconf.py").absolute(), attribute
    return None


def _maker(name: str) -> Callable[..., Any]:
    source, attribute = _source(name) or (Path(), "")
    if isinstance(source, EntryPoint):
        try:
            return source.load()  # type: ignore[no-any-return]
        except Exception as error:
            raise UserError(f"'{name}', the entry point {source.value}: {short_message(error)}") from None
    module, networks = _module(source), _networks(source)
    if not attribute and len(networks) != 1:
        some = ", ".join(networks)
        raise UserError(
            f"{source} holds {len(networks)} networks ({some}); name one: '{name}:{[*networks, 'Name'][0]}'"
        )
    found = getattr(module, attribute or next(iter(networks)), None)
    if not callable(found):
        raise unknown(f"network in {source}", attribute, networks)
    return found  # type: ignore[no-any-return]


def _own_classes(module: ModuleType) -> list[type]:
    return [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]


def _networks(path: Path) -> dict[str, type]:
    """The torch modules that the file defines, by name."""
    return {v.__name__: v for v in _own_classes(_module(path)) if issubclass(v, nn.Module)}


@cache
def _module(path: Path) -> ModuleType:
    """The file's module, which may import its neighbours; `kdbench_version`: the checksum of all that was read."""
    if not path.is_file():
        raise UserError(f"no file '{path}'; write a network of your own as path/to/file.py:ClassName")
    name = f"kdbench_networks.{hashlib.sha256(str(path).encode()).hexdigest()[:8]}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    before = {*sys.modules}
    with _beside(path.parent):
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise UserError(f"{path}: {short_message(error)}") from None
    files = [getattr(sys.modules[name], "__file__", None) or "" for name in {*sys.modules} - before]
    read = [path, *sorted(Path(file) for file in files if Path(file).is_relative_to(path.parent))]
    module.kdbench_version = hashlib.sha256(b"".join(file.read_bytes() for file in read)).hexdigest()[:12]  # type: ignore[attr-defined]
    return module


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Modules of the folder can be imported inside the block."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _called(name: str, maker: Callable[..., Any], values: dict[str, Any]) -> object:
    """What the class or function makes of what it asks for, out of these values."""
    asked = inspect.signature(maker).parameters
    given = {key: value for key, value in values.items() if key in asked}
    if not {*given} & {*KNOWN["n_classes"]} and any(p.kind is p.VAR_KEYWORD for p in asked.values()):
        given["num_classes"] = values["num_classes"]
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for key, parameter in asked.items():
        if key not in given and parameter.default is parameter.empty and parameter.kind not in fixed:
            raise UserError(
                f"'{name}' asks for '{key}'; give it a default: only num_classes, in_channels and size are given"
            )
    try:
        return maker(**given)
    except (Exception, SystemExit) as error:
        raise UserError(f"'{name}' cannot be made: {short_message(error)}") from None
