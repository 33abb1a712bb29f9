"""A distilled student, out of the benchmark and into use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bench import models
from bench.errors import UserError
from bench.models.base import Network


def load(path: str | Path) -> Network:
    """The student in a run's `student.safetensors` or in an exported file, in eval mode."""
    state, about = _read(Path(path))
    network = models.build(
        about["arch"], in_channels=about["in_channels"], size=about["size"], n_classes=about["n_classes"]
    )
    network.load_state_dict(state)
    return network.eval()


def export(results: Path, fingerprint: str, to: Path) -> str:
    """Write a finished run's student under the network's own names; returns the architecture."""
    found = [p for p in sorted(results.glob("*/runs/*/student.safetensors")) if p.parent.name.startswith(fingerprint)]
    if len(found) != 1:
        raise UserError(
            f"{len(found)} finished runs in {results} begin with '{fingerprint}'; the report lists the fingerprints"
        )
    state, about = _read(found[0])
    if to.suffix == ".safetensors":
        save_file(state, to, {"network": json.dumps(about)})
    elif to.suffix in (".pth", ".pt"):
        torch.save({"state_dict": state, "network": about}, to)
    else:
        raise UserError(f"'{to.name}' must end in .safetensors or .pth")
    return str(about["arch"])


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights under the network's own names, and what the network is."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("network", "null"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable student ({error})") from None
    if not about:
        raise UserError(f"{path}: does not say which network it holds; only students written by kdbench do")
    own = {name.removeprefix("network."): value for name, value in state.items() if not name.startswith("method.")}
    return own, about
