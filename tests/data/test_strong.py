from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from bench.data import strong
from bench.seeds import generator

SIZE = 17
NAMES = [op.__name__ for op, _, _ in strong.OPS]
OPS = {op.__name__: op for op, _, _ in strong.OPS}
RANGE = {op.__name__: (low, high) for op, low, high in strong.OPS}


def pictures() -> Tensor:
    """Noise, a narrow range, few levels, smooth, constant, black. [6, 3, 17, 17] uint8."""
    g = generator("pictures")
    noise = torch.randint(256, (3, SIZE, SIZE), generator=g)
    ramp = torch.arange(SIZE).view(1, 1, -1) * 9 + torch.arange(3).view(3, 1, 1) * 20
    smooth = ramp.expand(3, SIZE, SIZE)
    kinds = [noise, noise // 4 + 90, noise // 64 * 60, smooth, torch.full_like(noise, 77), torch.zeros_like(noise)]
    return torch.stack(kinds).to(torch.uint8)


def shear(x: float = 0, y: float = 0) -> Callable[[Tensor], Tensor]:
    angles = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    return lambda image: tv.affine(image, 0.0, [0, 0], 1.0, angles, InterpolationMode.NEAREST, center=[0.0, 0.0])


def shift(x: float = 0, y: float = 0) -> Callable[[Tensor], Tensor]:
    by = [-int(x * SIZE), -int(y * SIZE)]
    return lambda image: tv.affine(image, 0.0, by, 1.0, [0.0, 0.0], InterpolationMode.NEAREST)


def reference(name: str, m: float) -> Callable[[Tensor], Tensor]:
    return {
        "autocontrast": lambda i: tv.autocontrast(i),
        "brightness": lambda i: tv.adjust_brightness(i, m),
        "color": lambda i: tv.adjust_saturation(i, m),
        "contrast": lambda i: tv.adjust_contrast(i, m),
        "equalize": lambda i: tv.equalize(i),
        "identity": lambda i: i,
        "posterize": lambda i: tv.posterize(i, int(m)),
        "rotate": lambda i: tv.rotate(i, m, InterpolationMode.NEAREST),
        "sharpness": lambda i: tv.adjust_sharpness(i, m),
        "shear_x": shear(x=m),
        "shear_y": shear(y=m),
        "solarize": lambda i: tv.solarize(i, m),
        "translate_x": shift(x=m),
        "translate_y": shift(y=m),
    }[name]


def pil_reference(name: str, m: float) -> Callable[[Image.Image], Image.Image]:
    def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
        return lambda i: i.transform(i.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)

    return {
        "autocontrast": lambda i: ImageOps.autocontrast(i),
        "brightness": lambda i: ImageEnhance.Brightness(i).enhance(m),
        "color": lambda i: ImageEnhance.Color(i).enhance(m),
        "contrast": lambda i: ImageEnhance.Contrast(i).enhance(m),
        "equalize": lambda i: ImageOps.equalize(i),
        "identity": lambda i: i,
        "posterize": lambda i: ImageOps.posterize(i, int(m)),
        "rotate": lambda i: i.rotate(m, Image.Resampling.NEAREST),
        "sharpness": lambda i: ImageEnhance.Sharpness(i).enhance(m),
        "shear_x": affine(1, m, 0, 0, 1, 0),
        "shear_y": affine(1, 0, 0, m, 1, 0),
        "solarize": lambda i: ImageOps.solarize(i, math.ceil(m)),
        "translate_x": affine(1, 0, int(m * SIZE), 0, 1, 0),
        "translate_y": affine(1, 0, 0, 0, 1, int(m * SIZE)),
    }[name]


GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def close(name: str, got: Tensor, wanted: Tensor) -> None:
    """Rounding may move a level by one, and of geometry a pixel on the border between two."""
    gap = (got.int() - wanted.int()).abs()
    if name in GEOMETRY:
        assert (gap > 0).float().mean() < 0.01
    else:
        assert gap.max() <= 1


def shares(name: str) -> list[float]:
    low, high = RANGE[name]
    return [low + s * (high - low) for s in (0.03, 0.21, 0.5, 0.77, 0.98)] if high > low else [0.0]


@pytest.mark.parametrize("name", NAMES)
def test_ops_are_torchvisions(name: str) -> None:
    x = pictures()
    for m in shares(name):
        got = OPS[name](x, torch.full((len(x),), m))
        assert got.dtype == torch.uint8
        close(name, got, torch.stack([reference(name, m)(image) for image in x]))


@pytest.mark.parametrize("name", NAMES)
def test_ops_are_pils(name: str) -> None:
    x = pictures()
    for m in shares(name):
        got = OPS[name](x, torch.full((len(x),), m))
        pils = [pil_reference(name, m)(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in x]
        close(name, got, torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in pils]))


@pytest.mark.parametrize("name", NAMES)
def test_each_image_has_its_own_magnitude(name: str) -> None:
    x = pictures()[:1].expand(7, -1, -1, -1)
    low, high = RANGE[name]
    m = torch.linspace(low, high, 7)
    got = OPS[name](x, m)
    assert torch.equal(got, torch.cat([OPS[name](x[i : i + 1], m[i : i + 1]) for i in range(7)]))
    if high > low:
        assert not torch.equal(got[0], got[-1])


@pytest.mark.parametrize("name", NAMES)
def test_grey_images(name: str) -> None:
    x = pictures()[:, :1]
    low, high = RANGE[name]
    got = OPS[name](x, torch.full((len(x),), (low + high) / 2))
    assert got.shape == x.shape and got.dtype == torch.uint8
    if name == "color":
        assert torch.equal(got, x)


def test_transform_gives_each_image_its_own_op() -> None:
    x = pictures()[torch.arange(42) % 6]
    op = torch.randint(len(NAMES), (42,), generator=generator(0))
    m = strong.magnitudes(op, torch.rand(42, generator=generator(1)))
    got = strong.transform(x, op, m)
    for i in range(42):
        assert torch.equal(got[i : i + 1], strong.OPS[int(op[i])][0](x[i : i + 1], m[i : i + 1]))
    assert strong.transform(x[:0], op[:0], m[:0]).shape == (0, 3, SIZE, SIZE)


def test_magnitudes_fill_their_ranges() -> None:
    assert len(strong.OPS) == len(set(NAMES)) == 14
    op = torch.arange(14).repeat(3000, 1)
    m = strong.magnitudes(op, torch.rand(3000, 14, generator=generator(2)))
    for i, (_, low, high) in enumerate(strong.OPS):
        assert m[:, i].min() >= low and m[:, i].max() <= high
        assert m[:, i].mean() == pytest.approx((low + high) / 2, abs=max(0.03 * (high - low), 1e-6))
    bits = m[:, NAMES.index("posterize")].floor().clamp(max=8).long().bincount()
    assert bits.tolist()[:4] == [0] * 4 and len(bits) == 9 and bits[4:].min() > 500


def test_nothing_is_read_back_from_the_device() -> None:
    """On the meta device there is nothing to read, so an op that looks at pixels on the host raises."""
    op = torch.arange(14)
    m = strong.magnitudes(op, torch.rand(14, generator=generator(3)))
    assert (
        strong.transform(torch.empty(14, 3, SIZE, SIZE, dtype=torch.uint8, device="meta"), op, m).device.type == "meta"
    )


def test_tiny_images_survive() -> None:
    x = pictures()[..., :2, :2]
    for name in NAMES:
        assert OPS[name](x, torch.full((6,), sum(RANGE[name]) / 2)).shape == x.shape
