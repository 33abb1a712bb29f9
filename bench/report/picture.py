"""Figures for a page: without the caption that stands below them, and inside the file."""

from __future__ import annotations

import base64
import io
import struct
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from bench.report.figures import styled

DPI = 300
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Embedded:
    """A picture in a page: its data URI, and its size on paper in CSS pixels (96 to an inch)."""

    name: str
    title: str
    caption: str
    uri: str
    width: int
    height: int


def picture(figure: Figure) -> tuple[bytes, str]:
    """The figure as PNG at 300 dpi without the caption that stands below it, and the caption in one line.

    In a page the caption is text: it can be read on a phone, searched and read aloud. The figure stays as it is.
    """
    below = [text for text in figure.texts if text.get_gid() == "caption"] or figure.texts[-1:]
    width, height = figure.get_size_inches()
    foot = max((text.get_position()[1] * height for text in below), default=0.0)  # its upper edge, in inches
    buffer = io.BytesIO()
    with styled():
        box = Bbox.from_extents(0, foot, width, height)
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, bbox_inches=box)
    return buffer.getvalue(), " ".join(" ".join(text.get_text() for text in below).split())


def embedded(name: str, title: str, png: bytes, caption: str) -> Embedded:
    """The picture for a page. Raises `ValueError` for what is no PNG."""
    if png[:8] != SIGNATURE or len(png) < 24:
        raise ValueError(f"figure '{name}' is no PNG")
    width, height = (round(n * 96 / DPI) for n in struct.unpack(">II", png[16:24]))
    return Embedded(name, title, caption, "data:image/png;base64," + base64.b64encode(png).decode(), width, height)
