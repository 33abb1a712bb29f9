from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as tv

from bench.data.augment import FILL, VIEWS, ViewParams, apply_view, cut_out, draw_view, normalise, pixels
from bench.errors import UserError
from bench.seeds import generator

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def images(n: int = 16, channels: int = 3, size: int = 12) -> Tensor:
    return torch.randint(256, (n, channels, size, size), generator=generator("images"), dtype=torch.uint8)


def params(view: str, n: int = 16, size: int = 12, seed: int = 0, *, pad: int = 2, flip: bool = True) -> ViewParams:
    return draw_view(view, n, size, generator(view, seed), pad=pad, flip=flip)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_can_be_replayed_and_images_do_not_touch(view: str, channels: int) -> None:
    x, p = images(64, channels), params(view, 64)
    before = x.clone()
    out = apply_view(x, p, MEAN[:channels], STD[:channels])
    assert out.dtype == torch.float32 and out.shape == x.shape and out.isfinite().all()
    assert torch.equal(out, apply_view(x, p, MEAN[:channels], STD[:channels])) and torch.equal(x, before)
    order = torch.randperm(64, generator=generator(1))
    assert torch.equal(apply_view(x[order], p.take(order), MEAN[:channels], STD[:channels]), out[order])
    assert torch.equal(apply_view(x[:1], p.take(torch.tensor([0])), MEAN[:channels], STD[:channels]), out[:1])


@pytest.mark.parametrize("view", ["weak", "strong"])
def test_a_draw_follows_its_generator(view: str) -> None:
    a, b, c = params(view), params(view), params(view, seed=1)
    x = images()
    assert torch.equal(pixels(x, a), pixels(x, b)) and not torch.equal(pixels(x, a), pixels(x, c))
    with pytest.raises(FrozenInstanceError):
        a.pad = 3  # type: ignore[misc]


def test_plain_is_to_tensor_and_normalize() -> None:
    x = images()
    assert torch.allclose(apply_view(x, params("plain"), MEAN, STD), tv.normalize(x / 255, MEAN, STD), atol=2e-6)
    assert torch.allclose(normalise(x, MEAN, STD), tv.normalize(x / 255, MEAN, STD), atol=2e-6)
    draw_view("plain", 4, 12, None, pad=0, flip=False)


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_weak_is_random_crop_and_flip(pad: int) -> None:
    x, p = images(40), params("weak", 40, pad=pad)
    assert p.top is not None and p.left is not None and p.flip is not None
    rows = zip(x, p.top.tolist(), p.left.tolist(), p.flip.tolist(), strict=True)
    wanted = [tv.crop(tv.pad(image, [pad]), top, left, 12, 12) for image, top, left, _ in rows]
    wanted = [tv.hflip(w) if f else w for w, f in zip(wanted, p.flip.tolist(), strict=True)]
    assert torch.equal(pixels(x, p), torch.stack(wanted))
    assert torch.allclose(apply_view(x, p, MEAN, STD), tv.normalize(torch.stack(wanted) / 255, MEAN, STD), atol=2e-6)


def test_offsets_and_flips_are_uniform() -> None:
    p = params("weak", 9000, 32, pad=4)
    assert p.top is not None and p.left is not None and p.flip is not None
    cells = (p.top * 9 + p.left).bincount(minlength=81)
    assert len(cells) == 81
    assert ((cells - 9000 / 81) ** 2 / (9000 / 81)).sum() < 130  # chi-squared with 80 degrees of freedom: p < 0.0004
    assert abs(p.flip.float().mean() - 0.5) < 0.02
    still = params("weak", 100, flip=False)
    assert still.flip is not None and not still.flip.any()


def test_flips_do_not_move_crops() -> None:
    """Whether images may be mirrored does not move the crops."""
    a, b = params("weak", flip=True), params("weak", flip=False)
    assert a.top is not None and b.top is not None and torch.equal(a.top, b.top)


def test_cut_out() -> None:
    x = images(200, size=32)
    p = params("strong", 200, 32)
    assert p.box is not None
    top, bottom, left, right = p.box.unbind(1)
    assert (bottom - top).max() <= 17 and (bottom - top).min() >= 0 and p.box.min() >= 0 and p.box.max() <= 32
    sides = torch.maximum(bottom - top, right - left).float()
    assert 6.5 < sides.mean() < 8.5  # half of 16, a little less at the border
    out = cut_out(x, p.box)
    for i in range(20):
        inside = torch.zeros(32, 32, dtype=torch.bool)
        inside[top[i] : bottom[i], left[i] : right[i]] = True
        assert torch.equal(out[i][:, ~inside], x[i][:, ~inside])
        assert (out[i][:, inside] == torch.tensor(FILL, dtype=torch.uint8)[:, None]).all()
    grey = cut_out(images(1, 1), torch.tensor([[0, 12, 0, 12]]))
    assert (grey == 121).all()


def test_strong_starts_with_a_crop_of_its_own() -> None:
    x, p = images(), params("strong")
    from bench.data import strong

    nothing = [op.__name__ for op, _, _ in strong.OPS].index("identity")
    assert p.op is not None and p.box is not None
    bare = replace(p, op=torch.full_like(p.op, nothing), box=torch.zeros_like(p.box))
    assert torch.equal(pixels(x, bare), pixels(x, replace(p, view="weak", op=None, magnitude=None, box=None)))


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_read_back_from_the_device(view: str) -> None:
    assert apply_view(images().to("meta"), params(view), MEAN, STD).shape == (16, 3, 12, 12)


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="no view 'week'; did you mean 'weak'"):
        params("week")
    with pytest.raises(ValueError, match="uint8"):
        apply_view(images().float(), params("weak"), MEAN, STD)
    with pytest.raises(ValueError, match="needs a generator"):
        draw_view("weak", 4, 8, None, pad=1, flip=False)
