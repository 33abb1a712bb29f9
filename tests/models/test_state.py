"""Checkpoints: what is read, and the one line for what is not."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bench.errors import UserError
from bench.models import build, load_state, state_hash


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, str]:
    net = build("resnet8", n_classes=10)
    torch.save(net.state_dict(), tmp_path / "bare.pth")
    return tmp_path, state_hash(net)


@pytest.mark.parametrize("kind", ["bare", "model", "state_dict", "module", "both", "safetensors", "uncounted"])
def test_reads(kind: str, saved: tuple[Path, str]) -> None:
    folder, expected = saved
    state = torch.load(folder / "bare.pth", weights_only=True)
    path = folder / ("x.safetensors" if kind == "safetensors" else "x.pt")
    if kind in ("module", "both"):
        state = {f"module.{k}": v for k, v in state.items()}
    if kind == "uncounted":
        state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state, "state_dict": {"state_dict": state}}.get(kind, {"model": state, "epoch": 3}), path)
        if kind in ("bare", "module"):
            torch.save(state, path)
    net = build("resnet8", n_classes=10)
    assert state_hash(net) != expected
    load_state(net, path)
    assert state_hash(net) == expected


def refused(path: Path, says: str, name: str = "resnet8", n_classes: int = 10) -> None:
    net = build(name, n_classes=n_classes)
    before = state_hash(net)
    with pytest.raises(UserError, match=says) as error:
        load_state(net, path)
    assert "\n" not in str(error.value) and path.name in str(error.value) and state_hash(net) == before


def test_missing_and_unknown_kinds(tmp_path: Path) -> None:
    refused(tmp_path / "none.pth", "no file")
    refused(tmp_path, "no file")
    (tmp_path / "x.bin").write_bytes(b"1")
    refused(tmp_path / "x.bin", "ends in .pth, .pt, .safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    state = build("resnet8", n_classes=10).state_dict()
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "cannot be read, perhaps truncated")


def test_garbage(tmp_path: Path) -> None:
    path = tmp_path / "text.pth"
    path.write_text("<html>not found</html>")
    refused(path, "cannot be read")


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(zipped: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "bad.pth", tmp_path / "ran"
    if zipped:
        torch.save({"model": Malicious(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Malicious(mark)}, protocol=2))
    refused(path, "mkdir.*could run code")
    assert not mark.exists()


def test_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    for content in ({}, {"model": 1}, [torch.zeros(1)], {"a": torch.zeros(1), "epoch": 3}):
        torch.save(content, path)
        refused(path, "holds no state dict")


def test_another_network(saved: tuple[Path, str]) -> None:
    path = saved[0] / "bare.pth"
    refused(path, r"is not a state of resnet14: 'layer1.1.conv1.weight' is missing; it fits resnet8", "resnet14")
    refused(path, r"'conv1.weight' is \[16, 3, 3, 3\], not \[32, 3, 3, 3\]; it fits resnet8", "resnet8x4")
    torch.save(build("ShuffleV1", n_classes=10).state_dict(), path)
    refused(path, "it fits ShuffleV1", "vgg8")
    torch.save(build("resnet8w5", n_classes=10).state_dict(), path)
    with pytest.raises(UserError, match="is not a state of resnet8: ") as error:
        load_state(build("resnet8", n_classes=10), path)
    assert "fits" not in str(error.value)


def test_other_classes(saved: tuple[Path, str]) -> None:
    refused(saved[0] / "bare.pth", "has 10 classes, and this resnet8 has 100", n_classes=100)
