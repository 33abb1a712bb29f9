"""Every network answers as the reference does, on the reference's tensors."""

import json
import math
import os
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.models import build, names

FOLDER = Path(os.environ.get("KDBENCH_GOLDEN") or Path(__file__).parents[1] / "golden")
GOLDEN = json.loads((FOLDER / "models.json").read_text())
assert GOLDEN["networks"], "no reference networks"
pytestmark = pytest.mark.golden


@cache
def image() -> Tensor:
    return torch.from_numpy(_draw("", (2, 3, 32, 32)))


def _draw(name: str, shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(zlib.crc32((GOLDEN["salt"] + name).encode())).standard_normal(shape)


def fill(name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of that name, as the reference was filled."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    r = _draw(name, shape)
    if name.endswith("running_var"):
        r = 1 + 0.1 * abs(r)
    elif len(shape) >= 2:
        r = r * math.sqrt(0.5 / math.prod(shape[1:]))
    else:
        r = 1 + 0.1 * r if name.endswith("weight") else 0.1 * r
    return torch.from_numpy(np.asarray(r))


def close(taps: Any, expected: list[dict[str, Any]]) -> None:
    assert len(taps) == len(expected)
    for tap, want in zip(taps, expected, strict=True):
        assert list(tap.shape) == want["shape"]
        got = [tap.mean().item(), tap.std().item()]
        np.testing.assert_allclose(got, [want["mean"], want["std"]], rtol=1e-9, atol=1e-11)


def test_all_names_are_covered() -> None:
    assert FOLDER.name != "golden" or "KDBENCH_GOLDEN" in os.environ or set(GOLDEN["networks"]) == set(names())


@pytest.mark.parametrize("name", list(GOLDEN["networks"]))
def test_network(name: str) -> None:
    want = GOLDEN["networks"][name]
    net = build(name).double().eval()
    assert [[k, list(t.shape)] for k, t in net.state_dict().items()] == want["tensors"]
    assert sum(p.numel() for p in net.parameters()) == want["parameters"]
    net.load_state_dict({k: fill(k, tuple(shape)) for k, shape in want["tensors"]})
    with torch.no_grad():
        out = net(image())
    np.testing.assert_allclose(out.logits.numpy(), np.array(want["logits"]), rtol=0, atol=1e-9)
    close(out.feats, want["feats"])
    close([out.pooled], [want["pooled"]])
    if want["preact_feats"]:
        close(out.preacts, want["preact_feats"])
    else:
        assert out.preacts == (None,) * len(out.feats)
