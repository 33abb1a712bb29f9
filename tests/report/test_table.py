from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench.report import columns, markdown, published, simultaneous, stats, table
from bench.report import text as t
from tests.prose import Prose, numbers
from tests.report.made_up import GAINS, frame, run


def written(rows: pd.DataFrame) -> str:
    """The tables of all pairs as a page shows them, and what their marks mean."""
    grids = [columns.grid(part) for _, part in rows.groupby("pair", sort=False)]
    return "\n\n".join([markdown.blocks(grids), *grids[0].captions]) + "\n"


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (t.level(88.44, 0.91, 5, 1), "88.4 ± 0.9"),
        (t.level(88.44, math.nan, 1, 1), "88.4 (n=1)"),
        (t.level(math.nan, math.nan, 0, 1), "–"),
        (t.difference(1.81, 0.93, 2.69, 5, 1), "+1.8 [+0.9, +2.7]"),
        (t.difference(-0.3, -0.62, 0.02, 5, 2), "−0.30 [−0.62, +0.02]"),
        (t.difference(1.81, math.nan, math.nan, 1, 1), "+1.8 (n=1)"),
        (t.signed(-0.001, 1), "0.0"),
        (t.times(1.839), "1.84×"),
        (t.counted(12345.0), "12,345"),
        (t.joined(["a", "b", "c"]), "a, b and c"),
        (t.joined(["a"]), "a"),
    ],
)
def test_numbers_as_text(got: str, want: str) -> None:
    assert got == want


def test_decimals_follow_the_interval() -> None:
    assert t.decimals([0.9, 0.8, 0.3]) == 1 and t.decimals([0.2, 0.3, 0.9]) == 2
    assert t.decimals([]) == t.decimals([math.nan]) == 1
    assert t.decimals([0.9], [0.03, 1.83]) == 2  # 0.0 would hide on which side of zero the interval ends


def test_rows_are_ordered_by_difference_and_hold_the_statistics() -> None:
    rows, paired = table.build(frame()), stats.paired(frame(), "vanilla").set_index("label")
    means = paired["mean"].to_dict() | {"vanilla": 0.0}
    assert rows["label"].tolist() == sorted(GAINS, key=lambda label: -means[label])
    assert rows["baseline"].eq("vanilla").all()
    kd = rows.set_index("label").loc["kd"]
    assert (
        kd[["difference", "difference_low", "difference_high"]].tolist()
        == paired.loc["kd", ["mean", "low", "high"]].tolist()
    )
    crd = rows.set_index("label").loc["crd"]
    assert crd[["agreement", "step_ratio", "images_ratio", "extra_params"]].tolist() == [94.0, 3.0, 2.0, 4000.0]
    assert crd["to_kd"] == pytest.approx(stats.paired(frame(), "kd").set_index("label").loc["crd", "mean"])


def test_the_chance_to_be_best_and_the_place_stand_beside_every_row() -> None:
    """Of 36 rows without a difference the best of three seeds is bold, and its place is not known."""
    draw = np.random.default_rng(4)
    runs = [run(f"m{i}", seed, 80 + draw.normal()) for i in range(36) for seed in range(3)]
    rows = table.build(pd.DataFrame(runs), "m0")
    assert rows["best"].tolist() == [True] + [False] * 35 and rows["with_best"].all()
    assert rows["p_best"].sum() == pytest.approx(1) and rows["p_best"].iloc[0] == rows["p_best"].max()
    assert (rows["rank_low"] <= rows["rank_high"]).all() and rows["rank_high"].iloc[0] > 5
    text = written(rows)
    head = next(line for line in text.splitlines() if line.startswith("| method |"))
    assert "| P(best) | rank [95 %] |" in head and text.count("**") == 2 * 2 and text.count("≈ |") == 35
    for column in ("p_best", "rank_low", "rank_high", "all_low", "all_high", "standing"):
        assert column in table.csv(rows).partition("\n")[0].split(",")


def test_the_best_is_bold_and_what_is_not_distinguishable_from_it_is_marked(prose: Prose) -> None:
    rows = table.build(frame())
    to_best = simultaneous.to_reference(frame(), "block_kd").query("low <= 0 <= high")["label"]
    assert set(rows.loc[rows["with_best"], "label"]) == {"block_kd", *to_best} and len(to_best) > 1
    assert rows.loc[rows["best"], "label"].tolist() == ["block_kd"]
    text = written(rows)
    lines = {line.split(" ")[1]: line for line in text.splitlines() if line.startswith("| ")}
    assert numbers(lines["**block_kd**"])[:6] == [5, 87.9, 0.7, 1.7, 1.0, 2.4] and "**87.9 ± 0.7**" in text
    assert numbers(lines["fitnet"])[:3] == [5, 85.6, 0.5] and f"| {to_best.iloc[0]} ≈ | 5 |" in text
    assert "| fitnet | 5 |" in text
    prose(text)


def test_of_many_rows_noise_is_neither_bold_nor_better() -> None:
    """A row that is best in one seed of three, and a steady one just below the best."""
    steady = {f"m{i}": [80.0 - i, 81.0 - i, 80.5 - i] for i in range(8)}
    values = {"kd": [80.2, 81.1, 80.8], "wild": [60.0, 95.0, 70.0], **steady}
    runs = pd.DataFrame([run(label, seed, x) for label, each in values.items() for seed, x in enumerate(each)])
    rows = table.build(runs).set_index("label")
    assert (
        rows.index[rows["best"]].tolist() == ["kd"] and rows.loc["wild", "with_best"] and not rows.loc["wild", "best"]
    )
    assert (rows["reference"] == "kd").all() and rows.loc["kd", "to_reference"] != rows.loc["kd", "to_reference"]
    family = simultaneous.to_reference(runs, "kd").set_index("label").loc["m3"]
    assert rows.loc["m3", ["all_low", "all_high", "standing"]].tolist() == family[["low", "high", "verdict"]].tolist()
    assert rows["p_best"].sum() == pytest.approx(1) and (rows["rank_low"] <= rows["rank_high"]).all()


def test_a_row_that_lacks_a_seed_has_no_rank() -> None:
    runs = frame()
    rows = table.build(runs.drop(index=runs.index[runs["label"].eq("kd") & runs["seed"].eq(2)])).set_index("label")
    assert math.isnan(rows.loc["kd", "p_best"]) and rows["p_best"].sum() == pytest.approx(1)


def test_tuned_kd_is_the_reference_of_the_column() -> None:
    runs = frame({"vanilla": 0.0, "kd": 1.0, "kd(tuned)": 2.0, "dkd": 1.5})
    heads = [column.heading for column in columns.columns(table.build(runs)).values()]
    assert "− kd(tuned) [95 % CI]" in heads and "− kd [95 % CI]" not in heads


def test_one_seed_bolds_nothing_and_says_n() -> None:
    rows = table.build(frame(seeds=1))
    assert not rows["with_best"].any() and "(n=1)" in written(rows) and "Bold" not in written(rows)


def test_a_row_without_a_finished_run_stands_last_and_empty() -> None:
    lost = pd.DataFrame([run("sld", seed, math.nan, status="diverged", reason="loss is nan") for seed in range(2)])
    rows = table.build(pd.concat([lost, frame()], ignore_index=True))
    assert rows["label"].iloc[-1] == "sld" and rows["n"].iloc[-1] == 0
    assert "| sld | 0 | – | – | – | – |" in written(rows)


def test_one_table_per_pair() -> None:
    rows = table.build(pd.concat([frame(), frame(pair="a->b", seeds=3)], ignore_index=True))
    assert rows.groupby("pair", sort=False)["n"].max().to_dict() == {"big->small": 5, "a->b": 3}
    assert len(table.rich(rows)) == 2


def test_one_method_gives_a_table_without_differences() -> None:
    text = written(table.build(frame({"crd": 0.0})))
    assert "CI]" not in text and "step time" not in text and "| crd | 5 |" in text


def test_missing_metrics_leave_their_column_out() -> None:
    bare = frame().drop(columns=["test/agreement", "cost/step_alone_ms"])
    text = written(table.build(bare))
    assert "agreement" not in text and "step time" not in text and "NLL" in text


def test_csv_is_read_back_unrounded() -> None:
    rows = table.build(frame())
    back = pd.read_csv(io.StringIO(table.csv(rows)))
    assert back["label"].tolist() == rows["label"].tolist()
    assert back["difference"].dropna().tolist() == pytest.approx(rows["difference"].dropna().tolist(), abs=1e-12)


@pytest.mark.parametrize("name", ["0.5*reviewkd + dkd + crd", "a_very_long_method_name_that_somebody_chose"])
def test_long_names_and_wide_intervals_are_wrapped_never_cut(name: str) -> None:
    rows = table.build(frame({"vanilla": 0.0, "kd": 0.1} | {f"{name}_{i}": -3.0 * i for i in range(12)}, noise=14))
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    console.print(table.rich(rows)[0])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    first = "".join(line[: line.index("  ") if "  " in line else None] for line in text.splitlines())
    assert f"{name}_11".replace(" ", "") in first.replace(" ", "")


def test_the_terminal_table_fits_80_columns() -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    console.print(table.rich(table.build(frame()))[0])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert (
        "…" not in text and "+1.7 [+1.0, +2.4]" in text and "3.50×" in text and max(map(len, text.splitlines())) <= 80
    )


def test_labels_cannot_break_the_markdown() -> None:
    rows = table.build(pd.DataFrame([run("vanilla", 0, 1.0), run("a|b*c", 0, 2.0)]))
    assert "| a\\|b\\*c | 1 |" in written(rows)


def test_memory_is_a_ratio_to_the_baseline_and_mib_in_the_csv() -> None:
    runs = frame(seeds=2)
    runs["cost/memory_mb"] = [10.0 * (1 + i // 2) for i in range(len(runs))]
    rows = table.build(runs)
    assert "memory" not in written(table.build(frame())) and "| memory |" in written(rows)
    kd = rows.set_index("label").loc["kd"]
    assert (kd["memory_mb"], kd["memory_ratio"]) == (20.0, 2.0) and "2.00×" in written(rows)
    assert columns.meanings(rows)["memory"].endswith("vanilla (10.0 MiB).")


def test_the_published_number_stands_with_its_mark_and_our_distance() -> None:
    beside = pd.DataFrame(
        {
            "pair": "big->small",
            "label": ["kd", "kd", "dkd", "crd"],
            "reported": [80.0, 81.0, 82.0, 83.0],
            "selection": [published.LAST, published.BEST, published.BEST, published.UNSAID],
            "source": "s",
            "half": [0.5, 0.5, math.nan, 0.7],
            "distance": [1.25, 0.1, -2.0, math.nan],
        }
    )
    rows = table.build(frame(), published=beside)
    one = rows.set_index("label")
    assert one["published"].dropna().to_dict() == {"kd": 80.0, "dkd": 82.0, "crd": 83.0}
    assert math.isnan(one.loc["crd", "distance_half"])
    cells = columns.columns(rows)
    texts = {key: dict(zip(cells["label"].cells, cells[key].cells, strict=True)) for key in ("published", "distance")}
    assert texts["published"] == {"block_kd": "–", "kd": "80.00", "dkd": "82.00†", "crd": "83.00‡", "vanilla": "–"} | {
        "fitnet": "–"
    }
    assert texts["distance"]["kd"] == "+1.25 ± 0.50" and texts["distance"]["dkd"] == "−2.00"
    assert texts["distance"]["crd"] == texts["distance"]["vanilla"] == t.NONE
    assert written(rows).count("best epoch on the test") == 1
    assert table.build(frame(), published=beside.head(0))["published"].isna().all()


def test_only_columns_that_are_there_are_explained() -> None:
    heads = columns.meanings(table.build(frame({"crd": 0.0})))
    assert list(heads) == ["top-1", "agreement", "NLL", "ECE", "extra params", "top-1, epoch by val."]
    assert "− kd" in columns.meanings(table.build(frame()))


def test_a_grid_holds_the_numbers_that_its_texts_show() -> None:
    rows = table.build(frame())
    grid = columns.grid(rows, ["nll", "label", "difference", "nothing"])
    nll, label, difference = grid.columns.values()
    assert list(grid.columns) == ["nll", "label", "difference"] and nll.heading == "NLL"
    assert nll.values == rows["nll"].tolist() and difference.values == rows["difference"].fillna(0.0).tolist()
    assert label.strong == rows["best"].tolist() and not nll.strong
    assert label.tied == (rows["with_best"] & ~rows["best"]).tolist() and any(label.tied)
    assert grid.captions == [columns.BOLD] and grid.sortable
