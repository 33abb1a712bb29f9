"""report.html: the whole report in one file that opens from disk, with its figures inside it and nothing fetched.

Everything is escaped; nothing that a row is called can add a tag.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.report import svg
from bench.report.blocks import Figure, Grid, Page, Value
from bench.report.layout import DPI
from bench.report.table import TERMINAL

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CODE = MarkdownIt("zero").enable("backticks")
LINKS = MarkdownIt("zero").enable(["backticks", "link"])
"""Plain text in which backticks alone mean something, and the project's own text, in which links do, too."""


def page(shown: Page, pictures: Mapping[str, bytes], views: Mapping[str, str] | None = None) -> str:
    """A page as HTML; a figure of which there is no picture is left out, so that nothing is fetched.

    pictures: PNGs or SVGs by name; views: words -> address of a view of all runs. Raises `ValueError` for others.
    """
    inside = {f.name: embedded(f, pictures[f.name]) for f in shown.figures if f.name in pictures}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"inline": inline, "cell": cell, "head": head, "sorted_by": sorted_by, "arrow": arrow}
    environment.filters |= {"label": label, "opened": opened, "behind": behind}
    return environment.get_template("report.html.j2").render(page=shown, pictures=inside, views=views or {})


def embedded(figure: Figure, picture: bytes) -> dict[str, str | int | Markup]:
    """An SVG as an element, or a PNG as a data URI with its size on paper in CSS pixels (96 to an inch)."""
    alt = arrow(f"{figure.title}. {figure.caption.partition('. ')[0]}" if figure.caption else figure.title)
    if picture[:5] == b"<?xml":
        return {"svg": Markup(svg.inlined(picture, f"picture-{figure.name}", alt)), "alt": alt}
    if picture[:8] != SIGNATURE or len(picture) < 24:
        raise ValueError(f"figure '{figure.name}' is no PNG")
    width, height = (round(n * 96 / DPI) for n in struct.unpack(">II", picture[16:24]))
    uri = "data:image/png;base64," + base64.b64encode(picture).decode()
    return {"svg": "", "uri": uri, "width": width, "height": height, "alt": alt}


def behind(grid: Grid) -> list[str]:
    """The columns that a switch shows: of a comparison all but the first ones, of other tables p-values."""
    comparison = {"label", "step_ratio"} <= grid.columns.keys()
    return [key for key in grid.columns if (key not in TERMINAL if comparison else key.startswith("p_"))]


def inline(text: str, links: bool = False) -> Markup:
    """Plain text with what stands in backticks as code."""
    return Markup((LINKS if links else CODE).renderInline(arrow(text)))


def cell(text: str) -> Markup:
    """A number and its interval each stay on one line; where room is short, they stand below each other."""
    first, bracket, rest = text.partition(" [")
    parts = [first, bracket.strip() + rest] if bracket else [text]
    return Markup(" ").join(Markup('<span class="whole">{}</span>').format(part) for part in parts)


def head(text: str) -> Markup:
    """A heading with its unit in small type."""
    found = re.fullmatch(r"(.+?) (\[[^\]]+\]|\([^)]+\))", arrow(text))
    return Markup("{} <small>{}</small>").format(*found.groups()) if found else Markup.escape(arrow(text))


def label(text: str) -> Markup:
    """A row's name, which may break where its parts end."""
    return Markup("<wbr>").join(re.split(r"(?<=[,+(])(?=\S)", text))


def arrow(text: object) -> str:
    """'a->b' as 'a → b', outside of backticks."""
    return re.sub(r"(`[^`]*`)|\s*->\s*", lambda found: found[1] or " → ", str(text))


def opened(sentence: str) -> str:
    """With a capital, unless it begins with the name of a row or a pair."""
    return sentence[:1].upper() + sentence[1:] if re.match(r"(no|one|the|with) ", sentence) else sentence


def sorted_by(value: Value) -> str:
    """What a cell is sorted by, as an attribute; empty where there is no number."""
    return value if isinstance(value, str) else repr(float(value)) if math.isfinite(value) else ""
