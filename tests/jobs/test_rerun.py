"""A run repeated from its fingerprint: to the bit here, within a tolerance elsewhere, never silently another run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bench.jobs.rerun import Verdict, find_record, three_standard_errors
from tests.conftest import TINY
from tests.prose import Prose, numbers
from tests.test_cli import call
from tracking.lines import encode_lines, without_crc
from tracking.record import Record, scan


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reran")
    torch.set_num_threads(1)
    (folder / "tiny.yaml").write_text(yaml.safe_dump({key: value for key, value in TINY.items() if key != "name"}))
    words = ["--methods", "vanilla,kd", "--seeds", "1", "--results", str(folder / "results"), "--quiet"]
    assert call("run", str(folder / "tiny.yaml"), *words) == 0
    return folder / "results"


def told(ran: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = call("rerun", *words, "--results", str(ran), "--json")
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("from_scratch", [False, True])
def test_the_same_machine_gives_every_bit(from_scratch: bool, ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kd = next(record for record in scan(ran / "tiny") if record.header["spec"]["label"] == "kd")
    fingerprint = kd.header["fingerprint"]
    code, got = told(ran, capsys, fingerprint[:8], *["--from-scratch"] * from_scratch)
    assert code == 0 and got["agrees"] and got["tolerance"] == 0 and not got["other"] and not got["changed"]
    assert len(got["metrics"]) > 10 and all(before == now for before, now in got["metrics"].values())
    assert kd.is_intact() and Path(got["folder"]).name == fingerprint


def altered(record: Record, folder: Path, **changes: Any) -> Path:
    """A copy of a record with other final numbers or another environment."""
    lines = record.read()
    header, end = without_crc(lines.header), without_crc(lines.end or {})
    header["environment"] = {**header["environment"], **changes.pop("environment", {})}
    end["metrics"] = {**end["metrics"], **changes}
    out = folder / "tiny" / "runs" / header["fingerprint"]
    out.mkdir(parents=True)
    text = encode_lines((header, *map(without_crc, lines.epochs), end))
    (out / "record.jsonl").write_text(text)
    (folder / "tiny" / "suite.json").write_text((record.folder.parent.parent / "suite.json").read_text())
    return out


def test_other_numbers_are_noticed(ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = scan(ran / "tiny")[0]
    assert record.final is not None
    top1 = record.final["metrics"]["test/top1"]
    code, got = told(ran, capsys, str(altered(record, tmp_path / "a", **{"test/top1": top1 + 1})))
    assert code == 1 and not got["agrees"]
    elsewhere = {"environment": {"cpu": "another"}}
    code, got = told(ran, capsys, str(altered(record, tmp_path / "b", **{"test/top1": top1 + 1, **elsewhere})))
    assert code == 0 and got["agrees"] and got["other"].startswith("cpu another, not ") and got["tolerance"] > 1
    code, got = told(ran, capsys, str(altered(record, tmp_path / "c", **{"test/top1": top1 + 60, **elsewhere})))
    assert code == 1 and not got["agrees"]


def test_tolerance(prose: Prose) -> None:
    assert three_standard_errors(50.0, 100) == pytest.approx(300 * (2 * 0.25 / 100) ** 0.5)
    assert 0 < three_standard_errors(100.0, 1000) < 1  # no accuracy is known to be perfect
    verdict = Verdict("f", "kd", "a->b", 1, {"test/top1": (70.0, 69.5)}, "cpu", "", 0.4, Path())
    assert not verdict.agrees and {69.5, 70.0, 0.4} <= set(numbers(verdict.sentence()))
    prose(verdict.sentence())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["xyz"], "is no fingerprint"),
        (["abc"], "is no fingerprint"),
        (["0123456789abcdef"], "no run '0123456789abcdef'"),
    ],
)
def test_what_is_not_there_is_said(words: list[str], said: str, ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("rerun", *words, "--results", str(ran)) == 2
    assert said in capsys.readouterr().err


def test_the_projects_own_results_are_found(tmp_path: Path) -> None:
    some = next((Path(__file__).parents[2] / "results" / "reference" / "digits" / "runs").iterdir())
    assert find_record(some.name, tmp_path).folder == some
