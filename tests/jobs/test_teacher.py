"""What is said of a teacher before students train: its accuracy, and whether it knows anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from bench.jobs import teacher
from bench.models import build
from tests.test_cli import call
from tracking.record import Record, scan


@pytest.mark.parametrize(
    ("counts", "level"),
    [([50, 50], 65.45), ([1000, 1000], 53.45), ([90, 10], 99.27), ([10] * 10, 19.27), ([3], 100.0)],
)
def test_chance_is_the_largest_class_and_some_luck(counts: list[int], level: float) -> None:
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    assert teacher.chance_level(y) == pytest.approx(level, abs=0.005)


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_teacher_that_knows_nothing_is_one_line(
    command: str, tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(build("resnet8w8", in_channels=1, size=8, n_classes=10).state_dict(), tmp_path / "random.pth")
    pair = {"teacher": "resnet8w8", "student": "resnet8w4", "teacher_file": str(tmp_path / "random.pth")}
    raw = {key: value for key, value in tiny.items() if key != "name"} | {"pairs": [pair], "seeds": 1}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    where = ["--results", str(tmp_path / "results"), "--quiet"] if command == "run" else []
    assert call(command, str(tmp_path / "own.yaml"), *where) == 0
    seen, level, *weaker = capsys.readouterr().err.splitlines()
    assert all("vanilla" in line for line in weaker)  # by chance, its students may do better or not
    assert "resnet8w8" in level and "chance level" in level and "data.mean" in level
    assert "random.pth" in seen and "validation" in seen  # it may have been trained on what is carved for validation


def test_a_teachers_accuracy_is_said_and_recorded_before_students_train(
    tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    raw = {key: value for key, value in tiny.items() if key != "name"}
    raw |= {"teacher": {"protocol": {"epochs": 40, "milestones": [30]}}, "methods": ["kd"], "seeds": 1}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    assert call("run", str(tmp_path / "own.yaml"), "--results", str(tmp_path / "results")) == 0
    lines = capsys.readouterr()
    header = scan(tmp_path / "results" / "own")[0].header
    line = f"teacher resnet8w8: {header['spec']['teacher_validation_top1']:.2f} % on validation"
    assert lines.out.index(line) < lines.out.index("resnet8w8->resnet8w4 seed 0") and not lines.err


def teachers_in(folder: Path) -> list[Record]:
    return [Record(path.parent) for path in folder.glob("results/teachers/*/record.jsonl")]


def test_a_file_of_other_classes_is_trained_further_with_a_new_head(
    tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before = build("resnet8w8", in_channels=1, size=8, n_classes=7)
    torch.save({"net": before.state_dict()}, tmp_path / "seven.pth")
    pair = {"teacher": "resnet8w8", "student": "resnet8w4", "teacher_file": str(tmp_path / "seven.pth")}
    raw = {key: value for key, value in tiny.items() if key != "name"} | {"methods": ["kd"], "seeds": 1}
    for finetune, lr in (({"epochs": 1, "milestones": [], "lr": 1e-9}, True), ({"epochs": 2, "milestones": []}, False)):
        raw["pairs"] = [pair | {"finetune": finetune}]
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
        assert call("run", str(tmp_path / "own.yaml"), "--results", str(tmp_path / "results")) == 0
        record = max(teachers_in(tmp_path), key=lambda r: r.header["time"])
        assert record.header["spec"]["protocol"]["epochs"] == finetune["epochs"]
        state = load_file(record.folder / "teacher.safetensors")
        assert state["fc.weight"].shape[0] == 10
        close = torch.allclose(state["layer3.0.conv1.weight"], before.state_dict()["layer3.0.conv1.weight"], atol=1e-5)
        assert close == lr  # it began with the file's weights
    assert len(teachers_in(tmp_path)) == 2 and "chance" not in capsys.readouterr().out


def test_a_librarys_weights_are_what_a_teacher_begins_with(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torchvision = pytest.importorskip("torchvision")
    real, asked = torchvision.models.get_model, []

    def downloaded(model: str, weights: str | None, **how: Any) -> torch.nn.Module:
        asked.append(weights)
        net: torch.nn.Module = real(model, weights=None, **how)
        if weights:
            torch.nn.init.constant_(net.get_parameter("layer4.1.bn2.bias"), 7.0)
        return net

    monkeypatch.setattr(torchvision.models, "get_model", downloaded)
    pair = {"teacher": "torchvision/resnet18", "student": "resnet8w4", "pretrained": True}
    raw = {key: value for key, value in tiny.items() if key != "name"} | {"methods": ["kd"], "seeds": 1}
    raw["pairs"] = [pair | {"finetune": {"epochs": 1, "milestones": [], "lr": 1e-9}}]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    assert call("run", str(tmp_path / "own.yaml"), "--results", str(tmp_path / "results"), "--quiet") == 0
    (record,) = teachers_in(tmp_path)
    state = load_file(record.folder / "teacher.safetensors")
    assert "DEFAULT" in asked and state["net.fc.weight"].shape == (10, 512)
    torch.testing.assert_close(state["net.layer4.1.bn2.bias"], torch.full((512,), 7.0))
