from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from bench.data import Data, sources
from bench.data.raw import SplitArrays
from bench.data.spec import DigitsSpec
from bench.errors import UserError
from tests.data.conftest import SPEC, read


def test_what_a_data_set_tells() -> None:
    data = read(source="digits", train=100, validation=50, test=200)
    told = data.describe() | data.describe_test()
    assert json.loads(json.dumps(told)) == told
    assert {k: told[k] for k in ("name", "source", "channels", "size", "n_classes", "train", "validation", "test")} == {
        "name": "digits", "source": "digits", "channels": 1, "size": 8, "n_classes": 10,
        "train": 100, "validation": 50, "test": 200,
    }  # fmt: skip
    assert data.classes == tuple("0123456789") and (data.pad, data.flip) == (1, False)
    assert data.train.x.dtype == torch.uint8 and data.train.y.dtype == torch.int64


def test_mean_and_std_come_from_train_alone() -> None:
    data = read(source="digits", train=100, validation=50)
    pixels = data.train.x.double() / 255
    assert data.mean == pytest.approx([pixels.mean().item()]) and data.std == pytest.approx(
        [pixels.std(correction=0).item()]
    )
    given = read(source="digits", mean=[0.5], std=[0.25])
    assert (given.mean, given.std) == ((0.5,), (0.25,))
    with pytest.raises(UserError, match=r"3 and 3 .*1 channel"):
        read(source="digits", mean=[0.5] * 3, std=[0.2] * 3)


def test_fingerprint_follows_content_and_splits() -> None:
    base = {"source": "digits", "train": 100, "validation": 50, "test": 200}
    first = read(**base).fingerprint
    assert len(first) == 16 and int(first, 16) >= 0
    assert read(**base).fingerprint == first
    assert read(**base, flip=True, pad=2).fingerprint == first  # augmentation is not content
    for change in ({"train": 101}, {"validation": 51}, {"split_seed": 1}, {"size": 9}):
        assert read(**{**base, **change}).fingerprint != first
    other = read(**{**base, "test": 199})
    assert other.fingerprint == first  # what is tuned without the test split is the same whatever that is
    assert other.describe_test()["test_fingerprint"] != read(**base).describe_test()["test_fingerprint"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_fingerprint_sees_one_pixel(tiny_set: Path, split: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.data.conftest import encoded, picture

    def told() -> tuple[str, str]:
        data = read(source="parquet", path=str(tiny_set), validation=6)
        return data.fingerprint, data.describe_test()["test_fingerprint"]

    path = next(tiny_set.glob(f"{split}-00000-*.parquet"))
    first = told()
    table = pq.read_table(path)
    changed = table["img"].to_pylist()
    image = picture(3000)
    image.putpixel((2, 2), (1, 2, 3))
    changed[0] = {"bytes": encoded(image), "path": None}
    pq.write_table(table.set_column(0, "img", pa.array(changed, table["img"].type)), path)
    assert [old == new for old, new in zip(first, told(), strict=True)] == [split == "test", split == "train"]


def test_a_closed_test_split_is_never_read() -> None:
    def test() -> SplitArrays:
        raise AssertionError("read")

    raw = replace(sources.digits(DigitsSpec(source="digits")), test=test)
    closed = Data(DigitsSpec(source="digits"), raw, "cpu", test=False)
    for _ in range(2):
        with pytest.raises(UserError, match="the test split is closed"):
            _ = closed.test
    assert closed.describe() == Data(DigitsSpec(source="digits"), raw, "cpu").describe()
    with pytest.raises(UserError, match="closed"):
        closed.describe_test()
    with pytest.raises(AssertionError, match="read"):
        _ = Data(DigitsSpec(source="digits"), raw, "cpu").test


def test_digits_without_a_rest() -> None:
    with pytest.raises(UserError, match=r"1797 .*set train lower"):
        read(source="digits", train=1497)
    with pytest.raises(UserError, match=r"test: 2000 .* 1197"):
        _ = read(source="digits", test=2000).test


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"source": "digits", "validation": 0}, "at least 1, got 0"),
        ({"source": "digits", "train": -5}, "at least 1, got -5"),
        ({"source": "digits", "validation": True}, "valid integer"),
        ({"source": "digits", "pad": -1}, "greater than or equal to 0"),
        ({"source": "digits", "mean": [0.5]}, "mean and std go together"),
        ({"source": "digits", "mean": [0.5], "std": [0.0]}, "above 0"),
        ({"source": "digits", "trian": 5}, "Extra inputs"),
        ({"source": "digit"}, "'digits'"),
        ({"source": "parquet", "validation": 9}, "Field required"),
        ({"source": "torchvision", "name": "CIFAR10"}, "Field required"),
        ({"source": "torchvision", "name": "CIFAR101", "validation": 9}, "did you mean 'CIFAR10"),
        ({"source": "image_folder", "path": "x", "validation": 9}, "Field required"),
    ],
)
def test_specs_that_are_refused(spec: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as error:
        SPEC.validate_python(spec)
    assert says in str(error.value)


def test_images_of_one_channel_stand_in_the_standard_layout() -> None:
    """Strides that torch could take for channels_last lead some CPUs' convolutions to write past their buffers."""
    data = read(source="digits", train=90, validation=60, test=30)
    splits = (data.train, data.validation, data.test)
    assert [split.x.stride() for split in splits] == [(64, 64, 8, 1)] * 3
