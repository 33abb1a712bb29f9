from __future__ import annotations

import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from bench.errors import UserError
from tests.data.conftest import picture, read
from tests.prose import Prose


def folder_of(root: Path, *splits: str, per_class: int = 6, mode: str = "RGB") -> Path:
    for k, name in enumerate(f"{split}/{kind}" for split in splits for kind in ("ant", "bee")):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            picture(100 * k + i, size=(10 + i, 14 - i), mode=mode).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize("test", ["test", "val"])
def test_image_folder(tmp_path: Path, test: str) -> None:
    root = folder_of(tmp_path / "insects", "train", test)
    (root / "train/ant/notes.txt").write_text("no image")
    data = read(source="image_folder", path=str(root), size=8, validation=4)
    assert data.classes == ("ant", "bee") and data.name == "insects"
    assert (len(data.train), len(data.validation), len(data.test)) == (8, 4, 12)
    assert data.train.x.shape == (8, 3, 8, 8) and data.test.y.tolist() == [0] * 6 + [1] * 6
    again = read(source="image_folder", path=str(root), size=8, validation=4)
    assert again.fingerprint == data.fingerprint


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_of_its_own_is_the_validation_split(tmp_path: Path, name: str) -> None:
    root = folder_of(tmp_path / "insects", "train", name, "test")
    data = read(source="image_folder", path=str(root), size=8)
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 12, 12)
    alone = {split: folder_of(tmp_path / split, "train", "test") for split in (name, "test")}
    for split, found in ((name, data.validation), ("test", data.test)):
        (alone[split] / "test").rename(tmp_path / f"{split}-empty")
        (root / split).rename(alone[split] / "test")
        assert torch.equal(read(source="image_folder", path=str(alone[split]), size=8, validation=4).test.x, found.x)


def test_grey_image_folder(tmp_path: Path) -> None:
    assert (
        read(
            source="image_folder", path=str(folder_of(tmp_path / "g", "train", "test", mode="L")), size=8, validation=4
        ).channels
        == 1
    )


def test_image_folders_that_are_refused(tmp_path: Path) -> None:
    def says(root: Path, text: str) -> None:
        with pytest.raises(UserError, match=text):
            _ = read(source="image_folder", path=str(root), size=8, validation=4).test

    says(tmp_path / "nowhere", "no folder train in .*nowhere; path takes a folder of train/<class>")
    says(folder_of(tmp_path / "a", "train"), "no folder test or val in")
    says(folder_of(tmp_path / "b", "train", "test", per_class=0), "no image in .*train")
    root = folder_of(tmp_path / "c", "train", "test")
    (root / "test/bee/3.png").write_bytes(b"junk")
    says(root, "test/bee/3.png: not a readable image")
    (root / "test/cat").mkdir()
    says(root, "class 'cat' of .*test is not in train")
    (root / "train/cat").mkdir()
    says(root, "class 'cat' has no image in the train split")


def fake_fashion(root: Path) -> dict[str, np.ndarray]:
    """The four files of FashionMNIST, small."""
    raw, out = root / "FashionMNIST/raw", {}
    raw.mkdir(parents=True)
    for prefix, n in (("train", 40), ("t10k", 20)):
        x = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        y = (np.arange(n) % 10).astype(np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, n, 28, 28) + x.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, n) + y.tobytes())
        out[prefix] = x
    return out


def test_torchvision(tmp_path: Path) -> None:
    pixels = fake_fashion(tmp_path)
    data = read(source="torchvision", name="FashionMNIST", root=str(tmp_path), validation=10)
    assert data.name == "fashionmnist" and data.classes[0] == "T-shirt/top"
    assert (data.mean, data.std) == ((0.2860,), (0.3530,))
    assert torch.equal(data.test.x[:, 0], torch.from_numpy(pixels["t10k"])) and data.train.x.shape == (30, 1, 28, 28)
    small = read(source="torchvision", name="FashionMNIST", root=str(tmp_path), validation=10, size=14)
    assert small.train.x.shape == (30, 1, 14, 14) and small.mean != data.mean


def test_cifar_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    class Fake:
        classes = ["apple", "aquarium_fish", "baby"]

        def __init__(self, root: str, train: bool, download: bool) -> None:
            self.data = np.random.default_rng(train).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
            self.targets = [i % 3 for i in range(30)]

    monkeypatch.setattr(datasets, "CIFAR100", Fake)
    data = read(source="torchvision", name="CIFAR100", validation=6)
    assert data.name == "cifar100" and data.mean == (0.5071, 0.4867, 0.4408)
    truth = torch.from_numpy(Fake("", False, False).data).permute(0, 3, 1, 2)
    assert torch.equal(data.test.x, truth) and data.test.x.is_contiguous()


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "FashionMNIST"])
def test_torchvision_files_missing(tmp_path: Path, name: str, prose: Prose) -> None:
    with pytest.raises(UserError, match=f"{name} .*`download: true`") as error:
        read(source="torchvision", name=name, root=str(tmp_path), validation=100)
    prose(str(error.value))


def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prose: Prose) -> None:
    from torchvision import datasets

    def fail(self: object) -> None:
        raise URLError("no route to host\nat all")

    monkeypatch.setattr(datasets.CIFAR10, "download", fail)
    with pytest.raises(UserError, match=r"CIFAR10 .*no route to host") as error:
        read(source="torchvision", name="CIFAR10", root=str(tmp_path), validation=100, download=True)
    prose(str(error.value))
    assert "\n" not in str(error.value)
