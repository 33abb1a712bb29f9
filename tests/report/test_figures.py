from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bench.report import figures, layout, simultaneous, stats, style
from tests.prose import Prose
from tests.report.made_up import GAINS, frame


def test_difference_data_is_what_the_statistics_say() -> None:
    data = figures.difference_data(frame(), "vanilla")
    assert len(data) == 25 and "vanilla" not in set(data["label"])
    means = data.drop_duplicates("label")["mean"].tolist()
    assert means == sorted(means, reverse=True)
    assert data.groupby("label")["value"].mean().to_dict() == pytest.approx(
        data.groupby("label")["mean"].first().to_dict()
    )
    paired = stats.paired(frame(), "vanilla").set_index("label")
    kd = data[data["label"] == "kd"].iloc[0]
    assert kd[["low", "high", "n"]].tolist() == paired.loc["kd", ["low", "high", "n"]].tolist()


def test_verdicts_are_those_of_the_simultaneous_intervals() -> None:
    data = figures.difference_data(frame(), "vanilla")
    family = {label: part["value"] for label, part in data.groupby("label")}
    for row in simultaneous.intervals(family).itertuples():
        own = data[data["label"] == row.label].iloc[0]
        assert (own["wide_low"], own["wide_high"], own["verdict"]) == (row.low, row.high, row.verdict)
        assert own["wide_low"] <= own["low"] <= own["high"] <= own["wide_high"]
    verdicts = data.drop_duplicates("label").set_index("label")["verdict"].to_dict()
    assert verdicts["block_kd"] == "better" and verdicts["fitnet"] == "open"


def colours_of_marks(figure: Figure) -> set[str]:
    return {str(line.get_color()) for ax in figure.axes for line in ax.lines if line.get_marker() == "o"}


def test_one_row_far_out_does_not_squeeze_the_others_and_an_arrow_says_so(prose: Prose) -> None:
    gains = {"vanilla": 0.0, **{f"m{i}": 0.1 * i for i in range(14)}, "diverged": -80.0, "good": 4.0}
    figure = figures.difference_figure(figures.difference_data(frame(gains), "vanilla"), "vanilla", "Commit abc.")
    low, high = figure.axes[0].get_xlim()
    assert low > -10 and high > 4 and texts_out_of_page(figure) == []
    arrows = [line for line in figure.axes[0].lines if line.get_marker() == "<"]
    assert [(np.asarray(line.get_xdata()).tolist(), line.get_color()) for line in arrows] == [
        ([low], style.VERDICTS["worse"])
    ]
    assert any(text.get_text().startswith(("−79", "−80")) for text in figure.axes[0].texts)
    assert colours_of_marks(figure) == set(style.VERDICTS.values())
    assert figure.axes[0].xaxis.get_tick_params()["labeltop"]  # of many rows the numbers stand above, too
    prose(str(figure.get_label()))


def test_level_data_is_the_accuracy_itself() -> None:
    data = figures.level_data(frame({"crd": 0.0}))
    assert data["value"].tolist() == frame({"crd": 0.0})["test/top1"].tolist()
    assert (data["high"] - data["low"]).iloc[0] == pytest.approx(2 * stats.summary(frame({"crd": 0.0}))["half"].iloc[0])


def test_no_shared_seed_no_figure() -> None:
    with pytest.raises(ValueError, match="no seed is shared with 'vanilla'"):
        figures.difference_figure(figures.difference_data(frame({"vanilla": 0.0}), "vanilla"), "vanilla")


def texts_out_of_page(figure: Figure) -> list[str]:
    renderer, page = figure.canvas.get_renderer(), figure.bbox  # type: ignore[attr-defined]
    found = [*figure.texts, *(text for ax in figure.axes for text in [*ax.texts, *ax.get_yticklabels()])]
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in found}
    return [text for text, b in boxes.items() if b.x0 < 0 or b.y0 < 0 or b.x1 > page.x1 or b.y1 > page.y1]


def test_nothing_leaves_the_page_and_size_is_final() -> None:
    more = frame({**GAINS, "dkd(alpha=1,beta=2,tau=4)": 0.4}, 3, "resnet32x4->ShuffleV2")
    data = figures.difference_data(pd.concat([frame(), more], ignore_index=True), "vanilla")
    before = dict(matplotlib.rcParams)
    figure = figures.difference_figure(data, "vanilla", "Commit 0123456789ab with uncommitted changes.")
    png, pdf = layout.rendered(figure), layout.rendered(figure, "pdf")
    assert dict(matplotlib.rcParams) == before and "matplotlib.pyplot" not in vars(figures)
    assert texts_out_of_page(figure) == [] and len(figure.axes) == 2
    assert struct.unpack(">II", png[16:24])[0] == round(300 * style.PAGE)
    assert pdf.startswith(b"%PDF") and b"/Type0" in pdf and b"/Type3" not in pdf  # fonttype 42
    assert 10_000 < len(png) < 400_000 and 5_000 < len(pdf) < 200_000
    caption = str(figure.get_label())
    assert "n = 3 to 5 seeds" in caption and "95 % t interval" in caption and "0123456789ab" in caption


def test_the_caption_is_no_part_of_the_picture_but_the_file_says_it() -> None:
    figure = figures.level_figure(figures.level_data(frame({"kd": 0.0})), "Commit 0123456789ab.")
    caption = str(figure.get_label())
    assert caption.endswith("Commit 0123456789ab.") and not figure.texts
    assert Image.open(io.BytesIO(layout.rendered(figure))).info["Description"] == caption


def test_a_figure_of_one_seed_and_of_levels_can_be_drawn() -> None:
    one = figures.difference_figure(figures.difference_data(frame(seeds=1), "vanilla"), "vanilla")
    level = figures.level_figure(figures.level_data(frame({"kd": 0.0}, seeds=1)))
    assert texts_out_of_page(one) == texts_out_of_page(level) == []
    assert "n = 1 seed per row" in str(one.get_label())


def test_equal_figures_are_equal_bytes() -> None:
    data = figures.level_data(frame({"kd": 0.0}))
    assert layout.rendered(figures.level_figure(data)) == layout.rendered(figures.level_figure(data))


def test_a_method_has_one_look_and_the_usual_ones_differ() -> None:
    names = ("vanilla", "kd", "dkd", "fitnet", "crd", "block_kd", "sld", "logit_free")
    assert len({style.look(name)[0] for name in names}) == len(names)
    assert style.look("vanilla") == (style.GREY, "o") and style.look("kd")[0] == "#000000"
    assert style.look("dkd") == (style.HUES[4], style.MARKERS[4])  # a change here changes every figure


def test_coloured_text_is_legible() -> None:
    assert style.legible("#000000") == "#000000" and style.legible("#0072B2") == "#0072B2"
    for hue in (*style.HUES, style.GREY, style.SOFT):
        assert 1.05 / (style.luminance(style.legible(hue)) + 0.05) >= 4.5
    assert style.luminance("#FFFFFF") == pytest.approx(1.0)


def test_the_report_loads_neither_torch_nor_the_harness() -> None:
    heavy = ("torch", "methods", "bench.suite.suite", "bench.jobs.run", "mlflow", "matplotlib.pyplot")
    code = f"import sys, bench.report; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_rows_that_stand_out_have_hues_of_their_own() -> None:
    names = ["kd", "block_kd", "lskd_dkd", "kd_two_view", "dkd", "vanilla"]  # three of them have one hue by name
    looks = style.looks(names)
    assert looks["kd"] == style.look("kd") and looks["block_kd"] == style.look("block_kd")
    assert len({colour for colour, _ in looks.values()}) == len(names)
    many = style.looks([f"m{i}" for i in range(20)])
    assert {colour for colour, _ in many.values()} == set(style.HUES)  # more rows than hues: markers tell them apart
