"""What each figure shows, against numbers worked out by hand, scipy, and the benchmark's own metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import ttest_rel

from bench.report import stats
from bench.report.plots import calibration, cost, dumbbell, errors, fidelity, learning, matrix, ranking
from bench.report.plots import reported as published
from bench.training.evaluate import calibration_error
from tests.prose import Prose
from tests.report.made_up import frame
from tests.report.made_up_plots import CRD, near, rows_of, suite

PAIR = "big->small"


THREE = {"b": [79.0, 79.0, 82.0], "c": [70.0, 71.02], "a": [80.0, 81.0, 82.0]}  # t(1 - 0.05 / 6, 1) = 38.19


def test_matrix_golden() -> None:
    data = matrix.data(rows_of(THREE))
    assert data[["row", "column"]].to_numpy().tolist() == [[*x] for x in ("ab", "ac", "ba", "bc", "ca", "cb")]
    assert data["mean"].tolist() == pytest.approx([1.0, 9.99, -1.0, 8.49, -9.99, -8.49])
    ab, ac = data.iloc[0], data.iloc[1]
    interval = ttest_rel(THREE["a"], THREE["b"]).confidence_interval()
    assert (ab["low"], ab["high"]) == pytest.approx((interval.low, interval.high))
    assert (ab["low"], ab["high"]) == pytest.approx((1 - 4.30265273 / 3**0.5, 1 + 4.30265273 / 3**0.5))
    assert (ac["n"], ac["low"]) == (2, pytest.approx(9.99 - 12.7062047 * 0.01))
    bc = data.iloc[3]  # by itself 0 lies outside its interval, and inside the one that holds for all three comparisons
    assert bc["low"] == pytest.approx(8.49 - 12.7062047 * 0.51) and bc["low"] > 0 > 8.49 - 38.19 * 0.51
    assert data["apart"].tolist() == [False, True, False, False, True, False]


def test_matrix_says_what_paired_says_of_every_baseline() -> None:
    made = frame(seeds=4)
    data = matrix.data(made)
    for base in made["label"].unique():
        column = data[data["column"] == base].set_index("row")
        said = stats.paired(made, base).set_index("label").loc[column.index]
        for name in ("n", "mean", "low", "high"):
            assert column[name].tolist() == pytest.approx(said[name].tolist(), abs=1e-12)


def test_matrix_of_one_seed_of_equal_rows_and_of_strangers() -> None:
    one = matrix.data(frame(seeds=1))
    assert one["low"].isna().all() and not one["apart"].any()
    caption = str(matrix.figure(one).get_label())
    assert "With one seed nothing" in caption
    same = matrix.data(rows_of({"a": [80.0, 81.0], "b": [80.0, 81.0]}))
    assert same["mean"].tolist() == [0.0, 0.0] and not same["apart"].any() and isinstance(matrix.figure(same), Figure)
    strangers = rows_of({"a": [80.0], "b": [80.0, 81.0]}).drop(index=1)
    assert matrix.data(strangers).empty


def test_shades_keep_the_sign_and_are_never_none() -> None:
    assert matrix.shade(1e-6, 5.0) == pytest.approx(matrix.FAINT, abs=1e-5)
    assert matrix.shade(-50.0, 5.0) == -1.0 and matrix.shade(0.0, 5.0) == 0.0
    assert matrix.scale(matrix.data(rows_of(THREE))) == pytest.approx(9.99)  # 3 × the median 8.49 is more
    assert matrix.scale(matrix.data(frame(seeds=1))) == 1.0


def test_cost_golden() -> None:
    steps = {"vanilla": 10.0, "kd": 20.0, "dkd": 20.0, "crd": 40.0, "at": 5.0}
    tops = {"vanilla": [70.0, 72.0], "kd": [72.0, 74.0], "dkd": [74.0, 74.0], "crd": [73.0, 75.0], "at": [68.0, 70.0]}
    made = rows_of(tops, {name: {cost.STEP: ms} for name, ms in steps.items()})
    data = cost.data(made, "vanilla").set_index("label")
    assert data["cost_ratio"].to_dict() == {"vanilla": 1.0, "kd": 2.0, "dkd": 2.0, "crd": 4.0, "at": 0.5}
    assert data["top1"].to_dict() == {"vanilla": 71.0, "kd": 73.0, "dkd": 74.0, "crd": 74.0, "at": 69.0}
    assert data.index[data["front"]].tolist() == ["kd", "vanilla", "at"]  # dkd: of two seeds no interval is above 0
    assert np.isnan(data.loc["vanilla", "low"]) and data.loc["kd", "low"] == data.loc["kd", "high"] == 2.0
    assert data.loc["dkd", ["low", "high"]].tolist() == pytest.approx([3 - 12.7062047, 3 + 12.7062047])
    before = made.assign(epochs=20, **{cost.BEFORE: np.where(made["label"] == "kd", 5.0, np.nan)})
    assert cost.data(before, "vanilla").set_index("label")["cost_ratio"]["kd"] == 2.5  # a quarter more epochs


def test_dumbbell_golden(tmp_path: Path, prose: Prose) -> None:
    tops = {"kd": [70.0, 71.0, 72.0], "kd(tuned)": [73.0, 74.1, 75.0], "at": [60.0, 61.0, 62.0], "vanilla": [9.0] * 3}
    made = rows_of(tops | {"at(tuned)": [55.0, 66.0, 62.0]})
    made["tuned"] = made["label"].str.endswith("(tuned)")
    made.to_csv(tmp_path / "runs.csv", index=False)
    data = dumbbell.of_file(tmp_path / "runs.csv").set_index("row")
    assert data["verdict"].to_dict() == {"kd": "better", "at": "open"}
    assert data.loc["kd", ["recipe", "tuned", "difference"]].tolist() == pytest.approx([71, 74 + 1 / 30, 3 + 1 / 30])
    assert dumbbell.data(made).empty and dumbbell.data(frame()).empty  # no row says whose values were tuned
    prose(str(dumbbell.figure(data.reset_index(), "Commit abc.").get_label()))
    with pytest.raises(ValueError, match="no gain to draw"):
        dumbbell.figure(dumbbell.data(frame()))


def test_cost_needs_the_baselines_time_and_a_second_row() -> None:
    made = frame()
    assert cost.data(made.drop(columns=cost.STEP), "vanilla").empty
    assert cost.data(made.assign(**{cost.STEP: made[cost.STEP].where(made["label"] != "vanilla")}), "vanilla").empty
    assert cost.data(made[made["label"] == "vanilla"], "vanilla").empty
    some = made.assign(**{cost.STEP: made[cost.STEP].where(made["label"] != "crd")})
    assert set(cost.data(some, "vanilla")["label"]) == set(made["label"]) - {"crd"}


def test_learning_golden(tmp_path: Path) -> None:
    made, records = suite(tmp_path, {"vanilla": 0.0, "kd": 1.0}, seeds=3, epochs=0)
    curves = {"vanilla": [[10.0, 20.0, float("nan")], [12.0, 26.0, 30.0], [14.0, 20.0, 31.0]]}
    for record in records:
        spec = record.header["spec"]
        if spec["label"] == "vanilla":
            values = curves["vanilla"][spec["seed"]]
            metrics = [{"validation/top1": value, "train/loss": 9.0} for value in values]
            record.write_epochs({"epoch": k, "time": 0.0, "metrics": m} for k, m in enumerate(metrics, 1))
            record.end("finished", "", {"test/top1": 1.0}, [])
    data = learning.data(made, records, {"resnet32x4->resnet8x4": ["kd", "vanilla"]})
    assert set(data["label"]) == {"vanilla"} and data[["epoch", "n"]].to_numpy().tolist() == [[1, 3], [2, 3], [3, 2]]
    assert data["mean"].tolist() == [12.0, 22.0, 30.5]
    assert data["low"].tolist() == [10.0, 20.0, 30.0] and data["high"].tolist() == [14.0, 26.0, 31.0]


def test_the_axis_of_curves_leaves_out_the_first_epochs_and_rows_far_below() -> None:
    rows = [("a", e, 80 - 60 / e) for e in range(1, 11)] + [("b", e, 78 - 60 / e) for e in range(1, 11)]
    rows += [("c", e, 10.0) for e in range(1, 11)] + [(x, 10, 77.0) for x in "defg"]
    part = pd.DataFrame(rows, columns=["label", "epoch", "mean"])
    low = learning.floor(part, dict.fromkeys("abc", ("", "")))
    assert 40 < low < 72


def said(label: list[int], guess: list[int], confidence: list[float], teacher: list[int] | None = None) -> Any:
    arrays = {"label": np.array(label, np.uint16), "guess": np.array(guess, np.uint16)}
    arrays |= {"confidence": np.array(confidence, np.float32)}  # type: ignore[dict-item]
    return arrays | ({"teacher_guess": np.array(teacher, np.uint16)} if teacher else {})


def test_fidelity_golden() -> None:
    made = rows_of({"kd": [50.0, 50.0], "at": [40.0]})
    one = said([0] * 5, [0, 1, 0, 1, 2], [0.5] * 5, [0, 0, 1, 1, 1])
    two = said([0] * 5, [0, 0, 0, 0, 1], [0.5] * 5, [0, 0, 0, 1, 1])
    runs = dict(zip(made["fingerprint"], (one, two, two), strict=True))
    data = fidelity.data(made, runs, {PAIR: ["at", "kd"]})
    columns = ["label", "repeated", "value", "errors", "teacher_top1", "n", "mean_repeated", "top1"]
    assert data[columns].to_numpy().tolist() == [
        ["at", 50.0, pytest.approx(80.0), 2.0, 60.0, 1, 50.0, pytest.approx(80.0)],
        ["kd", pytest.approx(100 / 3), 40.0, 3.0, pytest.approx(40.0), 2, pytest.approx(250 / 6), pytest.approx(60.0)],
        ["kd", 50.0, pytest.approx(80.0), 2.0, 60.0, 2, pytest.approx(250 / 6), pytest.approx(60.0)],
    ]
    figure = fidelity.figure(data, "kd")
    assert "2 to 3 test images" in str(figure.get_label()) and "teacher" in {x.get_text() for x in figure.axes[0].texts}
    perfect = said([0] * 5, [0, 1, 0, 1, 2], [0.5] * 5, [0] * 5)
    for nothing in (perfect, said([0] * 5, [0, 1, 0, 1, 2], [0.5] * 5)):
        assert fidelity.data(made, dict.fromkeys(made["fingerprint"], nothing), {PAIR: ["kd"]}).empty


def test_calibration_golden() -> None:
    made = rows_of({"kd": [50.0, 50.0]})
    one = said([0, 1, 2, 3], [0, 0, 2, 0], [0.95, 0.95, 0.3, 0.3])
    two = said([0, 1], [0, 1], [1.0, 0.3])
    data = calibration.data(made, dict(zip(made["fingerprint"], (one, two), strict=True)), {PAIR: ["kd"]})
    assert data[["bin", "images", "n"]].to_numpy().tolist() == [[4, 3, 2], [14, 3, 2]]
    assert data["confidence"].tolist() == pytest.approx([0.3, (0.95 + 0.95 + 1) / 3])
    assert data["accuracy"].tolist() == pytest.approx([2 / 3, 2 / 3]) and data["share"].tolist() == [0.5, 0.5]
    first, second = (2 * 0.45 + 2 * 0.2) / 4, (0.0 + 0.7) / 2
    assert data["ece"].tolist() == pytest.approx([100 * (first + second) / 2] * 2)
    assert calibration.data(made, {}, {PAIR: ["kd"]}).empty


def test_a_perfectly_calibrated_run_and_the_metric_of_a_real_one() -> None:
    perfect = said([0, 0, 0, 0], [0, 0, 0, 1], [0.75] * 4)
    assert calibration.ece(calibration.bins(perfect)) == pytest.approx(0.0, abs=1e-7)
    logits, y = 3 * torch.randn(5000, 10, generator=torch.Generator().manual_seed(0)), torch.arange(5000) % 10
    confidence, guess = logits.softmax(1).max(1)
    run = {"label": y.numpy(), "guess": guess.numpy(), "confidence": confidence.numpy()}
    assert calibration.ece(calibration.bins(run)) == pytest.approx(float(calibration_error(logits, y)), abs=1e-6)


def test_errors_golden() -> None:
    made = rows_of({"kd": [50.0, 50.0], "at": [40.0]})
    one = said([0] * 5, [0, 1, 0, 1, 2], [0.5] * 5, [0, 0, 1, 1, 1])
    two = said([0] * 5, [0, 0, 0, 0, 1], [0.5] * 5, [0, 0, 0, 1, 1])
    data = errors.data(made, dict(zip(made["fingerprint"], (one, two, two), strict=True)), {PAIR: ["at", "kd"]})
    assert data["label"].tolist() == ["at", "kd"] and data["images"].tolist() == [5, 10]
    kinds = ["both_right", "only_teacher_right", "only_student_right", "same_error", "other_error"]
    assert data[kinds].to_numpy().tolist() == [[60.0, 0.0, 20.0, 20.0, 0.0], [40.0, 10.0, 20.0, 20.0, 10.0]]
    alone = said([0] * 5, [0, 1, 0, 1, 2], [0.5] * 5)
    assert errors.data(made, dict.fromkeys(made["fingerprint"], alone), {PAIR: ["kd"]}).empty


def test_shares_sum_to_all_images_and_to_the_accuracies(tmp_path: Path) -> None:
    made, records = suite(tmp_path, seeds=2)
    from bench.report.plots.predictions import read

    data = errors.data(made, read(made, records), ranking.order(made, "vanilla")).set_index("label")
    kinds = ["both_right", "only_teacher_right", "only_student_right", "same_error", "other_error"]
    assert data[kinds].sum(axis=1).tolist() == pytest.approx([100.0] * 6)
    right, mean = data["both_right"] + data["only_student_right"], made.groupby("label")[stats.TOP1].mean()
    assert right.to_dict() == pytest.approx(mean.to_dict())
    agreement = made.groupby("label")["test/agreement"].mean()
    assert (data["both_right"] + data["same_error"]).to_dict() == pytest.approx(agreement.to_dict())


def test_reported_golden(tmp_path: Path) -> None:
    made, records = suite(tmp_path, {"vanilla": 0.0, "kd": 0.0, "dkd": 0.0, "kd(tau=2)": 0.0, "own": 0.0}, seeds=3)
    made[stats.TOP1] = made["seed"].map({0: 73.0, 1: 73.5, 2: 74.0})
    made["test/top1_best_epoch_on_test"] = 76.0
    ranks = ranking.order(made, "vanilla")
    data = published.data(near(made, records), ranks)
    assert set(data["label"]) == {"vanilla", "kd", "dkd"}  # no number is of kd at another temperature
    kd = data[data["label"] == "kd"].iloc[0]
    assert kd[["selection", "reported", "n"]].tolist() == ["last epoch", 73.33, 3] and "RepDistiller" in kd["source"]
    assert kd["ours"] == 73.5 and kd["difference"] == pytest.approx(0.17)
    assert (kd["high"] - kd["low"]) / 2 == pytest.approx(4.30265273 * 0.5 / 3**0.5)
    dkd = data[(data["label"] == "dkd") & (data["reported"] == 76.32)].iloc[0]
    assert dkd["selection"] == "best epoch on test" and (dkd["ours"], dkd["difference"]) == (76.0, pytest.approx(-0.32))
    assert data.groupby("label")["reported"].apply(lambda values: values.is_unique).all()
    figure = published.figure(data)
    assert [text.get_text() for text in figure.axes[0].texts][-1] == "ours − published"
    assert any(text.get_text().startswith("+0.2 [−1.1, +1.4]") for text in figure.axes[0].texts)


def test_reported_compares_no_other_protocol_and_no_other_pair(tmp_path: Path) -> None:
    made, records = suite(tmp_path / "a", {"vanilla": 0.0, "kd": 1.0})
    ranks = ranking.order(made, "vanilla")
    _, short = suite(tmp_path / "b", {"vanilla": 0.0, "kd": 1.0}, protocol=CRD | {"epochs": 10})
    data = published.data(near(made, short), ranks)
    assert len(data) and data["difference"].isna().all() and data["ours"].notna().any()
    caption = str(published.figure(data).get_label())
    assert "– where protocol or data" in caption
    assert published.data(near(made.assign(dataset="digits"), records), ranks).empty
    other = made.assign(pair="resnet14->resnet8w3")
    assert published.data(near(other, records), ranking.order(other, "vanilla")).empty
