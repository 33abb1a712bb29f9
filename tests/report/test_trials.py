from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.errors import UserError
from bench.report import trials
from tests.prose import Prose
from tests.report.made_up_trials import METHODS, PAIR, SPACE, studies, study, trial
from tests.report.made_up_trials import trials as made_up
from tracking.record import Record, RecordError

EMPTY = pd.DataFrame(columns=[*trials.COLUMNS])
GOLDEN = pd.DataFrame(
    [  # out of order; dkd fails at first, then gains; kd's recipe is its best
        trial(1, 60.0, "kd", step_ms=10.0),
        trial(0, 70.0, "kd", step_ms=10.0),
        trial(0, method="dkd", state="failed", steps=3),
        trial(1, 99.0, method="dkd", state="pruned", step_ms=1.0, steps=20),
        trial(2, 68.5, "dkd", step_ms=30.0),
        trial(3, 71.25, "dkd", step_ms=20.0),
        trial(4, 71.0, "dkd", step_ms=20.0),
    ]
)


def test_best_of_k_by_hand() -> None:
    got = trials.best_of_k(GOLDEN)
    assert list(got.columns) == ["pair", "method", "k", "best"]
    assert got["method"].tolist() == ["kd"] * 2 + ["dkd"] * 5 and got["k"].tolist() == [1, 2, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(got["best"], [70, 70, np.nan, np.nan, 68.5, 71.25, 71.25])


def test_the_budget_by_hand() -> None:
    got = trials.budget(GOLDEN).set_index("method")
    assert got.index.tolist() == ["dkd", "kd"] and set(got["pair"]) == {PAIR} and set(got["space"]) == {""}
    dkd, kd = got.loc["dkd"], got.loc["kd"]
    assert dkd[["trials", "pruned", "failed", "student_steps", "seconds"]].tolist() == [5, 1, 1, 323, 12.5]
    assert dkd["best"] == 71.25 and np.isnan(dkd["recipe"]) and np.isnan(dkd["gain"])
    assert kd[["recipe", "best", "gain", "pruned", "failed"]].tolist() == [70, 70, 0, 0, 0]


def test_the_pareto_front_by_hand() -> None:
    got = trials.pareto(GOLDEN)
    assert list(got.columns) == ["pair", "method", "trial", "recipe", "top1", "step_ms", "front"]
    front = got.loc[got["front"], ["method", "trial"]].to_numpy().tolist()
    assert len(got) == 5 and front == [["kd", 0], ["dkd", 3]]  # a pruned trial is on no front


def test_equal_trials_stand_on_the_front_together_and_pairs_apart() -> None:
    same = [trial(n, top1, step_ms=ms) for n, (top1, ms) in enumerate([(70, 10), (70, 10), (70, 11), (69, 10)])]
    other = [trial(0, 50.0, step_ms=90.0, pair="a->b"), trial(1, 60.0), trial(2, 60.0, step_ms=np.inf)]
    got = trials.pareto(pd.DataFrame([*same, *other]))
    assert got["front"].tolist() == [True, True, False, False, True] and len(got) == 5


def test_the_front_is_what_comparing_all_pairs_gives() -> None:
    """Against the definition, with many ties."""
    draw = np.random.default_rng(3)
    rows = [trial(n, float(draw.integers(60, 70)), step_ms=float(draw.integers(10, 20))) for n in range(80)]
    got = trials.pareto(pd.DataFrame(rows))
    top1, step = got["top1"].to_numpy(), got["step_ms"].to_numpy()
    naive = [
        not any(
            top1[i] >= top1[j] and step[i] <= step[j] and (top1[i] > top1[j] or step[i] < step[j])
            for i in range(len(got))
        )
        for j in range(len(got))
    ]
    assert got["front"].tolist() == naive and 0 < sum(naive) < len(got)


def test_recipes_by_hand() -> None:
    got = trials.recipes(GOLDEN)
    assert got[["method", "k", "top1"]].to_numpy().tolist() == [["kd", 1, 70.0]]  # dkd's recipe failed


def test_perfect_trials() -> None:
    frame = pd.DataFrame([trial(n, 100.0, step_ms=5.0) for n in range(3)])
    assert trials.best_of_k(frame)["best"].tolist() == [100.0] * 3
    assert trials.budget(frame)[["recipe", "best", "gain"]].iloc[0].tolist() == [100, 100, 0]
    assert trials.pareto(frame)["front"].tolist() == [True] * 3


def test_no_trials_give_empty_frames() -> None:
    for function in (trials.best_of_k, trials.budget, trials.pareto, trials.recipes):
        assert function(EMPTY).empty  # type: ignore[operator]
    assert list(trials.best_of_k(EMPTY).columns) == ["pair", "method", "k", "best"]
    assert "front" in trials.pareto(EMPTY) and "gain" in trials.budget(EMPTY)


@pytest.mark.parametrize("function", [trials.best_of_k, trials.budget, trials.pareto, trials.recipes])
def test_a_frame_without_its_columns_is_refused(function: object, prose: Prose) -> None:
    with pytest.raises(ValueError, match="'state'; it has suite, pair") as error:
        function(GOLDEN.drop(columns="state"))  # type: ignore[operator]
    prose(str(error.value))


def test_nothing_complete_is_no_best() -> None:
    frame = pd.DataFrame([trial(0, state="failed"), trial(1, 5.0, state="pruned"), trial(2, np.inf)])
    assert trials.best_of_k(frame)["best"].isna().all() and trials.pareto(frame).empty
    assert np.isnan(trials.budget(frame)["best"].iloc[0])


def test_studies_are_read_as_they_were_written(tmp_path: Path) -> None:
    frame = pd.concat([made_up(METHODS[:3], 4, "b->c"), made_up(("kd", "at"), 3, "a->b")], ignore_index=True)
    frame["hp.loss"] = ["None" if method == "kd" else None for method in frame["method"]]  # a value, and none
    studies(tmp_path, frame)
    got = trials.read(tmp_path, "made")
    assert got.groupby(["pair", "method"], sort=False).size().to_dict() == {
        ("a->b", "at"): 3,
        ("a->b", "kd"): 3,
        ("b->c", "dkd"): 4,
        ("b->c", "fitnet"): 4,
        ("b->c", "kd"): 4,
    }
    by = ["pair", "method", "trial"]
    want = frame.sort_values(by, ignore_index=True).astype({"recipe": bool})
    pd.testing.assert_frame_equal(got[want.columns], want, check_dtype=False)
    assert got["recipe"].dtype == bool and got["trial"].dtype == int
    known = trials.studies(tmp_path, "made")
    assert [(s.pair, s.method) for s in known] == list(got.groupby(["pair", "method"]).groups)
    assert known[0].space == SPACE and known[0].chosen["tau"] == 7.5 and known[0].tune["sampler"] == "tpe"
    assert trials.budget(got, known)["space"].iloc[0].split("; ") == ["kd: 0.1 to 20, log", "tau: 1 to 20, log"]


def test_no_results_are_no_trials(tmp_path: Path) -> None:
    assert trials.read(tmp_path, "made").empty and trials.studies(tmp_path, "made") == []
    assert list(trials.read(tmp_path, "made").columns) == list(trials.COLUMNS)
    study(tmp_path, made_up(("kd",), 2))
    (folder,) = (tmp_path / "made" / "tuning").iterdir()
    (folder / "trials.csv").write_text(",".join(trials.COLUMNS) + "\n")  # a study that has not told anything yet
    with pytest.raises(UserError, match=r"trials\.csv: damaged"):
        trials.read(tmp_path, "made")
    Record(folder).end("finished", "", {}, ["trials.csv"])
    assert trials.read(tmp_path, "made").empty and len(trials.studies(tmp_path, "made")) == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (None, "", "No columns to parse"),
        ("state", "fate", "no column 'state'"),
        (",complete,", ",done,", "'done'; there are complete, pruned, failed"),
        (",complete,", ",,", "no state 'nan'"),
        (",True,", ",maybe,", "a row without"),
        (",70.0,", ",seventy,", "seventy"),
        (",0,", ",first,", "first"),
        (",1,complete,", ",1,2,complete,", "16 .*line 3, saw 17"),
    ],
    ids=["empty", "column", "state", "no state", "recipe", "number", "trial", "row"],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, old: str | None, new: str, words: str) -> None:
    path = study(tmp_path, GOLDEN[GOLDEN["method"] == "kd"].sort_values("trial")) / "trials.csv"
    text = path.read_text()
    path.write_text(new if old is None else text.replace(old, new, 2))
    with pytest.raises(UserError, match=words) as error:
        trials.read(tmp_path, "made")
    assert "\n" not in str(error.value) and "run `kdbench tune made` again" in str(error.value)


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path, prose: Prose) -> None:
    path = study(tmp_path, made_up(("kd",), 2)) / "trials.csv"
    path.write_bytes(b"\xff\xfe\x00" * 9)
    with pytest.raises(UserError, match=r"trials\.csv: not readable") as error:
        trials.read(tmp_path, "made")
    prose(str(error.value))


def test_a_study_with_a_name_of_its_own_is_a_row_of_its_own(tmp_path: Path) -> None:
    rows = made_up(("kd",), 3)
    study(tmp_path, rows)
    study(tmp_path, rows.assign(study=rows["study"] + "/wide"))
    got = trials.read(tmp_path, "made")
    assert got["method"].unique().tolist() == ["kd", "kd/wide"] and len(got) == 6
    assert [s.method for s in trials.studies(tmp_path, "made")] == ["kd", "kd/wide"]
    assert (trials.budget(got, trials.studies(tmp_path, "made"))["space"] != "").all()


def test_two_studies_of_one_row_are_refused(tmp_path: Path) -> None:
    folder = study(tmp_path, made_up(("kd",), 2))
    (folder.parent / "copy").mkdir()
    (folder.parent / "copy" / "trials.csv").write_bytes((folder / "trials.csv").read_bytes())
    with pytest.raises(UserError, match=f"two studies of kd on {PAIR}"):
        trials.read(tmp_path, "made")


@pytest.mark.parametrize("text", ["", "- 1", "values: 3", "a: [", "other: {}"])
def test_damaged_tuned_values_are_one_line(tmp_path: Path, text: str, prose: Prose) -> None:
    (study(tmp_path, made_up(("kd",), 2)) / "tuned.yaml").write_text(text)
    with pytest.raises(UserError, match=r"tuned.yaml: not readable") as error:
        trials.studies(tmp_path, "made")
    prose(str(error.value))


def test_another_record_or_a_damaged_one_is_refused(tmp_path: Path, prose: Prose) -> None:
    record = Record(tmp_path / "made" / "tuning" / "x")
    record.begin("f", {"kind": "run", "pair": "a->b", "label": "kd"}, {})
    with pytest.raises(UserError, match="not the record") as error:
        trials.studies(tmp_path, "made")
    prose(str(error.value))
    record.path.write_text("{}\n")
    with pytest.raises(RecordError, match="line 1 is damaged"):
        trials.studies(tmp_path, "made")
