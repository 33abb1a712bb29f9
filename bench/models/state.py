"""A network's state out of a checkpoint, however it was wrapped; and the hash of a state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor

from bench.errors import UserError
from bench.models.adapters import near_models, plain_model
from bench.models.base import Network
from bench.models.files import read
from bench.models.hugging_face import Logits
from bench.models.zoo import build, names

State = dict[str, Tensor]
COUNTER = "num_batches_tracked"  # absent from old checkpoints, and never used with a momentum
DEEPEST = 6  # how far into a file's mappings a state is looked for


@dataclass(frozen=True)
class Found:
    """Tensors by name within a checkpoint, and those of them that may be the network's."""

    where: str  # the keys that lead to the mapping, dotted; empty where the file is it
    prefix: str  # what its names have in front of the network's own
    state: State  # under the network's names
    left: tuple[str, ...]  # names that do not begin with the prefix: beside the network

    @property
    def key(self) -> str:
        return f"{self.where}:{self.prefix}".strip(":")

    def __str__(self) -> str:
        words = [f"'{self.where}'"] * bool(self.where) + [f"names after '{self.prefix}'"] * bool(self.prefix)
        said = ", ".join(words) or "its tensors as they are"
        return f"{said}; left out: {_some(self.left)}" if self.left else said


def load_state(
    network: Network,
    path: str | Path,
    key: str = "",
    *,
    new_head: bool = False,
    classes: Sequence[int] = (),
) -> str:
    """Puts a checkpoint's tensors into the network, and returns what was taken of it. Raises `UserError`.

    The state may lie under any keys and its names behind any prefix ("module.", "_orig_mod.", "model."); of several
    that fit, averaged weights (a key or prefix with "ema" in it) are preferred. key: the one to take, "KEY",
    "PREFIX." or "KEY:PREFIX.". new_head: of a file with other classes all is taken but what depends on their number.
    classes: of each of the network's classes, which one of the file's it is.
    """
    path = Path(path)
    own = {name.removeprefix(network.prefix): tensor for name, tensor in network.state_dict().items()}
    content = read(path)
    mappings = _states(network, path, content)
    if not mappings:
        raise UserError(f"'{path}' holds no state dict; it takes tensors by name, under whatever keys")
    found = [found for where, state in mappings for found in _under_prefixes(own, where, state)]
    if new_head:
        found = [_without_head(network, own, one) for one in found]
    if classes:
        heads = _head_names(network)
        found = [replace(one, state=_of_classes(one.state, heads, classes, f"'{path}'")) for one in found]
    fits = [one for one in found if not _misfits(own, one.state)]
    if not fits:
        arch = content.get("arch") if isinstance(content, Mapping) else None
        raise UserError(f"'{path}' {_difference(network, own, mappings, found, arch)}")
    chosen = _preferred(path, network.arch, fits, key)
    counters = {name: tensor for name, tensor in own.items() if name.endswith(COUNTER)}
    network.load_state_dict({network.prefix + name: tensor for name, tensor in (counters | chosen.state).items()})
    return str(chosen)


@cache
def is_coloured(name: str, path: Path, size: int, n_classes: int) -> bool:
    """Is it of this network for images of three channels that the file holds a state, and not for grey ones?"""
    with torch.random.fork_rng(devices=[]):
        grey, coloured = (build(name, in_channels=n, size=size, n_classes=n_classes) for n in (1, 3))
    both = zip(grey.state_dict().items(), coloured.state_dict().values(), strict=True)
    first = {key.removeprefix(grey.prefix): (a.shape, b.shape) for (key, a), b in both if a.shape != b.shape}
    found = set[bool]()
    for _, state in _states(coloured, path, read(path)):
        for key, tensor in state.items():
            for own, shapes in first.items():
                if tensor.shape in shapes and (key == own or key.endswith(f".{own}")):
                    found.add(tensor.shape == shapes[1])
    return found == {True}


def state_hash(network: torch.nn.Module) -> str:
    """sha256 (hex) over names, types, shapes and bytes of the state dict; the same on every device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def take_classes(network: Network, other: Network, classes: Sequence[int]) -> None:
    """Puts the state of the same network with more classes into it, of its head what belongs to these classes."""
    heads = {network.prefix + name for name in _head_names(network)}
    network.load_state_dict(_of_classes(other.state_dict(), heads, classes, f"'{network.arch}'"))


def _head_names(network: Network) -> set[str]:
    """The tensors whose size goes by the number of classes, without the network's own prefix."""
    with torch.random.fork_rng(devices=[]):
        n_classes, size = network.n_classes + 1, network.size
        other = build(network.arch, in_channels=network.in_channels, size=size, n_classes=n_classes).state_dict()
    return {
        name.removeprefix(network.prefix) for name, t in network.state_dict().items() if t.shape != other[name].shape
    }


def _of_classes(state: Mapping[str, Tensor], heads: set[str], classes: Sequence[int], title: str) -> State:
    """The state with the rows of these classes in its head. Raises `UserError` where it has not so many."""
    for name in heads & state.keys():
        if max(classes) >= len(state[name]):
            raise UserError(
                f"class_map names class {max(classes)}, and {title} has {len(state[name])}, counted from 0; correct it"
            )
    return {name: tensor[list(classes)] if name in heads else tensor for name, tensor in state.items()}


def _states(network: Network, path: Path, content: object) -> list[tuple[str, State]]:
    """Every mapping of names to tensors that may hold the network's state, with the keys that lead to it."""
    if isinstance(module := getattr(network, "net", None), Logits) and (stored := module.stored(path)):
        return [("", stored)]
    return list(_mappings(content))


def _mappings(content: object, where: tuple[str, ...] = ()) -> Iterator[tuple[str, State]]:
    """Every mapping of names to tensors in a file's content, with the keys that lead to it."""
    if not isinstance(content, Mapping) or not content or len(where) > DEEPEST:
        return
    if all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        yield ".".join(where), dict(content)
        return
    for key, value in content.items():
        yield from _mappings(value, (*where, str(key)))


def _under_prefixes(own: State, where: str, state: State) -> list[Found]:
    """The mapping behind each prefix that ends in front of one of the network's names."""
    telling = max((name for name in own if not name.endswith(COUNTER)), key=len)
    ends = [name.removesuffix(telling) for name in state if name == telling or name.endswith(f".{telling}")]
    return [_behind(where, prefix, state) for prefix in ends]


def _behind(where: str, prefix: str, state: State) -> Found:
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return Found(where, prefix, inside, tuple(name for name in state if not name.startswith(prefix)))


def _misfits(own: State, state: State) -> list[str]:
    """What keeps this state from being the network's, name by name."""
    every = [name for name in {**own, **state} if not name.endswith(COUNTER) or name not in own]
    return [misfit for name in every if (misfit := _misfit(name, own.get(name), state.get(name)))]


def _misfit(name: str, ours: Tensor | None, theirs: Tensor | None) -> str:
    if ours is None or theirs is None:
        return f"'{name}' is {'missing' if theirs is None else 'unexpected'}"
    return "" if ours.shape == theirs.shape else f"'{name}' is {list(theirs.shape)}, not {list(ours.shape)}"


def _preferred(path: Path, arch: str, fits: list[Found], key: str) -> Found:
    """The one that was named, else the averaged one, else the only one."""
    keys = " or ".join(f"'{one.key}'" for one in fits[:4])
    if key:
        if named := [one for one in fits if key in (one.key, one.where, one.prefix)]:
            return named[0]
        raise UserError(f"'{path}' has no {arch} under teacher_key '{key}'; there is {keys or 'one, as it is'}")
    averaged = [one for one in fits if "ema" in one.key.lower().replace(".", "_").replace(":", "_").split("_")]
    first, *others = averaged or fits
    if any(not torch.equal(first.state[name], other.state[name]) for other in others for name in first.state):
        raise UserError(f"'{path}' holds several states of {arch}; name the one to take, teacher_key: {keys}")
    return first


def _difference(
    network: Network, own: State, mappings: list[tuple[str, State]], found: list[Found], arch: object
) -> str:
    """Why no mapping of a file is the network's, in one line, by the nearest of them."""
    whole = [_behind(where, _common_prefix(state), state) for where, state in mappings]
    nearest = max((*found, *whole), key=lambda one: len(own.keys() & one.state.keys()))
    if n_classes := _other_classes(network, own, nearest.state):
        return (
            f"has {n_classes} classes, and this {network.arch} has {network.n_classes}; give it a new head, beside"
            " teacher_file: finetune: {epochs: 10, lr: 0.01}"
        )
    first, *others = _misfits(own, nearest.state)
    if channels := not others and _other_channels(own, nearest.state):
        return (
            f"is a {network.arch} for images of {channels} channels, and these have {network.in_channels}; give a file"
            " of one for such images (grey ones alone are repeated, for a teacher of three)"
        )
    more = f" (and {len(others)} more)" if others else ""
    fits = _fitting(nearest.state, network.arch, arch)
    return f"is not a state of {network.arch}: {first}{more}" + (f"; it fits {fits}" if fits else "")


def _common_prefix(state: State) -> str:
    """The whole words that all names begin with: "module.model."."""
    words = [name.split(".")[:-1] for name in state if "." in name]
    shared = takewhile(lambda same: len({*same}) == 1, zip(*words, strict=False))
    return "".join(f"{word}." for word, *_ in shared)


def _other_classes(network: Network, own: State, state: State) -> int | None:
    """The class count of the file, where that alone explains the shapes that differ."""
    shared = own.keys() & state.keys()
    if len(_misfits(own, state)) != len(wrong := [n for n in shared if own[n].shape != state[n].shape]):
        return None
    pairs = [(own[name], state[name]) for name in wrong]
    counts = {theirs.shape[0] if theirs.ndim else 0 for _, theirs in pairs}
    explained = all(
        theirs.shape[1:] == ours.shape[1:] and ours.ndim and ours.shape[0] == network.n_classes
        for ours, theirs in pairs
    )
    return counts.pop() if explained and len(counts) == 1 else None


def _other_channels(own: State, state: State) -> int | None:
    """The channel count of the file's images, where a first convolution's shape alone differs, and by that alone."""
    for name in own.keys() & state.keys():
        ours, theirs = own[name].shape, state[name].shape
        if ours != theirs and len(ours) == len(theirs) == 4 and (ours[0], ours[2:]) == (theirs[0], theirs[2:]):
            return theirs[1]
    return None


def _without_head(network: Network, own: State, found: Found) -> Found:
    """What was found, its tensors of another number of classes replaced by the network's own."""
    if not _other_classes(network, own, found.state):
        return found
    head = tuple(name for name in found.state if name in own and own[name].shape != found.state[name].shape)
    return replace(found, state=found.state | {name: own[name] for name in head}, left=(*found.left, *head))


def _fitting(state: State, arch: str, said: object) -> str | None:
    """The network that has these names and shapes, whatever its classes and input channels: of the CIFAR literature, or
    of torchvision's those that are called as the one asked for, or as the file says."""
    convs = [t for t in state.values() if t.ndim == 4]
    linears = [t for t in state.values() if t.ndim == 2]
    if not convs or not linears:
        return None
    shapes = {name: t.shape for name, t in state.items() if not name.endswith(COUNTER)}
    channels, classes = convs[0].shape[1], linears[-1].shape[0]
    near = [f"torchvision/{name}" for word in (said, arch.partition("/")[2] or arch) for name in near_models(str(word))]
    for name in (*names(), *near):
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            net = (
                build(name, in_channels=channels, n_classes=classes) if "/" not in name else plain_model(name, classes)
            )
        own = {key: t.shape for key, t in net.state_dict().items() if not key.endswith(COUNTER)} if net else {}
        if own == shapes:
            return name
    return None


def _some(words: tuple[str, ...]) -> str:
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")
