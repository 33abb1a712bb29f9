"""Order and colours of rows, and where names are put."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.report.layout import sheet
from bench.report.plots import place, ranking
from tests.report.made_up_plots import rows_of

PAIR = "big->small"
THREE = {"b": [79.0, 79.0, 82.0], "c": [70.0, 72.0], "a": [80.0, 81.0, 82.0]}


def test_levels_are_paired_and_rows_come_best_first() -> None:
    out = ranking.levels(rows_of(THREE), "b")
    assert out["label"].tolist() == ["a", "b", "c"] and out["n"].tolist() == [3, 3, 2]
    assert out["top1"].tolist() == pytest.approx([81.0, 80.0, 72.0])  # c is 8 below b where both are, not 71
    assert ranking.order(rows_of(THREE), "b") == {PAIR: ["a", "b", "c"]}
    lonely = rows_of({"b": [80.0], "c": [90.0, 60.0]}).drop(index=1)  # c has seed 1 alone
    assert ranking.levels(lonely, "b")["top1"].tolist() == [80.0, 60.0]
    assert ranking.levels(rows_of({"b": [80.0, 81.0]}), "b")["top1"].tolist() == [80.5]


def test_rows_are_put_in_order_and_strangers_left_out() -> None:
    some = pd.DataFrame({"pair": ["p", "q", "p", "p"], "label": ["x", "x", "y", "z"], "value": range(4)})
    assert ranking.in_order(some, {"q": ["x"], "p": ["y", "x"]})["value"].tolist() == [1, 2, 0]
    assert ranking.in_order(some.iloc[:0], {"p": ["x"]}).empty


def test_of_many_rows_the_baseline_kd_and_the_best_have_a_colour_and_the_same_in_all_pairs() -> None:
    names = [f"m{i}" for i in range(9)]
    assert ranking.coloured(names[:7], "m3") == names[:7]
    assert ranking.coloured([*names, "kd", "vanilla"], "vanilla") == ["vanilla", "kd", *names[:5]]
    parts = {p: pd.DataFrame({"label": labels}) for p, labels in (("p", names[:7]), ("q", [*names[4:], "kd", *"abc"]))}
    looks = ranking.palettes(parts, "vanilla")
    shared = set(looks["p"]) & set(looks["q"])
    assert shared and all(looks["p"][name] == looks["q"][name] for name in shared)
    assert "m8" in looks["q"] and "a" not in looks["q"] and ranking.look("a", looks["q"])[0] == "#A6A6A6"


def axes_of(n: int = 1) -> Any:
    return sheet([2.0] * n, [""] * n, "c", left=0.6, right=1.0)[1][0]


def boxes(ax: Any) -> list[Any]:
    renderer = ax.figure.canvas.get_renderer()
    return [text.get_window_extent(renderer).shrunk(0.95, 0.7) for text in ax.texts]


def test_names_beside_points_cover_neither_each_other_nor_points() -> None:
    draw, ax = np.random.default_rng(0), axes_of()
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    xy = draw.random((30, 2)) * [0.8, 0.9] + 0.05
    left_out = place.beside(ax, [place.Name(f"method {i}", x, y, "#000000", 6.0, False) for i, (x, y) in enumerate(xy)])
    found = boxes(ax)
    assert len(found) + len(left_out) == 30 and len(found) > 20
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])
    pixels = ax.transData.transform(xy)
    assert not any(box.contains(*point) for box in found for point in pixels)


def test_a_name_without_room_is_left_out_unless_it_must_be_there() -> None:
    ax = axes_of()
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    everything = np.array([[0.0, 0.0, 1e4, 1e4]])
    names = [place.Name("a", 0.5, 0.5, "#000000", 8.0, False), place.Name("b", 0.2, 0.5, "#000000", 8.0, True)]
    assert place.beside(ax, names, everything) == ["a"]
    assert [text.get_text() for text in ax.texts] == ["b"]
    assert place.beside(ax, []) == []


def test_names_at_ends_keep_the_order_of_their_lines() -> None:
    ax = axes_of()
    ax.set_xlim(0, 10)
    ax.set_ylim(0, 100)
    place.at_ends(ax, [place.Name(f"m{i}", 10, 50 + 0.1 * i, "#000000", 8.0, True) for i in range(8)])
    heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert sorted(heights, key=lambda name: heights[name]) == [f"m{i}" for i in range(8)]
    found = boxes(ax)
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])
    assert np.mean(list(heights.values())) == pytest.approx(0.5, abs=0.02)
