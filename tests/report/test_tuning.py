from __future__ import annotations

import itertools
import struct
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.errors import UserError
from bench.report import layout, markdown, style, trials, tuning, tuning_page
from bench.report.plots import best_of_k, ranking, trial_cost
from tests.prose import Prose, numbers
from tests.report.made_up import ENVIRONMENT
from tests.report.made_up_trials import MANY, METHODS, PAIR, TUNE, studies, study, trial
from tests.report.made_up_trials import trials as made_up


def curve(frame: pd.DataFrame) -> Figure:
    return best_of_k.figure(trials.best_of_k(frame), trials.recipes(frame), "Commit 0123456789ab.")


def scatter(frame: pd.DataFrame) -> Figure:
    return trial_cost.figure(trials.pareto(frame), "Commit 0123456789ab.")


def caption(figure: Figure) -> str:
    return str(figure.get_label())


def names(figure: Figure, known: tuple[str, ...]) -> list[Text]:
    return [text for ax in figure.axes for text in ax.texts if text.get_text() in known]


def out_of_page(figure: Figure) -> list[str]:
    """Texts that the page cuts; a tick outside of the axis has a text, too, which is not drawn."""
    figure.draw_without_rendering()  # an axis' name finds its place only then
    renderer, page = figure.canvas.get_renderer(), figure.bbox  # type: ignore[attr-defined]
    found = [*figure.texts, *(text for ax in figure.axes for text in (*ax.texts, ax.xaxis.label, ax.yaxis.label))]
    for ax in figure.axes:
        for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in found if text.get_text()}
    return [text for text, b in boxes.items() if b.x0 < 0 or b.y0 < 0 or b.x1 > page.x1 or b.y1 > page.y1]


def overlaps(texts: list[Text], figure: Figure) -> list[tuple[str, str]]:
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [(text.get_text(), text.get_window_extent(renderer).padded(-0.5)) for text in texts]
    return [(a, b) for (a, one), (b, two) in itertools.combinations(boxes, 2) if one.overlaps(two)]


@pytest.mark.parametrize("methods", [METHODS, MANY], ids=["few", "many"])
def test_every_curve_has_its_name_and_no_names_touch(methods: tuple[str, ...]) -> None:
    before = dict(matplotlib.rcParams)
    figure = curve(made_up(methods))
    png = layout.rendered(figure)
    assert dict(matplotlib.rcParams) == before
    placed = names(figure, methods)
    assert sorted(text.get_text() for text in placed) == sorted(methods)
    assert overlaps(placed, figure) == [] == out_of_page(figure)
    assert struct.unpack(">II", png[16:24])[0] == round(300 * style.PAGE)
    order = trials.budget(made_up(methods))["method"].tolist()
    assert [t.get_text() for t in sorted(placed, key=lambda t: -t.get_position()[1])] == order


def test_of_many_methods_kd_and_the_best_have_a_colour(prose: Prose) -> None:
    frame = made_up(MANY)
    best = trials.budget(frame)["method"].tolist()
    bright = ranking.coloured(best, "kd")
    assert bright == ["kd", *[name for name in best if name != "kd"][: ranking.BEST]]
    colours = {text.get_text(): text.get_color() for text in names(curve(frame), MANY)}
    assert {name for name, colour in colours.items() if colour != style.SOFT} == set(bright)
    prose(caption(curve(frame)))
    assert len({text.get_color() for text in names(curve(made_up()), METHODS)}) == len(METHODS)


def test_the_recipe_is_marked_where_it_stands() -> None:
    rows = [trial(0, 60.0), trial(1, 61.0), trial(2, 62.0)]
    moved = [trial(n, 58.0 + n, "dkd") | {"recipe": n == 1} for n in range(3)]  # after a kill it may come later
    lines = curve(pd.DataFrame([*rows, *moved])).axes[0].get_lines()
    hollow = [line for line in lines if line.get_markerfacecolor() == "white"]
    assert sorted(tuple(np.array(line.get_xydata())[0]) for line in hollow) == [(1, 60.0), (2, 59.0)]
    stairs = [line for line in lines if line.get_drawstyle() == "steps-mid"]
    assert sorted(np.asarray(line.get_ydata()).tolist() for line in stairs) == [[58, 59, 60], [60, 61, 62]]


def test_a_recipe_far_below_squeezes_no_axis_and_is_said(prose: Prose) -> None:
    frame = made_up()
    frame.loc[(frame["method"] == "dkd") & frame["recipe"], "top1"] = 3.0
    figure = curve(frame)
    assert figure.axes[0].get_ylim()[0] > 60
    assert "dkd (3.0)" in caption(figure)
    prose(caption(figure))
    assert layout.fence([70.0]) == 70 and layout.fence([3.0, 70.0]) == 3 and layout.fence([3, 70, 71, 70, 72, 71]) == 70


def test_unequal_studies_pairs_and_one_trial_can_be_drawn(prose: Prose) -> None:
    short = pd.concat([made_up(("kd",), 24), made_up(("dkd",), 12), made_up(("at",), 5, "wrn-40-2->ShuffleV2")])
    for frame in (
        short,
        made_up(("kd",), 1),
        pd.DataFrame([trial(0, 100.0, step_ms=1.0), trial(1, 100.0, step_ms=1.0)]),
    ):
        for figure in (curve(frame), scatter(frame)):
            assert out_of_page(figure) == [] and layout.rendered(figure)
    assert len(curve(short).axes) == 2
    for frame, shown in ((short, [5, 24]), (made_up(("kd",), 1), [1])):
        assert numbers(caption(curve(frame)))[: len(shown)] == shown
        prose(caption(curve(frame)))


def test_a_method_without_a_complete_trial_is_named() -> None:
    frame = pd.concat([made_up(("kd",)), pd.DataFrame([trial(0, method="at", state="failed")])])
    assert "No complete trial: at." in caption(curve(frame))
    with pytest.raises(ValueError, match="no trial is complete"):
        curve(frame[frame["method"] == "at"])
    with pytest.raises(ValueError, match="no complete trial"):
        scatter(frame[frame["method"] == "at"])


@pytest.mark.parametrize("methods", [METHODS, MANY], ids=["few", "many"])
def test_the_front_is_drawn_and_names_cover_nothing(methods: tuple[str, ...]) -> None:
    frame = made_up(methods)
    figure = scatter(frame)
    front = trials.pareto(frame).query("front").sort_values("step_ms")
    (line,) = (line for line in figure.axes[0].get_lines() if line.get_drawstyle() == "steps-post")
    np.testing.assert_array_equal(np.array(line.get_xydata()), front[["step_ms", "top1"]])
    placed = names(figure, methods)
    assert overlaps(placed, figure) == [] == out_of_page(figure)
    assert {*front["method"], "kd"} <= {text.get_text() for text in placed}
    assert len(placed) > (len(methods) - 1 if len(methods) < 10 else 20)
    assert figure.axes[0].get_xscale() == ("linear" if methods == METHODS else "log")


def test_a_long_name_is_cut() -> None:
    figure = curve(made_up(("kd", "combine(losses=kd+dkd+at,weights=1+0.5+1000)")))
    (text,) = (text for text in figure.axes[0].texts if text.get_text() != "kd")
    assert text.get_text() == "combine(losses=kd+dkd+a…" and out_of_page(figure) == []


def test_ticks_begin_with_one_and_end_with_the_last() -> None:
    assert [best_of_k._ticks(n) for n in (1, 2, 8, 12)] == [[1], [1, 2], [*range(1, 9)], [1, 2, 4, 6, 8, 10, 12]]
    assert (
        best_of_k._ticks(24) == [1, 5, 10, 15, 20, 24]
        and best_of_k._ticks(37)[-2:] == [30, 37]
        and best_of_k._ticks(100)[-2:] == [80, 100]
    )


ROWS = trials.budget(pd.DataFrame([trial(n, 60.0 + n, name) for name in ("kd", "dkd") for n in range(3)]))


def test_the_answer_says_whether_budgets_were_equal(prose: Prose) -> None:
    steps = ROWS.assign(student_steps=[300.0, 1250.0], pruned=[1, 0])
    more = ROWS.assign(trials=[3, 5])
    for rows, verdict, shown in (
        (ROWS, "equal", [2, 3, 300]),
        (ROWS[:1], "one method", [3, 300]),
        (steps, "equal in trials", [3, 2, 300, 1250, 1]),
        (more, "unequal", [3, 5, 300]),
    ):
        assert tuning_page.budgets(rows) == verdict and numbers(tuning_page.answer(rows)) == shown
        prose(tuning_page.answer(rows))
    assert "300 (dkd) to 1,250 (kd)" in tuning_page.answer(steps) and "3 (dkd) to 5 (kd)" in tuning_page.answer(more)
    pairs = pd.concat([ROWS, more.assign(pair="a->b")])
    assert [line.partition(":")[0] for line in tuning_page.answer(pairs).split("\n")] == [PAIR, "a->b"]
    same = pd.concat([ROWS, ROWS.assign(pair="a->b")])
    assert tuning_page.answer(same) == tuning_page.answer(ROWS)


def test_the_table_by_hand(prose: Prose) -> None:
    rows = trials.budget(
        pd.DataFrame([trial(0, 60.0), trial(1, 61.256), trial(0, method="at(a|b)", state="failed", steps=1200)])
    )
    head, _, kd, at = markdown.blocks(tuning_page.grids(rows)).split("\n")
    columns = ["method", "trials", "failed", "student-steps", "seconds", "recipe (%)", "best (%)", "gain"]
    assert head.strip("| ").split(" | ") == columns
    assert numbers(kd) == [2, 0, 200, 5, 60.00, 61.26, 1.26] and numbers(at) == [1, 1, 1200, 2]
    prose(markdown.blocks(tuning_page.grids(rows)))


def test_a_report_says_budget_spaces_choice_and_how_to_use_it(tmp_path: Path, prose: Prose) -> None:
    frame = made_up(pruned=0.0)
    frame = frame.assign(state="complete", top1=frame["top1"].fillna(60.0), student_steps=480)
    studies(tmp_path, frame)
    made = tuning.write(tmp_path, "made", {})
    text = made.report.read_text()
    assert tuning_page.budgets(made.rows) == "equal" and numbers(made.answer) == [6, 24, 11520]
    assert f"**{made.answer}**" in text and "SUITE=made TUNED=1" in text and "](../tuned/made)" in text
    prose(made.answer)
    assert text.index(made.answer) < text.index("figures/tuning.png") < text.index("| method |")
    order = ("rule: best_trial, the most", "objective: accuracy\n", "sampler: tpe", "pruner: none", "batch: 4")
    for part in (*order, "search seed: 0", "training seed: 1000"):
        assert f"\n- {part}" in text
    for part in ("| kd | `tau` | 1 to 20, log | 4 | 7.5 |", "commit: 0123456789ab", "## Unfinished\n\nNone."):
        assert part in text
    assert "figures/tuning-cost.png" in text and "partly the luckiest" in text and str(tmp_path) not in text
    assert "(tuning/resnet56--resnet20_kd/trials.csv)" in text
    assert made.csv.read_text().startswith("pair,method,trials,pruned,failed,student_steps,seconds,recipe,best,gain")
    assert "0.1 to 20, log" in made.csv.read_text() and made.tables[0].row_count == 6
    for path in (made.figure, made.cost):
        assert path and path.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.rglob("*.partial"))
    again = {path: path.read_bytes() for path in (tmp_path / "made").glob("**/*") if path.is_file()}
    tuning.write(tmp_path, "made", {})
    assert again == {path: path.read_bytes() for path in (tmp_path / "made").glob("**/*") if path.is_file()}


def test_studies_that_differ_or_are_not_finished_are_said(tmp_path: Path, prose: Prose) -> None:
    rows = made_up(("kd", "dkd"), 6, pruned=0.0, times=False)
    kd = rows[rows["method"] == "kd"]
    kd = kd.assign(state=["complete"] * 5 + ["failed"], reason=[""] * 5 + ["loss is nan in epoch 2"])
    study(tmp_path, kd, {**TUNE, "sampler": "random"}, chosen=False)
    folder = study(tmp_path, rows[rows["method"] == "dkd"], chosen=False, status="running")
    (folder / "trials.csv").write_text("".join((folder / "trials.csv").read_text().splitlines(keepends=True)[:4]))
    (folder / "figures").mkdir()
    (folder / "figures" / "history.png").write_bytes(b"")
    old = tmp_path / "made" / "figures" / "tuning-cost.png"
    old.parent.mkdir()
    old.write_text("of the call before")
    made = tuning.write(tmp_path, "made", {})
    text = made.report.read_text()
    assert made.cost is None and not old.exists() and "tuning-cost" not in text
    assert "tpe (dkd); random (kd)" in text and "rule: best_trial" in text
    assert f"dkd on {PAIR}: running, 6 trials" in text and f"kd on {PAIR}, trial 5: failed (loss is nan" in text
    assert "[history](tuning/resnet56--resnet20_dkd/" in text and "../tuned/" not in text
    assert tuning_page.budgets(made.rows) == "unequal"
    prose(text)


def test_trials_without_records_are_reported_with_this_calls_environment(tmp_path: Path) -> None:
    frame = pd.DataFrame([trial(0, state="failed"), trial(1, state="failed")])
    (study(tmp_path, frame, chosen=False) / "record.jsonl").unlink()
    made = tuning.write(tmp_path, "made", ENVIRONMENT)
    text = made.report.read_text()
    assert made.figure is None and made.cost is None and "png" not in text and "commit: 0123456789ab" in text
    assert text.count("Not recorded.") == 2 and "trials 0 and 1: failed" in text


def test_nothing_tuned_is_one_line_that_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no trials of 'made' .*`kdbench tune made`$"):
        tuning.write(tmp_path, "made", {})
    assert tuning.sections(tmp_path, "made") == []


def test_the_section_of_the_report_is_short_and_shows_the_figure_that_is_there(tmp_path: Path) -> None:
    studies(tmp_path, made_up())
    before = markdown.blocks(tuning.sections(tmp_path, "made"))
    assert before.startswith("## Tuning\n\n**Equal") and "| fitnet | 24 |" in before and "png" not in before
    tuning.write(tmp_path, "made", {})
    after = markdown.blocks(tuning.sections(tmp_path, "made"))
    assert after.startswith(f"{before}\n\n![{tuning_page.FIGURES['tuning']}](figures/tuning.png)\n\nBest validation")
    assert "[tuning.md](tuning.md)" in after
    assert len(after.split("\n")) < 25


def test_the_report_of_tuning_loads_neither_torch_nor_optuna() -> None:
    heavy = ("torch", "methods", "bench.suite.suite", "mlflow", "optuna", "sklearn", "matplotlib.pyplot")
    code = f"import sys, bench.report.tuning, bench.report.studies; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
