"""How figures look: a dict for `matplotlib.rc_context`, no global state; and each method's colour and marker.

Okabe & Ito's colours (jfly.uni-koeln.de/color) are distinct for any colour vision; a marker says the same again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

COLUMN, PAGE = 3.25, 5.5
"""Widths in inches: one column of a two-column paper, and the text of a one-column paper."""

SIZE = 8.0
"""Text in points at final width."""

GREY, LIGHT, INK = "#7F7F7F", "#E3E3E3", "#222222"
SOFT = "#666666"
"""Text of less weight than INK's; the lightest grey that may be text is #767676 (contrast 4.5 on white)."""
HUES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
VERDICTS = {"better": HUES[1], "worse": HUES[0], "open": GREY}
"""Colours of `stats.standing`; what is equal is not distinguishable either."""
MARKERS = ("s", "^", "D", "v", "p", "h", "d")

RC: Any = {
    "font.size": SIZE,
    "font.family": "sans-serif",
    "axes.labelsize": SIZE,
    "axes.titlesize": SIZE,
    "xtick.labelsize": SIZE,
    "ytick.labelsize": SIZE,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LIGHT,
    "grid.linewidth": 0.6,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a row's name is shown as it is
}


def look(name: str) -> tuple[str, str]:
    """Colour and marker of a row in every figure: the student alone grey, plain KD black, others by their name alone.

    The salt is chosen so that the methods of the suites that come with the project get different colours.
    """
    if name == "vanilla":
        return GREY, "o"
    if name == "kd":
        return "#000000", "o"
    number = zlib.crc32(f"557/{name}".encode())
    return HUES[number % len(HUES)], MARKERS[number // len(HUES) % len(MARKERS)]


def looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """`look` of the rows that stand out in one figure: a hue that an earlier name has taken gives way to a free one."""
    free, out = list(HUES), {}
    for name in names:
        colour, marker = look(name)
        if colour in HUES and free:
            colour = colour if colour in free else free[0]
            free.remove(colour)
        out[name] = colour, marker
    return out
