"""Every figure is drawn: for six rows, for 39, for two pairs, for one seed; and `drawn` says which there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from bench.errors import UserError
from bench.report import layout, plots
from bench.report.plots import (
    calibration,
    cost,
    errors,
    fidelity,
    learning,
    matrix,
    predictions,
    reported,
)
from tests.report.made_up import GAINS
from tests.report.made_up_plots import near, run, suite
from tracking.frame import frame
from tracking.record import scan

COMMIT = "Commit 0123456789ab."
MANY = GAINS | {f"method_{i}(alpha={i})": 0.1 * i - 1.5 for i in range(33)}


def drawn(root: Path, made: tuple[pd.DataFrame, list[Any]], baseline: str = "vanilla") -> dict[str, plots.Plot]:
    return plots.drawn(made[0], made[1], baseline, COMMIT, near(*made))


def texts(ax: Axes) -> list[Text]:
    """The texts of an axes that are drawn: not the ticks beyond its limits."""
    ticks = []
    for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        low, high = sorted(limits)
        for tick in axis.get_major_ticks():
            ticks += [
                text for text in (tick.label1, tick.label2) if text.get_visible() and low <= tick.get_loc() <= high
            ]
    return [text for text in [*ax.texts, *ticks, ax.xaxis.label, ax.yaxis.label] if text.get_text()]


def drawn_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text of a figure with its box, in pixels."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    found = [*figure.texts, *(text for ax in figure.axes if ax.axison for text in texts(ax))]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found]


def out_of_page(figure: Figure) -> list[str]:
    page = figure.bbox
    return [t for t, b in drawn_texts(figure) if b.x0 < 0 or b.y0 < 0 or b.x1 > page.x1 or b.y1 > page.y1]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Texts that cover each other; a hair's breadth is not seen."""
    boxes = [(text, box.shrunk(0.9, 0.75)) for text, box in drawn_texts(figure)]
    return [(a[0], b[0]) for i, a in enumerate(boxes) for b in boxes[:i] if a[1].overlaps(b[1])]


@pytest.mark.parametrize(
    ("gains", "pairs", "seeds"),
    [
        (GAINS, ["resnet32x4->resnet8x4"], 3),
        (MANY, ["resnet32x4->resnet8x4"], 2),
        (GAINS | {"at": 0.2, "crd+kd": 0.5}, ["resnet32x4->resnet8x4", "vgg13->vgg8"], 2),
        (GAINS, ["resnet32x4->resnet8x4"], 1),
    ],
    ids=["six", "many", "pairs", "one-seed"],
)
def test_every_figure_is_drawn_within_its_page(
    tmp_path: Path, gains: dict[str, float], pairs: list[str], seeds: int
) -> None:
    found = drawn(tmp_path, suite(tmp_path, gains, pairs, seeds))
    assert list(found) == [name for name in plots.NAMES if name not in ("top1", "gain")]
    for name, plot in found.items():
        assert out_of_page(plot.figure) == [], name
        assert overlapping(plot.figure) == [], name
        assert plot.figure.get_size_inches()[0] == 5.5
        assert COMMIT in plot.caption and "\n" not in plot.caption and f"{seeds} seed" in plot.caption
        assert set(plot.data["pair"]) == set(pairs)
        assert all("(" not in text.get_text() or "…" not in text.get_text() for text in plot.figure.texts)


def test_figures_become_files_and_equal_data_equal_bytes(tmp_path: Path) -> None:
    made = suite(tmp_path)
    files = {name: layout.rendered(plot.figure) for name, plot in drawn(tmp_path, made).items()}
    again = drawn(tmp_path, made)
    for name in ("fidelity", "learning"):
        assert files[name] == layout.rendered(again[name].figure)
    for name, file in files.items():
        assert 10_000 < len(file) < 900_000, name


def test_what_has_no_data_is_absent(tmp_path: Path) -> None:
    runs, records = suite(tmp_path / "a", {"vanilla": 0.0, "dkd": 1.0}, ["a->b"], predictions=False, epochs=0)
    assert list(drawn(tmp_path, (runs, records))) == ["difference", "matrix", "cost"]
    bare = runs.drop(columns=[column for column in runs if str(column).startswith("cost/")])
    assert list(drawn(tmp_path, (bare, records))) == ["difference", "matrix"]
    one, alone = suite(tmp_path / "c", {"kd": 0.0}, ["a->b"])
    assert list(drawn(tmp_path, (one, alone), "kd")) == ["top1", "learning", "fidelity", "calibration", "errors"]


def test_no_twin_where_kd_is_the_baseline_and_no_figure_without_runs(tmp_path: Path) -> None:
    made = suite(tmp_path)
    assert "difference_kd" not in drawn(tmp_path, made, "kd")
    with pytest.raises(ValueError, match="no finished run of 'dist'"):
        drawn(tmp_path, made, "dist")
    with pytest.raises(ValueError, match="is finished with a number"):
        drawn(tmp_path, (made[0].assign(status="failed"), made[1]))


def test_figures_refuse_to_draw_nothing() -> None:
    empty = pd.DataFrame()
    for module in (matrix, errors, reported):
        with pytest.raises(ValueError, match=r"to draw|to compare"):
            module.figure(empty)
    for based in (cost, learning, fidelity, calibration):
        with pytest.raises(ValueError, match="to draw"):
            based.figure(empty, "vanilla")


def test_a_run_that_did_not_finish_is_in_no_figure(tmp_path: Path) -> None:
    suite(tmp_path, {"vanilla": 0.0, "kd": 1.0})
    broken = run(tmp_path, "f" * 16, "dkd", 0, "resnet32x4->resnet8x4")
    broken.end("diverged", "loss is NaN", {"test/top1": float("nan"), "test/agreement": 10.0}, [])
    records = scan(tmp_path)
    found = drawn(tmp_path, (frame(records), records))
    assert {"difference", "matrix", "learning", "calibration", "errors"} <= found.keys()
    for name, plot in found.items():
        there = [column for column in ("label", "row", "column") if column in plot.data]
        assert set(plot.data[there].to_numpy().ravel()) <= {"vanilla", "kd"}, name


def test_runs_without_predictions_are_left_out_and_damaged_ones_named(tmp_path: Path) -> None:
    runs, records = suite(tmp_path, seeds=2)
    kd = runs.loc[(runs["label"] == "kd") & (runs["seed"] == 0), "fingerprint"].iloc[0]
    path = tmp_path / "runs" / kd / "predictions.npz"
    whole = path.read_bytes()
    path.unlink()
    found = drawn(tmp_path, (runs, records))
    for name in ("calibration", "errors"):
        counts = found[name].data.groupby("label")["n"].first()
        assert counts["kd"] == 1 and counts["dkd"] == 2
    for content, said in ((whole[:100], "not readable as predictions"), (b"", "not readable as predictions")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=said) as error:
            predictions.read(runs, records)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    word = np.zeros(3, np.uint16)
    np.savez(path, label=word, guess=word)
    with pytest.raises(UserError, match="has no 'confidence'"):
        predictions.read(runs, records)
    np.savez(path, label=word, guess=word, confidence=np.zeros(2, np.float32))
    with pytest.raises(UserError, match="differ in length"):
        predictions.read(runs, records)


def test_a_sheet_has_panels_of_the_asked_heights_and_titles_where_there_are_several() -> None:
    figure, axes = layout.sheet([1.0, 2.0], ["a->b", "c->d"], "One.  Two.", left=0.5, right=0.5)
    assert figure.get_label() == "One. Two."
    assert [text.get_text() for text in figure.texts] == ["a → b", "c → d"]
    heights = [ax.get_position().height * figure.get_size_inches()[1] for ax in axes]
    assert heights == pytest.approx([1.0, 2.0]) and out_of_page(figure) == []
    assert layout.sheet([1.0], ["a->b"], "", left=0.5, right=0.5)[0].texts == []


def test_plots_load_neither_torch_nor_the_harness() -> None:
    root = Path(__file__).parents[2]
    heavy = ("torch", "methods", "bench.suite.suite", "bench.jobs.run", "mlflow", "matplotlib.pyplot", "sklearn")
    files = sorted((root / "bench/report/plots").glob("[a-z]*.py"))
    names = ["bench.report.figures", *(f"bench.report.plots.{path.stem}" for path in files)]
    imports = f"import sys, importlib; [importlib.import_module(n) for n in {names}]"
    code = f"{imports}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
