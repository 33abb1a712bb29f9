from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bench.data import images, parquet
from bench.errors import UserError
from tests.data.conftest import Write, encoded, picture, read, rows
from tests.prose import Prose

TRAIN, TEST = "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"
LABELS = [i % 2 for i in range(12)]


def both(shard: Write, pictures: list[Any], labels: list[Any] = LABELS, **columns: Any) -> Path:
    shard(TEST, pictures, labels, **columns)
    return shard(TRAIN, pictures, labels, **columns)


def test_shards_are_read_in_order(tiny_set: Path) -> None:
    data = read(source="parquet", path=str(tiny_set), validation=6)
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 6, 9)
    assert data.classes == ("ant", "bee", "cat") and data.name == "set" and (data.channels, data.size) == (3, 6)
    truth = torch.from_numpy(np.stack([np.asarray(picture(3000 + i)) for i in range(9)])).permute(0, 3, 1, 2)
    assert torch.equal(data.test.x, truth) and data.test.y.tolist() == [0, 1, 2] * 3
    train = [np.asarray(picture(1000 * k + i)).tobytes() for k in (1, 2) for i in range(12)]
    got = [x.permute(1, 2, 0).numpy().tobytes() for x in torch.cat([data.train.x, data.validation.x])]
    assert sorted(got) == sorted(train)


def test_paths(tiny_set: Path, monkeypatch: pytest.MonkeyPatch, prose: Prose) -> None:
    monkeypatch.setenv("SETS", str(tiny_set.parent))
    monkeypatch.chdir(tiny_set.parent)
    monkeypatch.setenv("HOME", str(tiny_set.parent))
    for path in ("$SETS/set", "${SETS}/set", "set", "~/set", "set/*.parquet", f"{tiny_set}/t*-000*"):
        assert [len(v) for v in parquet.find_shards(path).values()] == [1, 2]
    (tiny_set.parent / "data").mkdir()
    os.rename(tiny_set, tiny_set.parent / "data" / "data")  # noqa: PTH104
    assert len(parquet.find_shards("data")) == 2
    with pytest.raises(UserError, match="NOT_SET_ANYWHERE") as error:
        parquet.find_shards("$NOT_SET_ANYWHERE/set")
    prose(str(error.value))


def test_validation_shards_serve_as_test(shard: Write) -> None:
    shard("validation-00000-of-00001.parquet", rows(4), [0, 1, 0, 1])
    folder = shard(TRAIN, rows(12), LABELS)
    assert len(read(source="parquet", path=str(folder), validation=4).test) == 4


def test_validation_shards_beside_test_are_the_validation_split(tiny_set: Path, shard: Write) -> None:
    """Whole, or a stratified part of them, which lies in a larger one; no image of train is taken for it."""
    carved = read(source="parquet", path=str(tiny_set), validation=6)
    shard("valid-00000-of-00001.parquet", rows(9, 4), [i % 3 for i in range(9)], names=["ant", "bee", "cat"])
    whole = read(source="parquet", path=str(tiny_set))
    assert (len(whole.train), len(whole.validation), len(whole.test)) == (24, 9, 9)
    truth = torch.from_numpy(np.stack([np.asarray(picture(4000 + i)) for i in range(9)])).permute(0, 3, 1, 2)
    assert torch.equal(whole.validation.x, truth) and whole.validation.y.tolist() == [0, 1, 2] * 3
    part = read(source="parquet", path=str(tiny_set), validation=6, train=12)
    assert part.validation.y.bincount().tolist() == [2, 2, 2] and part.train.y.bincount().tolist() == [4, 4, 4]
    assert all((whole.validation.x == x).flatten(1).all(1).any() for x in part.validation.x)
    assert whole.describe()["validation_from"] == "its own split" and "validation_from" not in carved.describe()
    assert len({carved.fingerprint, whole.fingerprint, part.fingerprint}) == 3
    assert torch.equal(carved.test.x, whole.test.x)
    with pytest.raises(UserError, match="validation: 10 asked, that split holds 9 images; set validation to at most 9"):
        read(source="parquet", path=str(tiny_set), validation=10)
    with pytest.raises(UserError, match=r"^train: 25 asked of 24 images; set train to at most 24"):
        read(source="parquet", path=str(tiny_set), train=25)


def test_a_source_without_a_validation_split_is_split_as_ever(tiny_set: Path) -> None:
    data = read(source="parquet", path=str(tiny_set), validation=6, train=9, split_seed=3)
    assert data.fingerprint == "3ffbce7eac929512"  # as before there were sources with one
    with pytest.raises(UserError, match="set has no validation split of its own; say how many of its 24 train images"):
        read(source="parquet", path=str(tiny_set))


@pytest.mark.parametrize(("label", "names"), [("fine_label", None), ("species", ["x", "y"])])
def test_label_column_is_found(shard: Write, label: str, names: list[str] | None) -> None:
    data = read(source="parquet", path=str(both(shard, rows(12), label=label, names=names, img="image")), validation=4)
    assert data.classes == tuple(names or "01")


def test_grey_stays_grey_and_mixed_becomes_colour(shard: Write) -> None:
    folder = both(shard, rows(12, mode="L"))
    grey = read(source="parquet", path=str(folder), validation=4)
    assert grey.channels == 1 and grey.train.x.shape[1:] == (1, 6, 6)
    shard(TRAIN, [*rows(11, mode="L"), *rows(1)], LABELS)
    mixed = read(source="parquet", path=str(folder), validation=4)
    assert mixed.channels == 3 and mixed.test.x.shape[1] == 3
    assert torch.equal(mixed.test.x[:, 0], mixed.test.x[:, 2])


def test_size_scales_and_crops(shard: Write) -> None:
    folder = both(shard, [*rows(6, size=(9, 12)), *rows(6, size=(16, 8))])
    assert read(source="parquet", path=str(folder), validation=4, size=8).train.x.shape == (8, 3, 8, 8)


def test_scaling_is_torchvisions() -> None:
    from torchvision.transforms import functional as tv

    for size in ((50, 31), (31, 50), (20, 20), (17, 90)):
        image = picture(1, size=size)
        assert images.resize_and_crop(image, 16).tobytes() == tv.center_crop(tv.resize(image, 16), [16, 16]).tobytes()


BAD = [
    ("no image column", lambda: (["a"] * 12, LABELS, {"img": "text"}), r"no column of images; found text, label"),
    ("undecodable", lambda: (broken(b"junk"), LABELS, {}), rf"{TRAIN} row 11: not a readable"),
    ("cut short", lambda: (broken(encoded(picture(1))[:60]), LABELS, {}), "row 11: not a readable"),
    ("16 bits", lambda: (broken(sixteen()), LABELS, {}), "row 11: pixels of mode I;16"),
    ("negative label", lambda: (rows(12), [*LABELS[:11], -1], {}), rf"{TRAIN} row 11: label -1 is out of range"),
    ("label too large", lambda: (rows(12), [*LABELS[:11], 2], {"names": ["a", "b"]}), "row 11: label 2 .* from 0 to 1"),
    ("no label", lambda: (rows(12), [*LABELS[:11], None], {}), "row 11: no label"),
    ("label column", lambda: (rows(12), LABELS, {"label": "kind"}), "no column 'label'; name it .* img, kind"),
    ("text labels", lambda: (rows(12), ["a", "b"] * 6, {}), "'label' holds string"),
    ("absent class", lambda: (rows(12), LABELS, {"names": ["a", "b", "c"]}), "class 'c' has no image in the train"),
    ("null bytes", lambda: (broken(None, "x.png"), LABELS, {}), "row 11: 'img' has no bytes"),
    ("null image", lambda: ([*rows(11), None], LABELS, {}), "row 11: 'img' has no bytes"),
    ("unequal", lambda: ([*rows(11), *rows(1, size=(5, 6))], LABELS, {}), "row 11: the image is 5×6 .* set `size: 6`"),
    ("not square", lambda: (rows(12, size=(4, 6)), LABELS, {}), "row 0: the image is 4×6, not square; set `size: 4`"),
]  # fmt: skip


def broken(data: bytes | None, path: str | None = None) -> list[dict[str, Any]]:
    return [*rows(11), {"bytes": data, "path": path}]


def sixteen() -> bytes:
    from PIL import Image

    return encoded(Image.fromarray(np.arange(36, dtype=np.uint16).reshape(6, 6)))


@pytest.mark.parametrize(("make", "says"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_shards(shard: Write, make: Any, says: str) -> None:
    pictures, labels, columns = make()
    folder = both(shard, pictures, labels, **columns)
    with pytest.raises(UserError, match=says) as error:
        read(source="parquet", path=str(folder), validation=4)
    assert "\n" not in str(error.value)


def test_bad_label_name(tiny_set: Path, prose: Prose) -> None:
    with pytest.raises(UserError, match=r"'lable'; did you mean 'label'") as error:
        read(source="parquet", path=str(tiny_set), validation=4, label="lable")
    prose(str(error.value))


def test_a_path_in_a_shard_is_never_followed(shard: Write, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(encoded(picture(5)))
    folder = both(shard, [{"bytes": None, "path": str(tmp_path / "secret.png")}] * 12)
    with pytest.raises(UserError, match="a path is not followed"):
        read(source="parquet", path=str(folder), validation=4)


def test_missing_and_broken_shards(tiny_set: Path, tmp_path: Path) -> None:
    for path in ("nowhere", "nowhere/*.parquet"):
        with pytest.raises(UserError, match="no parquet shards at 'nowhere"):
            read(source="parquet", path=path, validation=4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no parquet shards"):
        read(source="parquet", path=str(tmp_path / "empty"), validation=4)
    with pytest.raises(UserError, match="no train-"):
        read(source="parquet", path=f"{tiny_set}/test*", validation=4)
    with pytest.raises(UserError, match="no test-"):
        read(source="parquet", path=f"{tiny_set}/train*", validation=4)
    second = tiny_set / "train-00001-of-00002.parquet"
    whole = second.read_bytes()
    for broken in (
        whole[: len(whole) // 2],
        b"",
        b"PAR1" + bytes(200) + b"PAR1",
        whole[:40] + bytes(400) + whole[440:],
    ):
        second.write_bytes(broken)
        with pytest.raises(UserError, match=r"train-00001-of-00002.parquet.*\S") as error:
            read(source="parquet", path=str(tiny_set), validation=4)
        assert "\n" not in str(error.value)


def test_shards_that_differ(tiny_set: Path, prose: Prose) -> None:
    path = tiny_set / "train-00001-of-00002.parquet"
    pq.write_table(pq.read_table(path).rename_columns(["img", "kind"]), path)
    with pytest.raises(UserError, match=r"train-00001.*no column 'label'") as error:
        read(source="parquet", path=str(tiny_set), validation=4)
    prose(str(error.value))


def test_a_cifar_is_known_by_its_classes(shard: Write) -> None:
    names = ["airplane", "automobile", "bird", *"defghij"]
    labels = [i % 10 for i in range(20)]
    data = read(source="parquet", path=str(both(shard, rows(20, size=(32, 32)), labels, names=names)), validation=10)
    assert data.name == "cifar10" and data.mean == (0.4914, 0.4822, 0.4465)


def test_no_rows(shard: Write) -> None:
    folder = both(shard, rows(12))
    pq.write_table(pq.read_table(folder / TRAIN).slice(0, 0), folder / TRAIN)
    with pytest.raises(UserError, match="hold no rows"):
        read(source="parquet", path=str(folder), validation=4)
