"""A distilled student, out of the benchmark and into use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import methods
from bench import models
from bench.errors import UserError
from bench.models import own
from bench.models.adapted import Adapted
from bench.models.base import Network
from bench.models.files import read
from bench.seeds import fork_rng
from methods.base import Dims, Method, NetworkView
from tracking.record import Record

SUFFIXES = (".pth", ".pt", ".safetensors")  # of an exported student


class Student(nn.Module):
    """What predicts: a network, and where the method's prediction needs them, adapters and the teacher's tail."""

    def __init__(self, network: Network, method: Method | None, teacher: Network | None) -> None:
        super().__init__()
        self.network, self.method, self.teacher = network, method, teacher

    def forward(self, x: Tensor) -> Tensor:
        """[B, C] logits of [B, channels, size, size] normalised images."""
        out = self.network(x)
        if self.method is None:
            return out.logits
        taps = self.method.needs.taps
        s = NetworkView({"weak": out}, {*taps, "logits"}, self.network.tail)
        return self.method.predict(s, NetworkView({}, taps, self.teacher and self.teacher.tail))


def load(path: str | Path, *, run_code: bool = False) -> Student:
    """The student in a run's `student.safetensors` or in an exported file, in eval mode: images to logits.

    run_code: also where its network is one of somebody's own, whose Python file is then run.
    """
    state, about = _read(Path(path))
    code = [str(arch) for arch in (about.get("arch"), about.get("teacher")) if own.is_file(str(arch))]
    if code and not run_code:
        raise UserError(
            f"{path}: its network is the code of {code[0]}; load(path, run_code=True) runs it, if you trust it"
        )
    try:
        return _student(state, about)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a student that kdbench wrote ({type(error).__name__}: {reason})") from None


def _student(state: dict[str, Tensor], about: dict[str, Any]) -> Student:
    network = _network(about, about["arch"])
    weights = _part(state, "network.")
    network.load_state_dict({network.prefix + name.removeprefix(network.prefix): weights[name] for name in weights})
    if len(weights) == len(state):
        return Student(network, None, None).eval()
    own = {key: about.get(f"teacher_{key.removeprefix('in_')}", about[key]) for key in ("size", "in_channels")}
    teacher = _network(about | own, about["teacher"])
    teacher.load_state_dict(_part(state, "teacher."), strict=False)
    dims = Dims(network.dims(), teacher.dims(), about["n_classes"], about["batch_size"], torch.arange(0))
    with fork_rng("load"):
        method = methods.get(about["method"])(dims, **about["hp"])
    method.load_state_dict(_part(state, "method."), strict=False)
    return Student(network, method, teacher).eval()


def _network(about: dict[str, Any], arch: str) -> Network:
    return models.build(arch, in_channels=about["in_channels"], size=about["size"], n_classes=about["n_classes"])


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def export(results: Path, fingerprint: str, to: Path, suite: str | None = None) -> str:
    """Write a finished run's student, and return what network it is: under the names of the library that its network
    comes from, unless its prediction needs more than the network. Raises `UserError` for whatever is wrong."""
    if to.suffix not in SUFFIXES:
        raise UserError(f"'{to.name}' must end in .safetensors or .pth")
    found = _found(results, fingerprint, suite)
    Record(found.parent).file(found.name)
    state, about = _read(found)
    if all(name.startswith("network.") for name in state):
        arch = str(about["arch"])
        state = _part(state, "network." + (Adapted.prefix if own.is_file(arch) else _network(about, arch).prefix))
    try:
        if to.suffix == ".safetensors":
            to.write_bytes(save(state, {"network": json.dumps(about)}))
        else:
            with to.open("wb") as file:
                torch.save({"state_dict": state, "network": about}, file)
    except OSError as error:
        raise UserError(f"{to}: {error.strerror}; name a file in a folder that is there and can be written") from None
    return str(about["arch"])


def _found(results: Path, fingerprint: str, suite: str | None) -> Path:
    """The one student of the finished runs that begin with the fingerprint."""
    files = sorted(results.glob(f"{suite or '*'}/runs/*/student.safetensors"))
    found = [path for path in files if path.parent.name.startswith(fingerprint)]
    if len(found) == 1:
        return found[0]
    which = "the report lists the fingerprints"
    if len({path.parent.name for path in found}) == 1:
        which = f"name one of its suites: --suite {' or '.join(path.parent.parent.parent.name for path in found)}"
    raise UserError(f"{len(found)} finished runs in {results} begin with '{fingerprint}'; {which}")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State by `network.`, `method.` and `teacher.` names, and what the student is."""
    state: Any
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get("network", "null"))
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(f"{path}: not a readable student ({error})") from None
    else:
        content = read(path)
        state, about = map(content.get, ("state_dict", "network")) if isinstance(content, dict) else ({}, {})
    if not (about and isinstance(state, dict)):
        raise UserError(f"{path}: does not say which network it holds; only students written by kdbench do")
    if not any(str(name).startswith("network.") for name in state):  # an exported network, under its own names
        state = {f"network.{name}": value for name, value in state.items()}
    return state, about
