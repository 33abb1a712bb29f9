"""The memory of a step, on a network whose tensors can be counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.memory import state_bytes, track_saved_tensors
from tests.test_cli import call


def test_what_a_step_keeps() -> None:
    layer, x = nn.Linear(4, 3), torch.randn(5, 4)
    with track_saved_tensors([*layer.parameters(), x]) as saved:
        loss = layer(x).sigmoid().square().sum()
    assert sum(saved.values()) == 4 * 5 * 3  # the sigmoid's output alone: x and the weights are somebody else's
    loss.backward()
    with track_saved_tensors([]) as saved:
        layer(x).sum()
    assert sum(saved.values()) == 4 * 5 * 4  # x, for the gradient of the weights


def test_what_a_member_holds() -> None:
    net = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    assert state_bytes([net], optimizer) == 4 * 15
    net(torch.ones(1, 4)).sum().backward()
    assert state_bytes([net], optimizer) == 4 * 30
    optimizer.step()
    assert state_bytes([net], optimizer) == 4 * 45


def test_a_method_that_keeps_more_is_charged_more(tmp_path: Path, tiny_file: Path, tiny: dict[str, Any]) -> None:
    from tracking.frame import frame
    from tracking.record import scan

    words = ["--methods", "vanilla,kd,crd,block_kd", "--seeds", "1", "--quiet"]
    assert call("run", str(tiny_file), *words, "--results", str(tmp_path / "r")) == 0
    memory = frame(scan(tmp_path / "r" / "tiny")).set_index("label")["cost/memory_mb"]
    assert memory["vanilla"] < memory["kd"] < memory["block_kd"] and memory["vanilla"] < memory["crd"]
    assert memory["kd"] - memory["vanilla"] < 0.05  # a few [B, C] matrices
