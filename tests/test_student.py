"""A student on its way home: under its library's own names, in both kinds of file, or one line that says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save

from bench import models
from bench.errors import UserError
from bench.models import student
from tests.test_cli import call
from tests.tracking.conftest import environment, spec
from tracking.record import Record


def finished(results: Path, arch: str, suite: str = "tiny", mark: str = "f0") -> Path:
    """A run as the harness leaves it: its student's whole state, statistics of BatchNorm included."""
    about = {"arch": arch, "in_channels": 3, "size": 32, "n_classes": 7}
    network = models.build(arch, in_channels=3, size=32, n_classes=7)
    network(torch.randn(8, 3, 32, 32))
    record = Record(results / suite / "runs" / mark)
    record.begin(mark, spec(), environment())
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    path = record.folder / "student.safetensors"
    path.write_bytes(save(state, {"network": json.dumps(about)}))
    record.end("finished", "", {}, [path.name])
    return path


@pytest.mark.parametrize("name", ["s.safetensors", "s.pth", "s.pt"])
def test_plain_torchvision_loads_its_resnet18(tmp_path: Path, name: str) -> None:
    kept, to = finished(tmp_path, "torchvision/resnet18"), tmp_path / name
    assert student.export(tmp_path, "f0", to) == "torchvision/resnet18"
    state = load_file(to) if to.suffix == ".safetensors" else torch.load(to, weights_only=True)["state_dict"]
    plain = torchvision.models.resnet18(num_classes=7).eval()
    plain.load_state_dict(state)  # strict: all names, and no other
    x = torch.randn(4, 3, 32, 32)
    loaded = student.load(to)
    assert not loaded.training and loaded.network.arch == "torchvision/resnet18"
    with torch.no_grad():
        assert torch.equal(loaded(x), student.load(kept)(x))
        torch.testing.assert_close(loaded(x), plain(x))


def test_an_export_of_earlier_days_still_loads(tmp_path: Path) -> None:
    kept = finished(tmp_path, "torchvision/shufflenet_v2_x0_5")
    state = {name.removeprefix("network."): value for name, value in load_file(kept).items()}
    assert all(name.startswith("net.") for name in state)
    about = {"arch": "torchvision/shufflenet_v2_x0_5", "in_channels": 3, "size": 32, "n_classes": 7}
    (tmp_path / "s.safetensors").write_bytes(save(state, {"network": json.dumps(about)}))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(student.load(tmp_path / "s.safetensors")(x), student.load(kept)(x))


@pytest.mark.parametrize("content", [torch.zeros(2), {"a": 1}, {"state_dict": {"a": torch.zeros(1)}}, {"network": {}}])
def test_a_file_that_holds_no_student_of_ours(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "s.pth")
    with pytest.raises(UserError, match=r"s\.pth: does not say which network it holds"):
        student.load(tmp_path / "s.pth")
    torch.save({"state_dict": {1: "x"}, "network": {"arch": "resnet8"}}, tmp_path / "s.pth")
    with pytest.raises(UserError, match=r"s\.pth: not a student that kdbench wrote"):
        student.load(tmp_path / "s.pth")


def test_a_run_in_two_suites_is_named_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suite in ("tiny", "other"):
        finished(tmp_path, "resnet8w4", suite)
    words = ("export", "f0", str(tmp_path / "s.pth"), "--results", str(tmp_path))
    assert call(*words) == 2
    assert "begin with 'f0'; name one of its suites: --suite other or tiny" in capsys.readouterr().err
    assert call(*words, "--suite", "other") == 0
    assert f"load it with bench.models.student.load('{tmp_path / 's.pth'}')" in capsys.readouterr().out
    finished(tmp_path, "resnet8w4", "other", "f1")
    assert call("export", "f", *words[2:], "--suite", "other") == 2
    assert "2 finished runs in" in (said := capsys.readouterr().err) and "the report lists the fingerprints" in said


@pytest.mark.parametrize("to", ["nowhere/s.pth", "nowhere/s.safetensors"])
def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path, "resnet8w4")
    assert call("export", "f0", str(tmp_path / to), "--results", str(tmp_path)) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "No such file or directory; name a file in a folder that is there" in told[0]
