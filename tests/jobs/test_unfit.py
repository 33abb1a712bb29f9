"""A method that does not take a pair ends the suite, or is left out of it and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.suite.suite import validate
from tests.test_cli import call
from tracking.seal import verify_checksum

LEFT_OUT = "left out (fsp needs the same channels"


def written(tmp_path: Path, tiny: dict[str, Any], rows: list[Any]) -> list[str]:
    raw = {key: value for key, value in tiny.items() if key != "name"} | {"methods": rows, "seeds": 1}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    return [str(tmp_path / "own.yaml"), "--results", str(tmp_path / "results")]


def test_what_does_not_fit_is_left_out_on_request(
    tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = written(tmp_path, tiny, ["vanilla", "fsp"])
    assert call("run", *words) == 2
    assert "fsp" in (said := capsys.readouterr().err) and "--skip-unfit" in said
    assert call("run", *words, "--skip-unfit") == 0
    assert "left out: fsp on resnet8w8->resnet8w4" in capsys.readouterr().out
    folder = tmp_path / "results" / "own"
    assert f"- fsp on resnet8w8->resnet8w4: {LEFT_OUT}" in (folder / "report.md").read_text()
    assert LEFT_OUT in (folder / "report.html").read_text()
    assert [row[:2] for row in json.loads(verify_checksum((folder / "suite.json").read_text()))["left_out"]] == [
        ["fsp", "resnet8w8->resnet8w4"]
    ]
    assert len(list(folder.glob("runs/*/student.safetensors"))) == 1


def test_a_suite_of_what_does_not_fit_is_refused(
    tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", *written(tmp_path, tiny, ["fsp"]), "--skip-unfit") == 2
    assert "no method of the suite takes resnet8w8->resnet8w4: fsp" in capsys.readouterr().err


def test_all_stands_for_what_fits(tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    rows = validate({**tiny, "methods": ["kd", "all"]}, "test").methods
    assert {row.title for row in rows if not row.if_fit} == {"kd"} and len(rows) > 30
    assert call("check", *written(tmp_path, tiny, ["kd", "all"])[:1]) == 0
    said = capsys.readouterr().out
    assert (
        "left out: fsp: fsp needs the same channels" in said and f"is right: {len(rows) - 2} runs" in said
    )  # nor kdsvd
