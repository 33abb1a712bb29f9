"""Reference values as files: their reading, and what tests of them share."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.base import Dims, Method, NetDims, NetworkView, Out, Progress

FOLDER = Path(os.environ.get("KDBENCH_GOLDEN") or Path(__file__).parent.parent / "golden") / "methods"
WORST: dict[tuple[str, str], list[float]] = defaultdict(list)  # relative differences by file and kind
SEEN: set[str] = set()


class Golden:
    """One file: arrays as float64 tensors, inputs that want gradients, and `close` that remembers what was compared."""

    def __init__(self, name: str) -> None:
        self.name = name
        SEEN.add(name)
        with np.load(FOLDER / f"{name}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        self.hyper: dict[str, Any] = json.loads(str(arrays.pop("hyper")))
        self.arrays = {key: torch.from_numpy(value) for key, value in arrays.items()}
        self.compared: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        value = self.arrays[key]
        return value.double() if value.is_floating_point() else value

    def wanted(self, key: str) -> Tensor:
        return self[key].clone().requires_grad_()

    def maps(self, prefix: str, *, wanted: bool = False) -> list[Tensor]:
        """The inputs prefix0, prefix1, …, shallow to deep."""
        return [(self.wanted if wanted else self.__getitem__)(f"{prefix}{i}") for i in range(self.count(prefix))]

    def load(self, module: nn.Module, prefix: str, rename: dict[str, str] | None = None) -> nn.Module:
        """The module in double precision with the parameters param_<prefix>…; every one must find its place."""
        state = {}
        for key in self.arrays:
            if key.startswith(f"param_{prefix}"):
                name = key.removeprefix(f"param_{prefix}").lstrip(".")
                state[(rename or {}).get(name, name)] = self[key]
        assert state
        missing = module.double().load_state_dict(state, strict=False)
        assert not missing.unexpected_keys
        assert all("running" in k or "num_batches" in k for k in missing.missing_keys), missing.missing_keys
        return module

    def gradients(self, prefix: str, module: nn.Module, rename: dict[str, str] | None = None) -> None:
        """Compare the gradients <prefix>… with the module's parameters."""
        parameters = dict(module.named_parameters())
        for key in [k for k in self.arrays if k.startswith(prefix)]:
            name = key.removeprefix(prefix).lstrip(".")
            self.close(key, parameters[(rename or {}).get(name, name)].grad)

    def numbers(self, prefix: str, suffix: str = "") -> list[int]:
        """The numbers n of the keys <prefix>n<suffix>, in order."""
        found = (re.fullmatch(rf"{prefix}(\d+){suffix}", key) for key in self.arrays)
        return sorted(int(match[1]) for match in found if match)

    def count(self, prefix: str) -> int:
        return len(self.numbers(prefix))

    def close(self, key: str, ours: Tensor | None) -> None:
        assert ours is not None
        reference = self[key]
        assert ours.shape == reference.shape, key
        tolerance = 1e-6 if self.hyper["dtype"] == "float64" else 1e-4
        worst = (ours.detach() - reference).abs().max() / reference.abs().max().clamp(min=1e-12)
        WORST[self.name, "gradient" if key.startswith("grad") else "value"].append(worst.item())
        assert worst <= tolerance, f"{key}: {worst:.1e}"
        self.compared.add(key)

    def all_compared(self, *but: str) -> None:
        left = {k for k in self.arrays if k.startswith(("out_", "grad_"))} - self.compared - set(but)
        assert not left, f"not compared: {sorted(left)}"


def dims_of(fs: list[Tensor], ft: list[Tensor], pooled: tuple[int, int] = (1, 1), n_classes: int = 2) -> Dims:
    """Dims of networks whose stages show these maps (the stem, too, shows the first)."""
    nets = []
    for maps, width in ((fs, pooled[0]), (ft, pooled[1])):
        shapes = tuple((f.shape[1], f.shape[2], f.shape[3]) for f in [maps[0], *maps])
        nets.append(NetDims(shapes, shapes, (True,) * len(shapes), width))
    return Dims(nets[0], nets[1], n_classes, len(fs[0]), torch.arange(2 * n_classes) % n_classes)


def dims_of_logits(z: Tensor) -> Dims:
    """Dims of networks that answer with logits z: [B, C]."""
    maps = [z[:, :, None, None]]
    return dims_of(maps, maps, n_classes=z.shape[1])


def seen(kind: type[Method], **taps: Tensor | tuple[Tensor, ...]) -> NetworkView:
    empty: dict[str, Any] = {"logits": torch.zeros(1), "feats": (), "preacts": (), "pooled": torch.zeros(1)}
    return NetworkView({"weak": Out(**(empty | taps))}, [tap for tap in kind.needs.taps if tap != "tail"])


def two_views(g: Golden, kind: type[Method], side: str, wanted: bool = False) -> tuple[NetworkView, dict[str, Tensor]]:
    z = {view: (g.wanted if wanted else g.__getitem__)(f"in_logits_{side}_{view}") for view in ("weak", "strong")}
    return NetworkView({view: Out(v, (), (), v) for view, v in z.items()}, kind.needs.taps), z


def at_epoch(epoch: int, epochs: int) -> Progress:
    share = torch.tensor(epoch / epochs, dtype=torch.float64)
    return Progress(epoch, epochs, torch.Generator(), None, share)


def stages(g: Golden, loss: Any, weight: Any = lambda i, n: 1.0) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The weighted sum over stages of a loss that gives one value per example; compares and backs it."""
    fs, ft = g.maps("in_feat_s_", wanted=True), g.maps("in_feat_t_")
    each = [weight(i, len(fs)) * loss(a, b).mean() for i, (a, b) in enumerate(zip(fs, ft, strict=True))]
    total = torch.stack(each).sum()
    total.backward()
    g.close("out_loss", total)
    if "out_loss_per_stage" in g.arrays:
        g.close("out_loss_per_stage", torch.stack(each))
    if "out_loss_repdistiller" in g.arrays:
        g.close("out_loss_repdistiller", total)
    for i, f in enumerate(fs):
        g.close(f"grad_feat_s_{i}", f.grad)
    return total, fs, ft
