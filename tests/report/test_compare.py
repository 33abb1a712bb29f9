from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench.errors import UserError
from bench.report import compare_view, stats, stats_examples, stats_power
from bench.report.compare import Answer, compare
from tests.prose import Prose, numbers
from tests.test_cli import call as typed
from tracking.record import Record, RecordError
from tracking.store import Store

PROTOCOL = {"epochs": 3, "batch_size": 32, "milestones": [2]}
ENVIRONMENT = {
    "commit": "0123456789abcdef",
    "dirty": False,
    "torch": "2.6.0",
    "device": "cpu",
    "cpu": "A cpu",
    "threads": 1,
}
VANILLA, KD, DKD = [80.0, 82.0, 81.0, 79.0], [81.0, 84.0, 81.5, 80.5], [80.5, 81.0, 83.0, 79.0]
N = 200  # test examples


def suite(
    folder: Path,
    values: dict[str, list[float]],
    *,
    pairs: tuple[str, ...] = ("big->small",),
    protocol: dict[str, Any] | None = None,
    files: bool = True,
    **ends: str,
) -> Path:
    """A suite's results with these top-1 by label and seed; `ends`: a status other than finished, by label."""
    names: list[str] = []
    for pair in pairs:
        for label, reached in values.items():
            for seed, top1 in enumerate(reached):
                names.append(f"{len(names):016x}")
                spec: dict[str, Any] = {
                    "suite": folder.name,
                    "dataset": "digits",
                    "pair": pair,
                    "method": label,
                    "label": label,
                }
                spec |= {"seed": seed, "hp": {"tau": 4.0}, "protocol": protocol or PROTOCOL, "recipe": "paper"}
                spec |= {"data": {"name": "digits", "test": N}, "teacher_fingerprint": "t", "teacher_hash": "ab" * 32}
                record = Record(folder / "runs" / names[-1])
                record.begin(names[-1], spec, ENVIRONMENT)
                status = ends.get(label, "finished")
                left = ["predictions.npz"] if files else []
                if files:
                    draw = np.random.default_rng(seed + 100 * len(label))
                    label_ = draw.integers(0, 10, N) * 0
                    guess = (np.arange(N) >= round(N * top1 / 100)).astype(np.uint16)
                    np.savez(record.folder / "predictions.npz", label=label_.astype(np.uint16), guess=guess)
                costs = {"cost/step_alone_ms": 10.0 + len(label), "cost/images_seen": 300.0, "cost/extra_params": 0.0}
                record.end(status, "" if status == "finished" else "loss is nan", {stats.TOP1: top1} | costs, left)
    (folder / "suite.json").write_text(
        json.dumps({"suite": {"name": folder.name, "protocol": protocol or PROTOCOL}, "fingerprints": names})
    )
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    suite(tmp_path / "made", {"vanilla": VANILLA, "kd": KD, "dkd": DKD})
    return tmp_path


def call(*words: str) -> int:
    return typed("compare", *words)


def shown(answer: Answer, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for part in compare_view.rich(answer):
        console.print(part, highlight=False)
    return console.export_text()


def test_two_rows_get_the_statistics_of_the_report(results: Path, prose: Prose) -> None:
    found = compare("kd", "vanilla", results)
    one = found.comparisons[0]
    assert (found.sides.kind, found.sides.title, one.pair, one.seeds) == ("rows", "made", "big->small", [0, 1, 2, 3])
    row = one.metrics.loc["top1"]
    expected = stats.paired(found.sides.frame, "vanilla").iloc[0]
    assert (
        row[["n", "mean", "sd", "low", "high", "p"]].tolist()
        == expected[["n", "mean", "sd", "low", "high", "p"]].tolist()
    )
    assert (row["a"], row["b"], row["mean"], row["p"]) == (81.75, 80.5, 1.25, 2 / 16)
    d = [1.0, 2.0, 0.5, 1.5]
    assert one.chance == stats_power.chance(d) and one.plan == stats_power.plan(d)
    assert one.costs.loc["step_ms", "ratio"] == 12 / 17 and one.costs.loc["extra_params"].tolist()[:2] == [0, 0]
    turned = compare("vanilla", "kd", results)
    assert (one.standing, turned.comparisons[0].standing) == ("better", "worse")
    assert numbers(found.sentence) == [4, 1.2, 0.2, 2.3] and turned.sentence == found.sentence
    prose(found.sentence)
    text = shown(found)
    for words in ("made: kd − vanilla on big->small", "seeds 0 to 3", "+1.2 [+0.2, +2.3]", "0.71×", found.sentence):
        assert words in text


def test_undecided_says_how_many_seeds_would_decide(results: Path, prose: Prose) -> None:
    found = compare("dkd", "vanilla", results)
    further = stats_power.plan([0.5, -1.0, 2.0, 0.0]).further
    assert further is not None and further > 10 and found.comparisons[0].standing == "open"
    assert numbers(found.sentence)[:5] == [4, 0.4, -1.6, 2.4, further]
    prose(found.sentence)


def test_predictions_are_compared_example_by_example(results: Path) -> None:
    one = compare("kd", "vanilla", results).comparisons[0]
    # the first top1 % of the examples are right, so A is right alone on what it is ahead by: 2, 4, 1, 3 of 200
    assert one.examples is not None
    assert (one.examples.n, one.examples.seeds, one.examples.only_a, one.examples.only_b) == (N, 4, 10, 0)
    assert one.examples.difference == pytest.approx(1.25) and one.examples.p < 0.05
    next(results.glob("made/runs/*3/predictions.npz")).unlink()
    again = compare("kd", "vanilla", results).comparisons[0]
    assert again.examples is not None and again.examples.seeds == 3 and len(again.seeds) == 4


def test_without_predictions_it_says_so(tmp_path: Path, prose: Prose) -> None:
    suite(tmp_path / "made", {"vanilla": VANILLA, "kd": KD}, files=False)
    found = compare("kd", "vanilla", tmp_path)
    assert found.comparisons[0].examples is None and "no test: " in shown(found)
    prose(found.comparisons[0].why_no_examples)


def test_missing_seeds_are_left_out_and_named(tmp_path: Path) -> None:
    suite(tmp_path / "made", {"vanilla": VANILLA[:3], "kd": KD})
    found = compare("kd", "vanilla", tmp_path)
    one = found.comparisons[0]
    assert one.seeds == [0, 1, 2] and one.alone == {"kd": [3], "vanilla": []}
    assert one.metrics.loc["top1", "a"] == np.mean(KD[:3]) and "kd alone" in shown(found)


def test_one_seed_has_no_interval(tmp_path: Path, prose: Prose) -> None:
    suite(tmp_path / "made", {"vanilla": VANILLA[:1], "kd": KD[:1]})
    found = compare("kd", "vanilla", tmp_path)
    assert found.comparisons[0].standing == "open" and numbers(found.sentence) == [1.00, 1]
    assert "kd is 1.00" in found.sentence
    prose(found.sentence)
    text = shown(found)
    assert "n = 1: no interval" in text and "±" not in text and "[" not in text.split("examples")[0]


def test_no_shared_seed(tmp_path: Path, prose: Prose) -> None:
    suite(tmp_path / "made", {"vanilla": VANILLA[:1], "kd": KD})
    frame = compare("kd", "vanilla", tmp_path)
    assert frame.comparisons[0].seeds == [0]
    names = json.loads((tmp_path / "made/suite.json").read_text())
    names["fingerprints"] = [n for i, n in enumerate(names["fingerprints"]) if i != 1]  # kd's seed 0
    (tmp_path / "made/suite.json").write_text(json.dumps(names))
    found = compare("kd", "vanilla", tmp_path)
    assert found.comparisons[0].seeds == [] and found.comparisons[0].chance is None
    assert found.comparisons[0].standing == "open"
    prose(found.sentence)
    assert "no shared seed" in shown(found)
    assert compare_view.as_dict(found)["comparisons"][0]["metrics"] == {}


def test_several_pairs_are_one_line_each(tmp_path: Path, prose: Prose) -> None:
    suite(tmp_path / "made", {"vanilla": VANILLA, "kd": KD}, pairs=("big->small", "wide->thin"))
    found = compare("kd", "vanilla", tmp_path)
    assert {one.pair: one.standing for one in found.comparisons} == {"big->small": "better", "wide->thin": "better"}
    assert numbers(found.sentence) == [2, 4, 95] and "none is distinguishable" in found.sentence  # [-0.1, 2.6] both
    prose(found.sentence)
    assert shown(found).count("+1.2 [+0.2, +2.3]") == 2
    far = [top1 + 3 for top1 in KD]  # +4.2 [1.9, 5.6] for both at once
    suite(tmp_path / "far", {"vanilla": VANILLA, "kd": far}, pairs=("big->small", "wide->thin"))
    found = compare("kd", "vanilla", tmp_path, suite="far")
    assert numbers(found.sentence) == [4, 2, 2, 4, 95]
    prose(found.sentence)


def test_two_suites_are_compared_row_by_row(results: Path, prose: Prose) -> None:
    suite(results / "longer", {"vanilla": KD, "kd": KD, "crd": KD}, protocol=PROTOCOL | {"epochs": 9})
    found = compare("longer", "made", results)
    assert found.sides.kind == "suites" and [one.row for one in found.comparisons] == ["vanilla", "kd"]
    vanilla, kd = found.comparisons
    assert vanilla.metrics.loc["top1", "mean"] == 1.25 and kd.metrics.loc["top1", ["low", "high"]].tolist() == [0, 0]
    assert kd.examples is not None and kd.examples.disagree == 0
    assert found.sides.differ == ["protocol.epochs 9 | 3"]
    assert found.sides.notes == ["longer alone has crd.", "made alone has dkd."]
    assert (vanilla.standing, kd.standing) == ("better", "equal") and numbers(found.sentence) == [2, 4, 95]
    prose(found.sentence)
    text = shown(found)
    assert found.sides.differ[0] in text and "equal" in text
    by_path = compare(str(results / "longer"), str(results / "made"), Path("elsewhere"))
    assert by_path.sentence == found.sentence


def test_the_same_runs_twice_are_equal(results: Path, tmp_path: Path, prose: Prose) -> None:
    suite(tmp_path / "other" / "made", {"vanilla": VANILLA, "kd": KD})
    found = compare(str(results / "made"), str(tmp_path / "other" / "made"), results)
    assert found.sides.b == "other/made" and found.sides.differ == []
    assert {one.standing for one in found.comparisons} == {"equal"} and numbers(found.sentence) == [2]
    prose(found.sentence.replace(results.name, "<folder>"))
    assert "the same on both sides" in shown(found)


def test_suites_of_one_pair_each_are_set_side_by_side(results: Path, prose: Prose) -> None:
    suite(results / "wide", {"kd": KD}, pairs=("wide->small",))
    found = compare("made", "wide", results)
    assert found.comparisons[0].pair == "big->small | wide->small" and found.sides.differ[0].startswith(
        "pair big->small"
    )
    assert found.comparisons[0].standing == "equal" and numbers(found.sentence) == [4]
    prose(found.sentence)
    suite(results / "other", {"crd": KD})
    with pytest.raises(UserError, match=r"vanilla on .* \| crd on big->small") as error:
        compare("made", "other", results)
    prose(str(error.value))


def test_diverged_rows_are_left_out_with_their_reason(results: Path, prose: Prose) -> None:
    suite(results / "wild", {"vanilla": VANILLA, "kd": KD}, kd="diverged")
    found = compare("made", "wild", results)
    (told,) = found.left_out
    assert told in " ".join(shown(found).split()) and "kd on big->small: wild" in told and "4 diverged" in told
    with pytest.raises(UserError, match=r"big->small: kd .*4 diverged") as error:
        compare("kd", "vanilla", results, suite="wild")
    prose(told)
    prose(str(error.value))


def test_the_suite_called_last_is_the_default(results: Path) -> None:
    suite(results / "later", {"vanilla": VANILLA, "crd": KD})
    (results / "empty").mkdir()
    (results / "empty" / "suite.json").write_text('{"fingerprints": ["f"]}')
    os.utime(results / "made/suite.json", (1, 1))
    assert compare("crd", "vanilla", results).sides.title == "later"
    assert compare("kd", "vanilla", results, suite="made").sides.title == "made"
    with pytest.raises(UserError, match=r"no row of later 'kd'.*\(--suite\): empty, made"):
        compare("kd", "vanilla", results)


def test_bad_input_is_one_line_each(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at, run_id = ("--results", str(results)), "0" * 32
    other = suite(tmp_path / "mixed", {"vanilla": VANILLA, "kd": KD})
    record = next(iter(sorted(other.glob("runs/*/record.jsonl"))))
    header, rest = record.read_text().split("\n", 1)
    record.write_text(header.replace('"epochs":3', '"epochs":4') + "\n" + rest)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "suite.json").write_text("{")
    cases = {
        ("kd", "kd", *at): "'kd' stands on both sides",
        ("kd", "nothing", *at, "--suite", "made"): "no row of made 'nothing'; there are",
        ("kd", "dkd", "--results", str(tmp_path / "nowhere")): "no suite's results in",
        ("kd", "dkd", *at, "--suite", "nowhere"): "no results for 'nowhere'",
        ("kd", "dkd", *at, "--suite", "odd"): "not readable as the list",
        ("kd", "vanilla", *at, "--suite", "mixed"): "line 1 is damaged",
        ("made", "kd", *at): "'made' is a suite's results and 'kd' is not",
        ("made", str(results / "made"), *at): "are the same folder",
        (run_id, "kd", *at): "is an MLflow run id and 'kd' is none",
        (run_id, run_id[:-1] + "1", *at): "no MLflow store at",
        ("kd", "dkd", *at, "--from", "sqlite:////nowhere/m.db"): "--from compares two run ids, or two methods",
        ("kd", "dkd", *at, "--from", "m.db", "--suite", "made"): "cannot track to 'm.db'",
        ("kd", "dkd", *at, "--from", "http://127.0.0.1:9", "--suite", "made"): "nobody answers there",
        ("kd",): "Missing argument 'B'",
    }
    for words, told in cases.items():
        assert call(*words) == 2, words
        out, err = capsys.readouterr()
        assert out == "" and told in err and err.count("\n") == 1, (words, err)
    assert not (results / "mlflow.db").exists()


def test_two_settings_in_one_suite_are_refused(tmp_path: Path) -> None:
    one = suite(tmp_path / "made", {"vanilla": VANILLA})
    two = suite(tmp_path / "also" / "made", {"kd": KD}, protocol=PROTOCOL | {"epochs": 9})
    names: list[str] = []
    for i, folder in enumerate(sorted(two.glob("runs/*"))):
        record, names = Record(folder), [*names, f"{i + 50:016x}"]
        moved = Record(one / "runs" / names[-1])
        moved.begin(names[-1], record.header["spec"], ENVIRONMENT)
        moved.end("finished", "", {stats.TOP1: 80.0}, [])
    manifest = json.loads((one / "suite.json").read_text())
    manifest["fingerprints"] += names
    (one / "suite.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"'made' differ in protocol \(epochs\)"):
        compare("kd", "vanilla", tmp_path)


def test_predictions_of_other_examples_are_not_compared(results: Path, prose: Prose) -> None:
    path = next(results.glob("made/runs/*0/predictions.npz"))
    np.savez(path, label=np.ones(N, dtype=np.uint16), guess=np.ones(N, dtype=np.uint16))
    with pytest.raises(RecordError, match=r"predictions\.npz: damaged"):
        compare("kd", "vanilla", results)
    left = Record(path.parent)
    left.end("finished", "", left.final["metrics"] if left.final else {}, [path.name])
    found = compare("kd", "vanilla", results)
    assert found.comparisons[0].examples is None
    prose(found.comparisons[0].why_no_examples)
    path.write_bytes(b"damaged")
    left.end("finished", "", left.final["metrics"] if left.final else {}, [path.name])
    with pytest.raises(UserError, match="not readable as predictions"):
        compare("kd", "vanilla", results)


def test_json_is_plain_and_the_terminal_is_narrow(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("kd", "vanilla", "--results", str(results), "--json") == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # neither NaN nor Infinity
    one = found["comparisons"][0]
    assert (found["kind"], found["a"], found["b"], one["n"], one["plan"]["state"]) == (
        "rows",
        "kd",
        "vanilla",
        4,
        "decided",
    )
    assert one["metrics"]["top1"]["mean"] == 1.25 and one["costs"]["extra_params"]["ratio"] is None
    assert one["examples"]["seeds"] == 4 and one["chance"]["wins"] == 4 and "that kd beats" in found["answer"]
    assert call("kd", "vanilla", "--results", str(results)) == 0
    assert "kd beats vanilla" in capsys.readouterr().out
    assert max(map(len, shown(compare("kd", "vanilla", results), 80).splitlines())) <= 80


@pytest.mark.slow
def test_two_mlflow_runs_and_a_suite_on_a_server(
    results: Path, capsys: pytest.CaptureFixture[str], prose: Prose
) -> None:
    uri = f"sqlite:///{results}/mlflow.db"
    store, ids = Store(uri, results), {}
    for record in sorted((results / "made/runs").iterdir()):
        assert store.deliver(Record(record))
    for run in store.search([store.experiment("kd/made")], ""):
        ids[run.info.run_name] = run.info.run_id
    failed = Record(results / "made" / "runs" / "f")
    failed.begin("f", {**Record(next(results.glob("made/runs/*4"))).header["spec"], "seed": 8}, ENVIRONMENT)
    failed.end("diverged", "loss is nan", {}, [])
    store.deliver(failed)
    query = "tags.`kd.fingerprint` = 'f'"
    ids["failed"] = store.search([store.experiment("kd/made")], query)[0].info.run_id

    found = compare(ids["kd/s1"], ids["vanilla/s1"], results)
    one = found.comparisons[0]
    assert (found.sides.kind, one.a, one.b, len(one.seeds)) == ("runs", "kd/s1", "vanilla/s1", 1)
    assert one.metrics.loc["top1", "mean"] == 2.0 and one.examples is not None and one.examples.only_a == 4
    assert found.sides.differ == []
    assert numbers(found.sentence) == [2.00]
    prose(found.sentence)
    other = compare(ids["kd/s1"], ids["vanilla/s0"], Path("nowhere"), uri=uri)
    assert other.sides.differ == ["seed 1 | 0"] and other.comparisons[0].metrics.loc["top1", "mean"] == 4.0

    rows = compare("kd", "vanilla", results, suite="made", uri=uri)
    assert rows.sentence == compare("kd", "vanilla", results, suite="made").sentence
    assert rows.comparisons[0].examples is None
    prose(rows.comparisons[0].why_no_examples)
    for words, told in {
        (ids["kd/s1"], ids["failed"]): "(kd, diverged) has no test/top1",
        (ids["kd/s1"], "0" * 32): "not found",
        ("kd", "vanilla", "--from", uri, "--suite", "none"): "no runs of 'none' in MLflow at",
        ("kd", "none", "--from", uri, "--suite", "made"): "no row of made 'none'",
    }.items():
        assert call(*words, "--results", str(results)) == 2
        out, err = capsys.readouterr()
        assert out == "" and told in err and err.count("\n") == 1, (words, err)
    assert stats_examples.FILE == "predictions.npz"
