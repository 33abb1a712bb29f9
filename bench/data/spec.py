"""What a suite says about its data: where the images come from, how they are split, cropped and normalised."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from bench.errors import unknown

TORCHVISION = ("CIFAR10", "CIFAR100", "FashionMNIST")


def _positive(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value < 1:
        raise ValueError(f"a number of images is at least 1, got {value}")
    return value


Count = Annotated[int, Field(strict=True), BeforeValidator(_positive)]
"""A number of images, at least one."""


class Common(BaseModel):
    """What every source takes. Subsets are stratified, and a smaller one lies within a larger one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    validation: Count | None = None  # images of the source's own validation split, else carved from train; None: all
    train: Count | None = None  # images of what then remains of train; None: all
    test: Count | None = None  # images of the test split; None: all
    split_seed: int = 0
    flip: bool = True  # may the views mirror an image?
    pad: int = Field(4, ge=0, le=256)  # zeros around an image before it is cropped at random, in pixels
    strong: bool = True  # do the strong view's operations (colour, geometry, a grey square) leave the class as it is?
    size: int | None = Field(
        None, ge=1, le=2048
    )  # images are scaled and centre-cropped to size × size; None: as they are
    mean: tuple[float, ...] | None = None  # per channel, of pixels in 0..1; None: known, or computed from train
    std: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _normalisation_is_whole(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both or neither")
        if self.std is not None and min(self.std, default=0) <= 0:
            raise ValueError(f"std holds numbers above 0, one per channel, got {list(self.std)}")
        return self


class DigitsSpec(Common):
    """scikit-learn's handwritten digits: 1,797 grey images of 8 × 8. Test is what train and validation leave."""

    source: Literal["digits"]
    validation: Count = 300  # type: ignore[assignment]
    train: Count = 300  # type: ignore[assignment]  # no official split: all of the rest would leave no test
    flip: bool = False
    pad: int = Field(1, ge=0, le=256)


class ParquetSpec(Common):
    """Shards in the Hugging Face layout of image classification: `train-*.parquet` and `test-*.parquet`, and, where
    the set has a validation split, `validation-*.parquet` (or `val`, `valid`)."""

    source: Literal["parquet"]
    path: str  # a folder or a glob of shards; $VARIABLES and ~ are expanded
    label: str | None = None  # None: `label`, else `fine_label`, else the only column of class labels


class TorchvisionSpec(Common):
    """A data set of torchvision."""

    source: Literal["torchvision"]
    validation: Count  # type: ignore[assignment]  # they have none of their own
    name: str
    root: str = "data"
    download: bool = False

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in TORCHVISION:
            raise unknown("torchvision data set", name, TORCHVISION)
        return name


class ImageFolderSpec(Common):
    """Folders `train/<class>/*`, `test/<class>/*` and, for a validation split of its own, `val/<class>/*` (or `valid`,
    `validation`) of image files; without `test`, that is the test split."""

    source: Literal["image_folder"]
    path: str
    size: int = Field(ge=1, le=2048)  # type: ignore[assignment]  # files differ in size, a batch does not


DataSpec = Annotated[DigitsSpec | ParquetSpec | TorchvisionSpec | ImageFolderSpec, Field(discriminator="source")]
