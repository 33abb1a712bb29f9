from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.errors import UserError
from bench.report import distance, published, stats
from bench.suite.suite import load
from tests.report.made_up import frame, run

PAIR = "resnet32x4->resnet8x4"
DATA = {"name": "CIFAR100", "train": 45_000, "validation": 5_000, "test": 10_000}


def crd() -> dict[str, Any]:
    """The protocol of the suite that follows the literature."""
    return load("cifar100").protocol.model_dump()


def cifar(gains: dict[str, float] | None = None, **columns: Any) -> pd.DataFrame:
    made = frame(gains or {"vanilla": 0.0, "kd": 1.0, "dkd": 2.0}, seeds=3, pair=PAIR)
    return made.assign(dataset="cifar100", **columns)


def listed(text: str, root: Path) -> Path:
    (root / "published").mkdir()
    (root / "published" / "published.csv").write_text(text)
    return root


HEAD = "dataset,teacher,student,method,top1,source,note\n"


def test_the_list_of_the_repository_is_read_with_our_names() -> None:
    known = published.read()
    assert len(known) == 854 and list(known) == published.COLUMNS
    names = set(known["method"])
    assert {"vanilla", "kd", "lskd", "lskd_dkd", "dot", "simkd", "fitnet", "ofd", "reviewkd"} <= names
    assert not any("[log" in name for name in names)
    assert "resnet32x4->ShuffleV2" in set(known["pair"]) and not known["pair"].str.contains("ShuffleNetV2$").any()


@pytest.mark.parametrize(
    ("source", "method", "top1", "selection", "protocol"),
    [
        ("RepDistiller", "kd", 73.33, published.LAST, published.LITERATURE),
        ("mdistiller", "kd", 73.33, published.LAST, published.LITERATURE),
        ("mdistiller", "dkd", 76.32, published.BEST, published.LITERATURE),
        ("logit-standardization-KD README", "lskd", 76.62, published.BEST, published.LITERATURE),
        ("logit-standardization-KD README", "mlkd", 77.08, published.BEST, "480 epochs or more"),
        ("logit-standardization-KD/logs/MLKD", "lskd_mlkd", None, published.LAST, "480 epochs"),
        ("logit-standardization-KD/logs/KD/", "lskd", None, published.LAST, published.LITERATURE),
        ("SimKD", "kd", 74.42, published.BEST, published.LITERATURE),
        ("Knowledge-Distillation-via-ND", "dkd", 75.44, published.UNSAID, ""),
        ("DIST_KD", "dist", 76.31, published.UNSAID, published.LITERATURE),
    ],
)
def test_every_source_says_how_it_counts(
    source: str, method: str, top1: float | None, selection: str, protocol: str
) -> None:
    known = published.read()
    found = known[known["source"].str.startswith(source) & (known["method"] == method) & (known["pair"] == PAIR)]
    found = found[found["reported"] == top1] if top1 else found
    assert (selection, protocol) in set(found[["selection", "protocol"]].itertuples(index=False, name=None))


def test_an_unknown_source_says_nothing(tmp_path: Path) -> None:
    row = published.read(listed(HEAD + "CIFAR-10,A,B,Fancy-KD,90.5,a paper,\n", tmp_path)).iloc[0]
    assert (row["dataset"], row["pair"], row["method"], row["reported"]) == ("cifar10", "A->B", "fancy-kd", 90.5)
    assert (row["selection"], row["protocol"]) == (published.UNSAID, "")


def test_without_a_list_there_are_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "KEPT", tmp_path / "nowhere.csv")
    assert list(published.read(tmp_path)) == published.COLUMNS and published.read(tmp_path).empty
    assert distance.beside(cifar(), published.read(tmp_path), crd(), DATA).empty


@pytest.mark.parametrize("text", ["", "dataset,teacher\n", HEAD + "CIFAR-100,A,B,KD,high,x,\n", '"'])
def test_a_damaged_list_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"published.csv: [^\n]+\)$"):
        published.read(listed(text, tmp_path))


def test_methods_say_which_recipe_gave_a_number_and_add_what_the_list_lacks(tmp_path: Path) -> None:
    text = f"CIFAR-100,resnet32x4,resnet8x4,KD,73.33,{published.SOURCES[0].begins} README,\n"
    text += "CIFAR-100,resnet32x4,resnet8x4,KD,74.42,elsewhere,\n"
    recipes = {
        "kd": {
            "paper": {"selection": "last-epoch", "source": "a", "reported": {f"cifar100/{PAIR}": 73.33}},
            "other": {"selection": "best-epoch-on-test", "source": "b", "reported": {f"cifar100/{PAIR}": 74.42}},
        },
        "mine": {"paper": {"selection": "unknown", "source": "c", "reported": {f"cifar100/{PAIR}": 80.0}}, "bare": {}},
    }
    known = published.read(listed(HEAD + text, tmp_path), recipes)
    rows = known[["method", "recipe", "selection", "reported"]].values.tolist()
    assert rows == [
        ["kd", "paper", published.LAST, 73.33],
        ["kd", "other", published.BEST, 74.42],  # the list does not say how its epoch was chosen, the method does
        ["mine", "paper", published.UNSAID, 80.0],
    ]
    runs = pd.concat([cifar(), cifar({"kd(other)": 0.5}, recipe="other", method="kd")], ignore_index=True)
    found = distance.beside(runs, known, crd(), DATA)
    assert found[["label", "reported"]].values.tolist() == [["kd", 73.33], ["kd(other)", 74.42]]


def test_the_suite_of_the_literature_departs_in_nothing() -> None:
    suite = load("cifar100")
    for pair in suite.pairs:
        assert distance.departures(suite.protocol.model_dump(), DATA, pair.student) == []
    assert distance.departures(crd(), {**DATA, "train": 50_000, "validation": 0}, "resnet8x4") == []


@pytest.mark.parametrize(
    ("changes", "data", "student", "said"),
    [
        ({"epochs": 14}, {}, "resnet8x4", ["epochs 14 (240)"]),
        ({"milestones": [1, 2]}, {}, "resnet8x4", ["milestones [1, 2] ([150, 180, 210])"]),
        ({"lr_of": {}}, {}, "ShuffleV1", ["lr 0.05 (0.01)"]),
        ({"lr_of": {"resnet8x4": 0.1}}, {}, "resnet8x4", ["lr 0.1 (0.05)"]),
        ({}, {"train": 5_000}, "resnet8x4", ["train images 10000 (50000)"]),
        ({}, {"test": 5_000}, "resnet8x4", ["test images 5000 (10000)"]),
        ({}, {"name": "digits"}, "resnet8x4", ["data digits (cifar100)"]),
    ],
)
def test_what_departs_is_named(changes: dict[str, Any], data: dict[str, Any], student: str, said: list[str]) -> None:
    assert distance.departures({**crd(), **changes}, {**DATA, **data}, student) == said
    assert said[0] in distance.remark({**crd(), **changes}, {**DATA, **data}, [f"a->{student}"])


def test_nothing_recorded_departs_in_everything() -> None:
    said = distance.departures({}, {}, "resnet8x4")
    assert len(said) == len(distance.PROTOCOL) + 4 and all("None" in s or "data " in s or "images 0" in s for s in said)


def test_distance_is_ours_minus_theirs_by_the_same_choice_of_epoch() -> None:
    runs = cifar()
    found = distance.chosen(distance.beside(runs, published.read(), crd(), DATA)).set_index("label")
    level = stats.summary(runs).set_index("label")
    assert found.loc["kd", "reported"] == 73.33 and found.loc["kd", "selection"] == published.LAST
    assert found.loc["kd", "distance"] == pytest.approx(level.loc["kd", "mean"] - 73.33)
    assert found.loc["kd", "half"] == pytest.approx(level.loc["kd", "half"])
    best = stats.summary(runs, "test/top1_best_epoch_on_test").set_index("label")
    assert found.loc["dkd", "selection"] == published.BEST
    assert found.loc["dkd", "distance"] == pytest.approx(best.loc["dkd", "mean"] - 76.32)


def test_a_number_of_the_best_epoch_has_no_distance_where_ours_was_not_measured() -> None:
    bare = cifar().drop(columns="test/top1_best_epoch_on_test")
    found = distance.chosen(distance.beside(bare, published.read(), crd(), DATA)).set_index("label")
    assert math.isnan(found.loc["dkd", "distance"]) and math.isfinite(found.loc["kd", "distance"])


def test_comparable_numbers_come_first_and_copies_count_once() -> None:
    rows = distance.beside(cifar(), published.read(), crd(), DATA)
    assert not rows.duplicated(["pair", "label", "reported"]).any()
    kd = rows[rows["label"] == "kd"]
    assert kd["selection"].iloc[0] == published.LAST and kd["source"].iloc[0].startswith("RepDistiller")
    for _, part in rows.groupby("label"):
        missing = part["distance"].isna().tolist()
        assert missing == sorted(missing)


def test_another_protocol_leaves_the_numbers_and_takes_the_distances() -> None:
    rows = distance.beside(cifar(), published.read(), {**crd(), "epochs": 14}, DATA)
    assert len(rows) and rows["distance"].isna().all() and rows["reported"].notna().all()


def test_numbers_of_another_protocol_have_no_distance() -> None:
    rows = distance.beside(cifar({"lskd_mlkd": 0.0, "kd": 0.0}), published.read(), crd(), DATA)
    longer = rows[rows["label"] == "lskd_mlkd"]
    assert len(longer) and longer["protocol"].str.startswith("480").all() and longer["distance"].isna().all()
    assert rows.loc[rows["label"] == "kd", "distance"].notna().any()


def test_rows_with_settings_of_their_own_have_no_published_number() -> None:
    own = cifar({"kd(tau=8)": 0.0}).assign(label="kd(tau=8)", method="kd")
    tuned = cifar({"kd": 0.0}, tuned=True)
    for runs in (own, tuned, cifar({"kd": 0.0}, recipe="simkd-repo")):
        assert distance.beside(runs, published.read(), crd(), DATA).empty


@pytest.mark.parametrize("pair", ["resnet14->resnet8w3", "a->b"])
def test_an_unknown_pair_or_data_set_has_no_published_number(pair: str) -> None:
    assert distance.beside(frame(pair=pair), published.read(), crd(), DATA).empty
    assert distance.beside(frame(pair=PAIR), published.read(), crd(), DATA).empty  # digits


def test_a_remark_says_what_distances_are_conditional_on() -> None:
    said = distance.remark(crd(), DATA, [PAIR, "vgg13->MobileNetV2"])
    assert "5,000 of ours are held out" in said and "No distances" not in said
    assert "held out" not in distance.remark(crd(), {**DATA, "train": 50_000, "validation": 0}, [PAIR])


def test_unfinished_runs_have_no_distance() -> None:
    lost = pd.DataFrame([run("dkd", 0, math.nan, PAIR, status="diverged")]).assign(dataset="cifar100")
    runs = pd.concat([cifar({"kd": 0.0}), lost], ignore_index=True)
    assert distance.beside(runs, published.read(), crd(), DATA)["label"].unique().tolist() == ["kd"]
