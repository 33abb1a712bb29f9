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
PALE_FIELD = "#F0F0F0"
ON_DARK, ON_LIGHT = "#FEFEFE", "#212121"
"""Text on a field whose colour a page leaves as it is, also in the dark."""
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
    "svg.hashsalt": "kdbench",  # equal figures are equal bytes
    "text.parse_math": False,  # a row's name is shown as it is
}


def luminance(colour: str) -> float:
    """Relative luminance of '#rrggbb' (WCAG 2.2), 0 to 1."""
    levels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def legible(colour: str) -> str:
    """The colour as text on white: darkened until its contrast is 4.5 (WCAG 2.2, AA)."""
    while 1.05 / (luminance(colour) + 0.05) < 4.5:
        colour = "#" + "".join(f"{int(0.95 * int(colour[i : i + 2], 16)):02X}" for i in (1, 3, 5))
    return colour


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
