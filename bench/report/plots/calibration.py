"""Reliability curves: how often guesses of a confidence are right, in 15 bins of equal width pooled over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.report import style
from bench.report import text as t
from bench.report.plots import multiples
from bench.report.plots.predictions import Said, told
from bench.report.plots.ranking import PALE, Order, in_order, palettes, panels, seeds, span

BINS = 15
FEWEST = 30  # images in a bin that is drawn: of fewer the share says little
COLUMNS = ["pair", "label", "n", "bin", "images", "share", "confidence", "accuracy", "ece"]


def data(runs: pd.DataFrame, said: Mapping[str, Said], ranks: Order) -> pd.DataFrame:
    """One row per label and bin that has images; empty without predictions.

    n seeds; bin 0..14; images, pooled over seeds; share of all images; mean confidence and accuracy in the bin, in
    [0, 1]; ece, the mean over seeds of each run's expected calibration error, in %, as the table has it.
    """
    sums: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for pair, label, run in told(runs, said):
        sums.setdefault((pair, label), []).append(bins(run))
    parts = []
    for (pair, label), each in sums.items():
        images, confidence, right = np.sum(each, axis=0)
        full = images > 0
        part = pd.DataFrame({"bin": np.arange(BINS)[full], "images": images[full].astype(int)})
        part = part.assign(share=part["images"] / images.sum(), ece=100 * float(np.mean([ece(run) for run in each])))
        means = {"confidence": confidence[full] / images[full], "accuracy": right[full] / images[full]}
        parts.append(part.assign(pair=pair, label=label, n=len(each), **means))
    return in_order(pd.concat(parts), ranks)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def bins(run: Said) -> NDArray[np.float64]:
    """Of each bin: images, sum of confidences, images that are right. [3, BINS]"""
    confidence = run["confidence"].astype(np.float64)
    place = np.clip((run["confidence"] * BINS).astype(int), 0, BINS - 1)
    weights = (np.ones(len(place)), confidence, (run["guess"] == run["label"]).astype(float))
    return np.stack([np.bincount(place, weight, BINS) for weight in weights])


def ece(sums: NDArray[np.float64]) -> float:
    """Expected calibration error in [0, 1] (Guo et al. 2017, arXiv 1706.04599, eq. 3). sums: `bins`."""
    images, confidence, right = sums
    return float(np.abs(right - confidence).sum() / images.sum())


def figure(data: pd.DataFrame, baseline: str, commit: str = "") -> Figure:
    """Per pair a small panel for each row, or for those that have a colour. Raises `ValueError` without data."""
    if data.empty:
        raise ValueError("no finished run has its predictions: there are no curves to draw")
    parts = panels(data)
    caption = (
        f"Expected calibration error (ECE, mean over seeds) {span(data, 'ece', ' %')}. Lines: accuracy of the guesses "
        f"in {BINS} bins of confidence, pooled over seeds ({seeds(data['n'])}); marker area: share of test images. "
        f"Bins of fewer than {FEWEST} images are left out. Below the diagonal: too sure."
        f"{' Grey: all other rows.' if (data.groupby('pair')['label'].nunique() > 1).any() else ''} {commit}"
    )
    return multiples.figure(parts, palettes(parts, baseline), caption, _panel, "confidence (%)", "accuracy (%)")


def _panel(ax: Axes, part: pd.DataFrame, label: str, colour: str) -> str:
    own = part[part["label"] == label]
    ax.set(xlim=(0, 100), ylim=(0, 100), xticks=[0, 50, 100], yticks=[0, 50, 100])
    ax.grid(axis="y")
    ax.plot([0, 100], [0, 100], color=style.INK, linewidth=0.6, linestyle=(0, (4, 2)), zorder=1.6)
    for _, other in part[(part["label"] != label) & (part["images"] >= FEWEST)].groupby("label", sort=False):
        ax.plot(100 * other["confidence"], 100 * other["accuracy"], color=PALE, linewidth=0.5, alpha=0.4, zorder=1.7)
    seen = own[own["images"] >= FEWEST]
    ax.plot(100 * seen["confidence"], 100 * seen["accuracy"], color=colour, linewidth=1.2, zorder=2.5)
    area: dict[str, Any] = {"s": 4 + 90 * seen["share"], "color": colour, "edgecolors": "white", "linewidths": 0.4}
    ax.scatter(100 * seen["confidence"], 100 * seen["accuracy"], zorder=2.6, clip_on=False, **area)
    return f"ECE {t.number(float(own['ece'].iloc[0]), 1)} %"
