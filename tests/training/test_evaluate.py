"""Metrics: perfect, golden by hand, empty, and the same for every batch size."""

from __future__ import annotations

import math

import pytest
import torch

from bench.training.evaluate import calibration_error, metrics


def test_a_perfect_answer() -> None:
    y = torch.arange(12)
    logits = 50.0 * torch.eye(12)
    got = metrics(logits, y, logits)
    assert got["top1"] == got["top5"] == got["agreement"] == 100
    assert got["nll"] == pytest.approx(0, abs=1e-6) and got["kl"] == pytest.approx(0, abs=1e-6)
    assert got["ece"] == pytest.approx(0, abs=1e-3)


def test_by_hand() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]])
    q = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7], [0.2, 0.7, 0.1]])
    y = torch.tensor([0, 0, 2, 1])
    got = metrics(p.log(), y, q.log())
    assert "top5" not in got
    assert got["top1"] == pytest.approx(50) and got["agreement"] == pytest.approx(50)
    assert got["nll"] == pytest.approx(-(math.log(0.7) + math.log(0.4) + math.log(0.8) + math.log(0.3)) / 4)
    assert got["kl"] == pytest.approx(float((q * (q / p).log()).sum(1).mean()), rel=1e-5)
    # confidences 0.7, 0.5, 0.8, 0.6 fall into four of the fifteen bins: |1-0.7| + |0-0.5| + |1-0.8| + |0-0.6| over 4
    assert got["ece"] == pytest.approx(100 * (0.3 + 0.5 + 0.2 + 0.6) / 4, rel=1e-5)


def test_calibration_counts_full_confidence() -> None:
    assert calibration_error(torch.tensor([[100.0, 0.0]]), torch.tensor([1])) == pytest.approx(1.0)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        metrics(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
