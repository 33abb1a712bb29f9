"""Text as HTML: cells, headings and Markdown. Everything is escaped; nothing that a row is called can add a tag."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.report.picture import Embedded

CODE = MarkdownIt("zero").enable("backticks")
"""Plain text in which backticks alone mean something: names of rows may hold stars and underscores."""

SCROLL = '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>\n'


def environment() -> Environment:
    """Jinja's, for the templates of this folder."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"code": code, "cell": cell, "head": head, "sortable": sortable, "arrow": arrow, "label": label}
    return made


def code(text: str) -> Markup:
    """Plain text with what stands in backticks as code."""
    return Markup(CODE.renderInline(text))


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


def arrow(pair: object) -> str:
    """'a->b' as 'a → b'."""
    return re.sub(r"\s*->\s*", " → ", str(pair))


def sortable(value: float | str) -> str:
    """What a cell is sorted by; empty where there is no number."""
    return value if isinstance(value, str) else repr(value) if math.isfinite(value) else ""


def images(text: str) -> list[str]:
    """Names of the figures that a Markdown text shows."""
    return re.findall(r"!\[[^\]]*\]\(figures/([^)/]+)\.png\)", text)


def section(text: str, figures: Mapping[str, Embedded]) -> Markup:
    """Markdown as HTML: raw HTML is shown as it is written, tables scroll, images are the report's own figures.

    An image of which there is no figure is left out, so that nothing is fetched.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")

    def image(tokens: Sequence[Any], i: int, options: Any, env: Any) -> str:
        found = figures.get(str(tokens[i].attrs.get("src", "")).removeprefix("figures/").removesuffix(".png"))
        if found is None:
            return ""
        size = (found.uri, tokens[i].content, found.width, found.height)
        return str(Markup('<img src="{}" alt="{}" width="{}" height="{}">').format(*size))

    rules: dict[str, Any] = parser.renderer.rules  # type: ignore[attr-defined]
    rules |= {"image": image, "table_open": lambda *_: SCROLL, "table_close": lambda *_: "</table></div>\n"}
    return Markup(parser.render(text))
