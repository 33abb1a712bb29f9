"""Names in a figure: at the ends of lines or beside points, moved no further than they must to be clear of each other.

Lengths here are points (1/72 inch), from the lower left corner of the page.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from bench.report.layout import GAP, inches

Boxes = NDArray[np.float64]  # [N, 4]: left, bottom, right, top

AROUND = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
RINGS = (4.0, 11.0, 18.0, 26.0)  # from the point to its name; beyond the first a thin line leads there
MARKER = 4.5  # half of what a point takes, so that no other name seems to be its own


class Name(NamedTuple):
    """A name, and the point that it belongs to in the axes' coordinates."""

    text: str
    x: float
    y: float
    colour: str
    size: float
    must: bool  # be shown even if it covers something


def room(size: float) -> float:
    """Inches from a name of that size to the next below it."""
    return 1.18 * size / 72


def at_ends(ax: Axes, names: Sequence[Name]) -> None:
    """Each name right of the axes, at the height of its line's end, with a thin line to it."""
    names = sorted(names, key=lambda name: name.y)
    wide, high = ax.bbox.width / ax.figure.dpi, ax.bbox.height / ax.figure.dpi  # inches
    rooms = np.array([room(name.size) for name in names])
    stack = np.concatenate([[0.0], np.cumsum((rooms[1:] + rooms[:-1]) / 2)])  # places of names that touch
    (left, end), (low, top) = ax.get_xlim(), ax.get_ylim()
    here = (np.clip([name.y for name in names], low, top) - low) / (top - low)
    spread = isotonic_regression(here * high - stack).x.clip(0.0, max(0.0, high - stack[-1]))
    for name, y, at in zip(names, here, (spread + stack) / high, strict=True):
        leader: dict[str, Any] = {"linewidth": 0.5, "linestyle": (0, (1, 1)), "color": name.colour, "clip_on": False}
        start = (name.x - left) / (end - left)
        ax.plot([start, 1, 1 + 3 * GAP / wide], [y, y, at], transform=ax.transAxes, **leader)
        look: dict[str, Any] = {"size": name.size, "color": name.colour, "va": "center_baseline"}
        ax.text(1 + 3.6 * GAP / wide, at, name.text, transform=ax.transAxes, **look)


def beside(ax: Axes, names: Sequence[Name], taken: Boxes | None = None) -> list[str]:
    """Each name where it covers least of points, other names and `taken`; names that come first choose first.

    Returns those that were left out for want of room, which happens only to names that need not be shown.
    """
    spots = points(ax, [(name.x, name.y) for name in names])
    full = np.concatenate([around(spots, MARKER), np.empty((0, 4)) if taken is None else taken])
    written, left_out = np.empty((0, 4)), []
    for own, (name, spot) in enumerate(zip(names, spots, strict=True)):
        others = np.delete(full, own, axis=0)
        size = np.array([72 * inches(name.text, name.size), name.size])
        tries = [_beside(spot, size, side, ring) for ring, side in itertools.product(RINGS, AROUND)]
        covers = [_covered(others, spot, box) + 10 * _covered(written, spot, box) for box in tries]
        covers = [cover + 100 * _outside(ax, box) for cover, box in zip(covers, tries, strict=True)]
        best = int(np.argmin(covers))
        if covers[best] and not name.must:
            left_out.append(name.text)
            continue
        written = np.concatenate([written, tries[best][None], around(_lead(spot, tries[best]), 0.5)])
        _write(ax, name, spot, tries[best], led=best >= len(AROUND))
    return left_out


def points(ax: Axes, xy: ArrayLike) -> NDArray[np.float64]:
    """Where values [N, 2] of the axes, whose limits are final, stand on the page."""
    return np.asarray(ax.transData.transform(np.asarray(xy, float).reshape(-1, 2))) * 72 / ax.figure.dpi


def around(spots: NDArray[np.float64], half: float) -> Boxes:
    """Squares around spots [N, 2]."""
    return np.concatenate([spots - half, spots + half], axis=1)


def along(spots: NDArray[np.float64], half: float = 1.0) -> Boxes:
    """The stairs from spot to spot, first across and then up or down."""
    out = []
    for (x, y), (right, top) in itertools.pairwise(spots):
        out += [(x, y - half, right, y + half), (right - half, min(y, top), right + half, max(y, top))]
    return np.array(out).reshape(-1, 4)


def _beside(
    spot: NDArray[np.float64], size: NDArray[np.float64], side: tuple[int, int], ring: float
) -> NDArray[np.float64]:
    """The box of a text of that size at that side of the spot."""
    away = ring if 0 in side else 0.7 * ring
    middle = spot + np.array(side) * (away + size / 2)
    return np.concatenate([middle - size / 2, middle + size / 2])


def _meet(boxes: Boxes, box: NDArray[np.float64]) -> NDArray[np.bool_]:
    met = (boxes[:, 0] < box[2]) & (boxes[:, 2] > box[0]) & (boxes[:, 1] < box[3]) & (boxes[:, 3] > box[1])
    return np.asarray(met)


def _covered(others: Boxes, spot: NDArray[np.float64], box: NDArray[np.float64]) -> int:
    """How many of the others a text's box meets, or the line that leads to it from its spot."""
    crossed = [_meet(others, np.concatenate([at, at])) for at in _lead(spot, box)]
    return int(np.sum(np.any([_meet(others, box), *crossed], axis=0)))


def _lead(spot: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points on the line from a spot to its name's box, none where the box is beside it. [N, 2]"""
    way = np.clip(spot, box[:2], box[2:]) - spot
    shares = np.linspace(0.3, 1, 8) if np.hypot(*way) > RINGS[0] else np.empty(0)
    return np.asarray(spot + shares[:, None] * way)


def _outside(ax: Axes, box: NDArray[np.float64]) -> bool:
    """Left of the axes, below or above them, or off the page."""
    scale = 72 / ax.figure.dpi
    low, high = scale * np.asarray(ax.bbox.min), scale * np.asarray(ax.bbox.max)
    page = ax.figure.bbox.x1 * scale - 72 * GAP / 2
    return bool(box[0] < low[0] or box[1] < low[1] or box[3] > high[1] + 4 or box[2] > page)


def _write(ax: Axes, name: Name, spot: NDArray[np.float64], box: NDArray[np.float64], *, led: bool) -> None:
    middle, scale = (box[:2] + box[2:]) / 2, ax.figure.dpi / 72
    if led:
        near = np.clip(spot, box[:2], box[2:])
        ends = np.stack([spot, near]) * scale
        thin: dict[str, Any] = {"linewidth": 0.4, "color": name.colour, "zorder": 1.7, "clip_on": False}
        ax.plot(*ax.transAxes.inverted().transform(ends).T, transform=ax.transAxes, **thin)
    right, up = middle - spot
    place: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center_baseline", "zorder": 5}
    text = ax.annotate(
        name.text, (name.x, name.y), (float(right), float(up)), size=name.size, color=name.colour, **place
    )
    text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
