from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.errors import UserError
from bench.report import build
from tests.prose import Prose
from tests.report.made_up import ENVIRONMENT, suite
from tracking.record import Record, RecordError


def runs(root: Path) -> list[Record]:
    return [Record(folder) for folder in sorted((root / "made" / "runs").iterdir())]


def rewrite(record: Record, **spec: Any) -> None:
    """The same run under another spec."""
    header, final = record.header, record.final
    record.path.unlink()
    record.begin(header["fingerprint"], header["spec"] | spec, header["environment"])
    record.end("finished", "", final["metrics"] if final else {}, [])


def test_a_report_holds_answer_figure_table_and_what_judges_them(tmp_path: Path) -> None:
    suite(tmp_path, seeds=3)
    made = report.write(tmp_path, "made")
    text = made.report.read_text()
    assert made.answer in text and text.index(made.answer) < text.index("figures/difference_kd.png") < text.index(
        "| method |"
    )
    for part in (
        "epochs: 3",
        "n_train: 90",
        "93.40 % top-1 on test",
        "commit: 0123456789ab",
        "torch: 2.6.0",
        "threads: 2",
    ):
        assert part in text
    for part in (
        "conditional on one teacher and one split",
        "Selection rule: the last epoch",
        "Selection inflation",
        "p-value",
    ):
        assert part in text
    assert "## Unfinished runs\n\nNone." in text and "n = 3 seeds per row" in text
    assert len(made.tables) == 1 and made.csv.read_text().startswith("pair,label,baseline,n,top1")
    assert made.answer[1:] in made.html.read_text().replace("&#39;", "'") and "<svg" in made.html.read_text()
    for fingerprint in made.frame["fingerprint"]:
        assert f"`{fingerprint}`" in text and f"kdbench rerun {fingerprint}" in made.html.read_text()
    assert (tmp_path / "made" / "table.tex").read_text().count("begin{tabular}") == 1
    assert {p.name for p in (tmp_path / "made" / "figures").iterdir()} == {
        f"{name}.png" for name in ("difference_kd", "difference", "matrix", "cost")
    }
    assert made.figure.read_bytes().startswith(b"\x89PNG") and made.pdf is None
    assert str(tmp_path) not in text
    assert sorted(p.name for p in (tmp_path / "made").rglob("*") if "partial" in p.name) == []


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    suite(tmp_path, {"vanilla": 0.0, "kd": 1.0})
    paths = ("report", "html", "csv", "figure")
    first = [getattr(made, path).read_bytes() for made in [report.write(tmp_path, "made")] for path in paths]
    second = [getattr(made, path).read_bytes() for made in [report.write(tmp_path, "made")] for path in paths]
    assert first == second


def test_unfinished_runs_and_those_not_started_are_listed(tmp_path: Path, prose: Prose) -> None:
    suite(tmp_path, ended=10)
    every = runs(tmp_path)
    every[10].end("diverged", "loss is nan in epoch 2", {}, [])
    every[11].path.unlink()
    text = report.write(tmp_path, "made").report.read_text()
    told = text.partition("## Unfinished runs\n\n")[2].split("\n\n")[0]
    assert "block_kd on big->small, seed 0: diverged (loss is nan" in told and "not started: 1 run" in told
    assert len(told.strip().split("\n")) == 2
    prose(told)


def test_one_method_is_reported_without_differences(tmp_path: Path) -> None:
    suite(tmp_path)
    old = tmp_path / "made" / "figures" / "difference.png"
    old.parent.mkdir()
    old.write_text("of the call before")
    manifest = json.loads((tmp_path / "made" / "suite.json").read_text())
    manifest["fingerprints"] = manifest["fingerprints"][:2]  # the next call asks for one method alone
    (tmp_path / "made" / "suite.json").write_text(json.dumps(manifest))
    made = report.write(tmp_path, "made")
    assert made.frame["label"].tolist() == ["vanilla"] * 2 and "no difference to judge" in made.answer
    assert made.figure.name == "top1.png" and made.figure.exists() and not old.exists()
    assert "no differences" in made.report.read_text() and "figures/top1.png" in made.report.read_text()


def test_records_can_be_handed_over(tmp_path: Path) -> None:
    suite(tmp_path)
    assert report.write(tmp_path, "made", records=runs(tmp_path)[:4]).frame["label"].unique().tolist() == [
        "vanilla",
        "kd",
    ]


@pytest.mark.parametrize("left", ["nothing", "folder", "manifest", "file"])
def test_no_results_is_one_line_that_says_what_to_type(tmp_path: Path, left: str, prose: Prose) -> None:
    if left == "file":
        (tmp_path / "made").write_text("")
    if left in ("folder", "manifest"):
        (tmp_path / "made").mkdir()
    if left == "manifest":
        manifest = {"suite": {"name": "made", "protocol": {}}, "fingerprints": ["f" * 16], "teacher_top1": {}}
        (tmp_path / "made" / "suite.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"^no results .*`kdbench run made`$") as error:
        report.write(tmp_path, "made")
    prose(str(error.value))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"suite": 3, "fingerprints": []}', "\xff"])
def test_a_damaged_manifest_is_one_line(tmp_path: Path, text: str, prose: Prose) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "suite.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"suite.json: .*`kdbench run made`") as error:
        report.write(tmp_path, "made")
    prose(str(error.value))


def test_no_finished_run_says_what_became_of_them(tmp_path: Path, prose: Prose) -> None:
    suite(tmp_path, ended=0)
    runs(tmp_path)[0].end("failed", "RuntimeError in epoch 1: shapes", {}, [])
    with pytest.raises(UserError, match=r"\(1 failed, 11 running; .*: shapes\)") as error:
        report.write(tmp_path, "made")
    prose(str(error.value))
    assert not (tmp_path / "made" / "report.md").exists()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"protocol": {"epochs": 9, "batch_size": 32, "lr": 0.05, "milestones": [2]}},
            r"differ in protocol \(epochs\)",
        ),
        ({"data": {"name": "digits", "n_train": 91, "n_validation": 60, "n_test": 100}}, r"differ in data \(n_train\)"),
        ({"teacher_fingerprint": "other"}, "2 different teachers"),
    ],
    ids=["protocol", "data", "teacher"],
)
def test_what_is_not_comparable_is_refused(tmp_path: Path, spec: dict[str, Any], words: str, prose: Prose) -> None:
    suite(tmp_path)
    rewrite(runs(tmp_path)[3], **spec)
    with pytest.raises(UserError, match=words) as error:
        report.write(tmp_path, "made")
    prose(str(error.value))


def test_a_record_of_a_newer_version_is_refused_in_its_own_words(tmp_path: Path) -> None:
    suite(tmp_path)
    path = runs(tmp_path)[0].path
    path.write_text(path.read_text().replace('"schema":2', '"schema":99', 1))
    with pytest.raises(RecordError, match="newer version"):
        report.write(tmp_path, "made")


def test_mixed_machines_and_changed_code_are_said(tmp_path: Path) -> None:
    suite(tmp_path, {"vanilla": 0.0, "kd": 1.0})
    record = runs(tmp_path)[0]
    header, final = record.header, record.final
    record.path.unlink()
    record.begin(header["fingerprint"], header["spec"], ENVIRONMENT | {"dirty": True, "threads": 8})
    record.end("finished", "", final["metrics"] if final else {}, [])
    text = report.write(tmp_path, "made").report.read_text()
    assert "0123456789ab with uncommitted" in text and "threads: 2, 8" in text and "counts differ" in text


def test_a_broken_write_leaves_the_old_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite(tmp_path, {"vanilla": 0.0, "kd": 1.0})
    before = b"the old report"
    (tmp_path / "made" / "report.md").write_bytes(before)

    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot write .*: No space left"):
        build.write(tmp_path, "made")
    assert (tmp_path / "made" / "report.md").read_bytes() == before
    assert not list((tmp_path / "made").rglob("*.partial"))
