"""Reading a network's state from a file, and the hash of a state."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bench.errors import UserError
from bench.models.base import Network
from bench.models.zoo import build, names

SUFFIXES = (".pth", ".pt", ".safetensors")
State = dict[str, Tensor]


def load_state(network: Network, path: str | Path) -> None:
    """Puts the tensors of a .pth, .pt or .safetensors file into the network, or raises a UserError naming the file.

    A file holds a bare state dict, or one under "model" or "state_dict"; its names may begin with "module.".
    """
    path = Path(path)
    state = _names_as(network, _unwrap(path, read(path)))
    own = network.state_dict()
    for name in own.keys() - state.keys():
        if name.endswith("num_batches_tracked"):  # absent from old checkpoints, and never used with a momentum
            state[name] = own[name]
    if problem := _difference(network, own, state):
        raise UserError(f"'{path}' {problem}")
    network.load_state_dict(state)


def state_hash(network: torch.nn.Module) -> str:
    """sha256 (hex) over names, types, shapes and bytes of the state dict; the same on every device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read(path: Path) -> object:
    """What a .pth, .pt or .safetensors file holds, nothing in it run. Raises `UserError` where it cannot be read."""
    if not path.is_file():
        raise UserError(f"no file '{path}'; give a checkpoint ({', '.join(SUFFIXES)})")
    if path.suffix not in SUFFIXES:
        raise UserError(f"'{path}' is of no known kind; a checkpoint ends in {', '.join(SUFFIXES)}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"'{path}' cannot be read, perhaps truncated: {_line(error)}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"unsupported (?:global:?|class)(?: GLOBAL)? (\S+)", str(error), re.IGNORECASE):
            what = found[1]
            raise UserError(
                f"'{path}' holds '{what}' besides tensors, which could run code; save a state dict"
            ) from None
        raise UserError(f"'{path}' cannot be read, perhaps truncated: {_line(error)}") from None
    except Exception as error:  # torch.load raises whatever its zip, pickle and storage readers do
        raise UserError(f"'{path}' cannot be read, perhaps truncated: {_line(error)}") from None


def _line(error: Exception) -> str:
    """The first words of an error, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."


def _unwrap(path: Path, content: object) -> State:
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(
            f"'{path}' holds no state dict; it takes tensors by name, bare or under 'model' or 'state_dict'"
        )
    return {str(name): tensor for name, tensor in content.items()}


def _names_as(network: Network, state: State) -> State:
    """The names without a "module." before them all, with the network's own prefix."""
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {network.prefix + name.removeprefix(network.prefix): tensor for name, tensor in state.items()}


def _difference(network: Network, own: State, state: State) -> str:
    """What keeps this state from being the network's, in one line; empty where nothing does."""
    if own.keys() == state.keys():
        wrong = [(own[name], state[name]) for name in own if own[name].shape != state[name].shape]
        if not wrong:
            return ""
        if n_classes := _other_classes(network, wrong):
            return f"has {n_classes} classes, and this {network.arch} has {network.n_classes}; build it with as many"
    first = next(filter(None, (_misfit(name, own.get(name), state.get(name)) for name in (*own, *state))))
    fits = _fitting(state)
    return f"is not a state of {network.arch}: {first}" + (f"; it fits {fits}" if fits else "")


def _misfit(name: str, ours: Tensor | None, theirs: Tensor | None) -> str:
    if ours is None or theirs is None:
        return f"'{name}' is {'missing' if theirs is None else 'unexpected'}"
    return "" if ours.shape == theirs.shape else f"'{name}' is {list(theirs.shape)}, not {list(ours.shape)}"


def _other_classes(network: Network, pairs: list[tuple[Tensor, Tensor]]) -> int | None:
    """The class count of the file, where that alone explains the shapes that differ."""
    counts = {theirs.shape[0] if theirs.ndim else 0 for _, theirs in pairs}
    explained = all(
        theirs.shape[1:] == ours.shape[1:] and ours.ndim and ours.shape[0] == network.n_classes
        for ours, theirs in pairs
    )
    return counts.pop() if explained and len(counts) == 1 else None


def _fitting(state: State) -> str | None:
    """The zoo's network that has these names and shapes, whatever its classes and input channels."""
    convs = [t for t in state.values() if t.ndim == 4]
    linears = [t for t in state.values() if t.ndim == 2]
    if not convs or not linears:
        return None
    shapes = {name: t.shape for name, t in state.items() if not name.endswith("num_batches_tracked")}
    for name in names():
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            net = build(name, in_channels=convs[0].shape[1], n_classes=linears[-1].shape[0])
        own = {key: t.shape for key, t in net.state_dict().items() if not key.endswith("num_batches_tracked")}
        if own == shapes:
            return name
    return None
