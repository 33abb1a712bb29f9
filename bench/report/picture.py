"""Figures for a page: inside the file, and without the caption that stands below them."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import NamedTuple

from matplotlib.figure import Figure

DPI = 300
SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """A PNG of 300 dpi, its caption as plain text in one line, and the share of its height, from above, that is shown.

    In a page the caption is text: it can be read on a phone, searched and read aloud, and the picture ends above it.
    """

    png: bytes
    caption: str = ""
    shown: float = 1.0


@dataclass(frozen=True)
class Embedded:
    """A picture in a page: its data URI, and the size of what is shown of it on paper in CSS pixels (96 to an inch)."""

    name: str
    title: str
    caption: str
    uri: str
    width: int
    height: int


def picture(figure: Figure, png: bytes) -> Picture:
    """The figure for a page. png: the figure rendered, whole."""
    below = [text for text in figure.texts if text.get_gid() == "caption"] or figure.texts[-1:]
    foot = max((text.get_position()[1] for text in below), default=0.0)  # its upper edge, as a share of the height
    return Picture(png, " ".join(" ".join(text.get_text() for text in below).split()), 1 - foot)


def embedded(name: str, title: str, found: Picture) -> Embedded:
    """The picture for a page. Raises `ValueError` for what is no PNG."""
    if found.png[:8] != SIGNATURE or len(found.png) < 24:
        raise ValueError(f"figure '{name}' is no PNG")
    width, height = (n * 96 / DPI for n in struct.unpack(">II", found.png[16:24]))
    uri = "data:image/png;base64," + base64.b64encode(found.png).decode()
    return Embedded(name, title, found.caption, uri, round(width), round(height * found.shown))
