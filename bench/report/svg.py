"""A figure's SVG as a part of an HTML page: colours by the page's style sheet, ids of its own, every text escaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from bench.report import style

LARGEST = 400_000  # bytes; a larger one makes a page slow, and its PNG is smaller
COLOURS = {"#000000": "currentColor", style.INK: "currentColor", "#FFFFFF": "var(--paper)", style.LIGHT: "var(--rule)"}
COLOURS |= {style.SOFT: "var(--soft)", style.legible(style.GREY): "var(--soft)", style.PALE_FIELD: "var(--faint)"}
COLOURS |= {style.legible(hue): f"var(--text-{i}, {style.legible(hue)})" for i, hue in enumerate(style.HUES)}
COLOURS |= {hue: f"var(--hue-{i}, {hue})" for i, hue in enumerate(style.HUES)}
"""What the style sheet decides; hues and their names are lighter in the dark, where they have it."""
DROPPED = ("metadata", "style")
FONT = re.compile(r"font: (?:(\d+) )?([\d.]+)px [^;]*")


def inlined(svg: bytes, prefix: str, alt: str) -> str:
    """The picture as an element. prefix: of its ids, so that two pictures of a page do not share one; alt: its text."""
    root = ElementTree.fromstring(svg)
    used = set(re.findall(r"#([\w-]+)[\")]", svg.decode()))
    for parent in root.iter():
        for child in [child for child in parent if _name(child.tag) in DROPPED]:
            parent.remove(child)
    for part in root.iter():
        part.tag = _name(part.tag)
        given, own = {_name(key): value for key, value in part.attrib.items()}, str(part.attrib.get("id", ""))
        given.pop("id", "")
        part.attrib.clear()
        part.attrib.update({key: _value(value, prefix) for key, value in given.items()})
        if own in used:
            part.set("id", f"{prefix}-{own}")
        elif own == "halo":
            part.set("class", "halo")
        part.tail = None
        part.text = part.text if part.tag == "text" else None
    box = str(root.get("viewBox"))
    width, height = (float(n) * 96 / 72 for n in box.split()[2:])
    root.attrib.clear()
    root.attrib.update({"viewBox": box, "width": f"{width:.0f}", "height": f"{height:.0f}"})
    root.attrib.update({"role": "img", "aria-label": alt})
    return ElementTree.tostring(root, encoding="unicode")


def _name(tag: str) -> str:
    """Without its namespace, which HTML knows."""
    return tag.rpartition("}")[2]


def _value(value: str, prefix: str) -> str:
    value = re.sub(r"(^|url\()#(?=[\w-]+(?:\)|$))(?![0-9a-fA-F]{6}$)", rf"\1#{prefix}-", value)
    value = FONT.sub(lambda found: f"font-size: {found[2]}px" + f"; font-weight: {found[1]}" * bool(found[1]), value)
    return re.sub(r"#[0-9a-fA-F]{6}\b", lambda found: COLOURS.get(found[0].upper(), found[0]), value)
