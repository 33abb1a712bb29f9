"""What each stage of a teacher offers, as a table and a figure: `stage_data` is what both show."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich import box
from rich.table import Table
from rich.text import Text

from bench.report import style
from bench.report import text as t
from bench.report.files import put
from bench.report.layout import GAP, LINE, at_right, inches, rendered, sheet, styled
from bench.report.provenance import commits

QUANTITIES = {"separation": "separation S", "information": "information I", "efficiency": "efficiency E"}
HEADINGS = {**QUANTITIES, "quality": "Q = S + √(I·E)"}
ROW = 0.22  # inches
TAKEN, LEFT = style.HUES[1], style.GREY


def stage_data(pair: str, rows: Sequence[Mapping[str, float]], chosen: Collection[int]) -> pd.DataFrame:
    """One row per stage of the pair's teacher, stem first: pair, stage, name, images, the four quantities, chosen."""
    data = pd.DataFrame(list(rows))[["stage", "images", *HEADINGS]].astype({"stage": int, "images": int})
    data.insert(0, "pair", pair)
    data.insert(2, "name", ["stem" if stage == 0 else str(stage) for stage in data["stage"]])
    return data.assign(chosen=data["stage"].isin(list(chosen)))


def rich(data: pd.DataFrame) -> Table:
    """The pair's table for the terminal, the chosen stages bold and marked."""
    title = Text(str(data["pair"].iloc[0]))
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    made.add_column("stage")
    for heading in (*QUANTITIES, "Q"):
        made.add_column(heading, justify="right")
    made.add_column("layers: auto", justify="center")
    for row in data.to_dict("records"):
        cells = [row["name"], *(t.number(row[key], 3) for key in HEADINGS), "●" if row["chosen"] else ""]
        made.add_row(*cells, style="bold" if row["chosen"] else "")
    return made


def write(where: Path, data: pd.DataFrame, environment: Mapping[str, Any]) -> Path:
    """The pair's figure as a PNG in the suite's folder `where`; its path."""
    commit = f"Commit {commits(pd.DataFrame([environment]))}."
    name = "layers-" + str(data["pair"].iloc[0]).replace("->", "__").replace("/", "-")  # torchvision/resnet18
    put(where, {f"figures/{name}.png": rendered(stage_figure(data, commit))}, stale=[f"figures/{name}.pdf"])
    return where / "figures" / f"{name}.png"


def stage_figure(data: pd.DataFrame, commit: str = "") -> Figure:
    """Four panels with a row per stage, the stem on top, drawn at final size; chosen stages filled, bold and shaded."""
    texts = _texts(data)
    left = 3 * GAP + max(inches(f"{name}m") for name in ("stage", *data["name"]))  # an m more: some are bold
    rooms = {key: max(map(inches, texts[key])) + 3 * GAP for key in HEADINGS}
    across = (style.PAGE - left - sum(rooms.values())) / len(HEADINGS)
    with styled():
        pair = str(data["pair"].iloc[0])
        figure, (band,) = sheet(
            [ROW * len(data)], [pair], _caption(data, commit), left=0, right=0, above=LINE + GAP / 2
        )
        _shade(band, data)
        wide, top = figure.get_size_inches()[0], 1 - GAP / figure.get_size_inches()[1]
        figure.text((left - GAP) / wide, top, "stage", va="top", ha="right")
        for key, heading in HEADINGS.items():
            box = band.get_position()
            ax = figure.add_axes((left / wide, box.y0, across / wide, box.height))
            _panel(ax, data, key, texts[key])
            figure.text(left / wide, top, heading, va="top")
            left += across + rooms[key]
        figure.axes[1].set_yticks(range(len(data)), data["name"])
        for label, bold in zip(figure.axes[1].get_yticklabels(), data["chosen"], strict=True):
            label.set_fontweight("bold" if bold else "normal")
    return figure


def _panel(ax: Axes, data: pd.DataFrame, key: str, texts: list[str]) -> None:
    """A dot per stage, joined in order of depth, and its number on the right."""
    values, places = data[key].tolist(), range(len(data))
    ax.set_facecolor("none")
    ax.set_ylim(len(data) - 0.5, -0.5)
    ax.set_yticks([])
    ax.tick_params(axis="y", pad=72 * GAP)
    ax.margins(x=0.12)
    ax.grid(axis="x")
    ax.plot(values, places, color=LEFT, linewidth=0.8)
    for y, value, text, chosen in zip(places, values, texts, data["chosen"], strict=True):
        colour, face = (TAKEN, TAKEN) if chosen else (LEFT, "white")
        ax.plot([value], [y], "o", markersize=4.5, color=colour, markerfacecolor=face, markeredgewidth=1)
        at_right(ax, y, text, **({"weight": "bold", "color": TAKEN} if chosen and key == "quality" else {}))
    ticks, labels = _ticks(*ax.get_xlim())
    ax.set_xticks(ticks, labels)
    ax.spines["left"].set_visible(False)


def _ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """The first and the last round number of an axis, and their texts: a panel this narrow has room for two."""
    inside = [v for v in map(float, MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)) if low <= v <= high]
    ticks = [inside[0], inside[-1]]
    places = max(len(f"{v:.6g}".partition(".")[2]) for v in ticks)
    return ticks, [t.number(v, places) for v in ticks]


def _shade(ax: Axes, data: pd.DataFrame) -> None:
    """A band behind every chosen stage, from edge to edge."""
    ax.set_axis_off()
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_ylim(len(data) - 0.5, -0.5)
    for y, chosen in enumerate(data["chosen"]):
        if chosen:
            ax.axhspan(y - 0.46, y + 0.46, color=style.LIGHT, alpha=0.5, linewidth=0)


def _texts(data: pd.DataFrame) -> dict[str, list[str]]:
    """The numbers to two decimals, or to three where two stages' Q would read the same."""
    places = 2 if data["quality"].round(2).is_unique else 3
    return {key: [t.number(value, places) for value in data[key]] for key in HEADINGS}


def _caption(data: pd.DataFrame, commit: str) -> str:
    teacher, _, student = str(data["pair"].iloc[0]).partition("->")
    images, n = t.counted(data["images"].iloc[0]), int(data["chosen"].sum())
    return (
        f"Geometry of the features of {images} training images in the stages of the teacher {teacher}. Filled, bold: "
        f"the {t.plural(n, 'stage')} of highest Q, which 'layers: auto' of logit_free takes for {student}. {commit}"
    ).strip()
