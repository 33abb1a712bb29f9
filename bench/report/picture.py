"""Figures for a page: inside the file, with their captions as text."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import NamedTuple

DPI = 300
SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Picture(NamedTuple):
    """A PNG of 300 dpi, and what stands below it: text can be read on a phone, searched and read aloud."""

    png: bytes
    caption: str = ""


@dataclass(frozen=True)
class Embedded:
    """A picture in a page: its data URI, and its size on paper in CSS pixels (96 to an inch)."""

    name: str
    title: str
    caption: str
    uri: str
    width: int
    height: int


def embedded(name: str, title: str, found: Picture) -> Embedded:
    """The picture for a page. Raises `ValueError` for what is no PNG."""
    if found.png[:8] != SIGNATURE or len(found.png) < 24:
        raise ValueError(f"figure '{name}' is no PNG")
    width, height = (n * 96 / DPI for n in struct.unpack(">II", found.png[16:24]))
    uri = "data:image/png;base64," + base64.b64encode(found.png).decode()
    return Embedded(name, title, found.caption, uri, round(width), round(height))
