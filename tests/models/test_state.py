"""Checkpoints: what is read, and the one line for what is not."""

import json
import os
import pickle
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bench.errors import UserError
from bench.models import build, files, load_state, state_hash
from bench.models.state import State


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


def refused(path: Path, says: str, name: str = "resnet8", n_classes: int = 10, file: Path | None = None) -> None:
    net = build(name, n_classes=n_classes)
    before = state_hash(net)
    with pytest.raises(UserError, match=says) as error:
        load_state(net, path)
    assert "\n" not in str(error.value) and (file or path).name in str(error.value) and state_hash(net) == before


def test_missing_and_unknown_kinds(tmp_path: Path) -> None:
    refused(tmp_path / "none.pth", "no file")
    refused(tmp_path, "no file")
    (tmp_path / "x.bin").write_bytes(b"1")
    refused(tmp_path / "x.bin", "cannot be read.*torch.save or safetensors")
    (tmp_path / "x.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\n")
    refused(tmp_path / "x.bin", "pointer of Git LFS.*git lfs pull")


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
    refused(
        path,
        r"is not a state of resnet14: 'layer1.1.conv1.weight' is missing \(and 29 more\); it fits resnet8",
        "resnet14",
    )
    refused(
        path, r"'conv1.weight' is \[16, 3, 3, 3\], not \[32, 3, 3, 3\] \(and 50 more\); it fits resnet8", "resnet8x4"
    )
    torch.save(build("ShuffleV1", n_classes=10).state_dict(), path)
    refused(path, "it fits ShuffleV1", "vgg8")
    torch.save(build("resnet8w5", n_classes=10).state_dict(), path)
    with pytest.raises(UserError, match="is not a state of resnet8: ") as error:
        load_state(build("resnet8", n_classes=10), path)
    assert "fits" not in str(error.value)


FORMS: dict[str, Callable[[State, State], Any]] = {  # of the state that is meant, and one that is not
    "net": lambda own, other: {"net": own, "acc": 76.1, "epoch": 199},
    "model_state_dict": lambda own, other: {
        "model_state_dict": own,
        "optimizer_state_dict": {"state": {0: {"m": own}}},
    },
    "reference": lambda own, other: {"model": own, "optimizer": {"param_groups": []}, "args": Namespace(lr=0.1)},
    "example": lambda own, other: {"arch": "resnet8", "state_dict": under("module.", own), "best_acc1": np.float64(7)},
    "timm": lambda own, other: {"state_dict": other, "state_dict_ema": own, "args": Namespace(opt="sgd")},
    "torchvision": lambda own, other: {
        "model": other,
        "model_ema": {"n_averaged": torch.ones(1), **under("module.", own)},
    },
    "compiled": lambda own, other: under("_orig_mod.", own),
    "parallel and compiled": lambda own, other: under("module._orig_mod.", own),
    "lightning": lambda own, other: {
        "state_dict": under("model.", own) | {"loss.weight": torch.ones(3)},
        "callbacks": {},
    },
    "lightning, averaged": lambda own, other: {"state_dict": under("model.", other) | under("model_ema.module.", own)},
    "encoder": lambda own, other: {"state_dict": under("module.encoder.", own)},
    "nested": lambda own, other: {"state": {"app": {"model": under("module.net.", own)}}, "step": np.int64(3)},
    "twice the same": lambda own, other: {"model": own, "state_dict": own},
    "half": lambda own, other: {name: value.half().float() for name, value in own.items()},
}


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_checkpoint_is_read_by_its_content(form: str, tmp_path: Path) -> None:
    own, other, net = (build("resnet8w4", n_classes=5) for _ in range(3))
    for tensor in own.state_dict().values():
        tensor.copy_(tensor.half())
    for name in ("x.t7", "x.pth.tar", "x.ckpt", "noending"):
        torch.save(FORMS[form](own.state_dict(), other.state_dict()), tmp_path / name)
        for p in net.parameters():
            p.data.zero_()
        said = load_state(net, tmp_path / name)
        assert state_hash(net) == state_hash(own)
    assert said == {
        "timm": "'state_dict_ema'",
        "torchvision": "'model_ema', names after 'module.'; left out: n_averaged",
        "lightning": "'state_dict', names after 'model.'; left out: loss.weight",
        "nested": "'state.app.model', names after 'module.net.'",
        "half": "its tensors as they are",
    }.get(form, said)


def test_of_several_states_one_is_named(tmp_path: Path) -> None:
    a, b, net = (build("resnet8w4", n_classes=5) for _ in range(3))
    path = tmp_path / "two.pth"
    torch.save({"student": a.state_dict(), "teacher": under("module.", b.state_dict())}, path)
    with pytest.raises(UserError, match=r"several states of resnet8w4.*teacher_key: 'student' or 'teacher:module\.'"):
        load_state(net, path)
    assert load_state(net, path, "student") == "'student'" and state_hash(net) == state_hash(a)
    for key in ("teacher", "module.", "teacher:module."):
        load_state(net, path, key)
        assert state_hash(net) == state_hash(b)
    with pytest.raises(UserError, match="no resnet8w4 under teacher_key 'ema'; there is 'student' or 'teacher"):
        load_state(net, path, "ema")


def shards(folder: Path, state: State, index: str = "model.safetensors.index.json") -> list[Path]:
    """The state as two shards and their index, as Hugging Face keeps large ones."""
    names, half = list(state), len(state) // 2
    files = {name: f"model-0000{1 + (i >= half)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in {*files.values()}:
        save_file({name: state[name].contiguous() for name in names if files[name] == file}, folder / file)
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return sorted(folder.glob("model-*"))


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    own, net = (build("resnet8w4", n_classes=5) for _ in range(2))
    first, second = shards(tmp_path, own.state_dict())
    index = tmp_path / "model.safetensors.index.json"
    for path in (tmp_path, index):
        for p in net.parameters():
            p.data.zero_()
        load_state(net, path)
        assert state_hash(net) == state_hash(own) and files(path) == [index, first, second]
    whole = second.read_bytes()
    second.write_bytes(first.read_bytes())
    refused(
        index,
        r"model-00002-of-00002.safetensors' lacks '.*', which model.safetensors.index.json puts there",
        file=second,
    )
    second.write_bytes(whole[: len(whole) // 2])
    refused(index, "cannot be read, perhaps truncated", file=second)
    second.unlink()
    refused(index, "names; put all shards beside it", file=second)
    for text in ('{"weight_map": {"a": "../x.safetensors"}}', "{}", "[1]", '{"weight_map": [1]}', "{" * 9999):
        index.write_text(text)
        refused(index, "no index|cannot be read")


def test_other_classes(saved: tuple[Path, str]) -> None:
    refused(saved[0] / "bare.pth", "has 10 classes, and this resnet8 has 100", n_classes=100)


def test_a_file_for_images_of_other_channels(tmp_path: Path) -> None:
    torch.save(build("resnet8", in_channels=1).state_dict(), tmp_path / "grey.pth")
    with pytest.raises(UserError, match=r"is a resnet8 for images of 1 channels, and these have 3; give a file"):
        load_state(build("resnet8"), tmp_path / "grey.pth")
