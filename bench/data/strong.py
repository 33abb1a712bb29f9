"""The fourteen operations of the strong view (FixMatch, arXiv 2001.07685, table 12), each for a whole batch.

Every operation takes x [B, C, H, W] uint8 and m [B] float32, one magnitude per image, and returns uint8. Geometry
takes the nearest pixel and fills with zeros, as PIL does. On images that are not RGB, Color changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Op = Callable[[Tensor, Tensor], Tensor]


def identity(x: Tensor, m: Tensor) -> Tensor:
    return x


def autocontrast(x: Tensor, m: Tensor) -> Tensor:
    """Each channel stretched to 0..255; a constant channel as it is."""
    low, high = x.amin((2, 3), keepdim=True).float(), x.amax((2, 3), keepdim=True).float()
    flat = low == high
    low, width = low.masked_fill(flat, 0), (high - low).masked_fill(flat, 255)
    return _bytes((x - low) * 255 / width)


def equalize(x: Tensor, m: Tensor) -> Tensor:
    """Each channel's histogram made flat, by PIL's rule: levels share the pixels left of the brightest."""
    flat = x.flatten(2).long()
    histogram = torch.zeros(*flat.shape[:2], 256, dtype=torch.int64, device=x.device)
    histogram.scatter_add_(2, flat, torch.ones_like(flat))
    below = histogram.cumsum(2) - histogram
    step = torch.div(flat.shape[2] - histogram.gather(2, flat.amax(2, keepdim=True)), 255, rounding_mode="floor")
    table = torch.div(below + step // 2, step.clamp(min=1), rounding_mode="floor").clamp(max=255)
    return torch.where(step > 0, table.gather(2, flat), flat).to(torch.uint8).view_as(x)


def posterize(x: Tensor, m: Tensor) -> Tensor:
    """m: bits kept, rounded down, at most 8."""
    step = torch.pow(2, 8 - m.floor().clamp(0, 8)).to(torch.int32).view(-1, 1, 1, 1)
    return (x // step * step).to(torch.uint8)


def solarize(x: Tensor, m: Tensor) -> Tensor:
    """m: the level from which pixels are inverted."""
    return torch.where(x >= m.view(-1, 1, 1, 1), 255 - x, x)


def brightness(x: Tensor, m: Tensor) -> Tensor:
    """m: 0 is black, 1 the image; likewise below."""
    return _blend(torch.zeros((), device=x.device), x, m)


def color(x: Tensor, m: Tensor) -> Tensor:
    return _blend(_luminance(x), x, m) if x.shape[1] == 3 else x


def contrast(x: Tensor, m: Tensor) -> Tensor:
    return _blend(_luminance(x).mean((1, 2, 3), keepdim=True), x, m)


def sharpness(x: Tensor, m: Tensor) -> Tensor:
    """Between a blurred image (3 × 3, the centre weighing 5 of 13) and the image; the border is not blurred."""
    channels, blurred = x.shape[1], x.float()
    if min(x.shape[2:]) > 2:
        kernel = torch.full((3, 3), 1 / 13, device=x.device)
        kernel[1, 1] = 5 / 13
        inner = F.conv2d(blurred, kernel.expand(channels, 1, 3, 3), groups=channels).round()
        blurred[:, :, 1:-1, 1:-1] = inner
    return _blend(blurred, x, m)


def rotate(x: Tensor, m: Tensor) -> Tensor:
    """m: degrees, counter-clockwise about the centre."""
    cos, sin = torch.cos(m * (math.pi / 180)), torch.sin(m * (math.pi / 180))
    cy, cx = x.shape[2] / 2, x.shape[3] / 2
    return _warp(x, (cos, -sin, cx - cos * cx + sin * cy), (sin, cos, cy - sin * cx - cos * cy))


def shear_x(x: Tensor, m: Tensor) -> Tensor:
    """m: columns by which the content moves left per row."""
    return _warp(x, (1, m, 0), (0, 1, 0))


def shear_y(x: Tensor, m: Tensor) -> Tensor:
    return _warp(x, (1, 0, 0), (m, 1, 0))


def translate_x(x: Tensor, m: Tensor) -> Tensor:
    """m: share of the width by which the content moves left, in whole pixels."""
    return _warp(x, (1, 0, (m * x.shape[3]).trunc()), (0, 1, 0))


def translate_y(x: Tensor, m: Tensor) -> Tensor:
    return _warp(x, (1, 0, 0), (0, 1, (m * x.shape[2]).trunc()))


OPS: tuple[tuple[Op, float, float], ...] = (  # with the range of its magnitude
    (autocontrast, 0, 0),
    (brightness, 0.05, 0.95),
    (color, 0.05, 0.95),
    (contrast, 0.05, 0.95),
    (equalize, 0, 0),
    (identity, 0, 0),
    (posterize, 4, 9),  # 4, 5, 6, 7 or 8 bits
    (rotate, -30, 30),
    (sharpness, 0.05, 0.95),
    (shear_x, -0.3, 0.3),
    (shear_y, -0.3, 0.3),
    (solarize, 0, 256),
    (translate_x, -0.3, 0.3),
    (translate_y, -0.3, 0.3),
)


def magnitudes(op: Tensor, share: Tensor) -> Tensor:
    """The magnitude at a share in [0, 1) of each op's range. op: int64, places in OPS; share: float32, same shape."""
    low, high = torch.tensor([[low, high] for _, low, high in OPS]).unbind(1)
    return low[op] + share * (high - low)[op]


def transform(x: Tensor, op: Tensor, magnitude: Tensor) -> Tensor:
    """Each image changed by its own op. op: [B] int64, magnitude: [B] float32, on the CPU: no wait for the device."""
    order = op.argsort(stable=True)
    counts = torch.bincount(op, minlength=len(OPS)).tolist()
    place, m = order.to(x.device, non_blocking=True), magnitude[order].to(x.device, non_blocking=True)
    groups = zip(OPS, x.index_select(0, place).split(counts), m.split(counts), strict=True)
    changed = [function(part, strength) for (function, _, _), part, strength in groups if len(part)]
    back = order.argsort().to(x.device, non_blocking=True)
    return torch.cat(changed).index_select(0, back) if changed else x


def _bytes(x: Tensor) -> Tensor:
    return x.clamp(0, 255).to(torch.uint8)


def _blend(other: Tensor, x: Tensor, m: Tensor) -> Tensor:
    """other + m · (x − other), rounded down as PIL does."""
    return _bytes(other + m.view(-1, 1, 1, 1) * (x.float() - other))


def _luminance(x: Tensor) -> Tensor:
    """[B, 1, H, W] float32, whole numbers."""
    if x.shape[1] != 3:
        return x.float().mean(1, keepdim=True)
    red, green, blue = x.float().split(1, dim=1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor()


Row = tuple[Tensor | float, Tensor | float, Tensor | float]


def _warp(x: Tensor, across: Row, down: Row) -> Tensor:
    """Nearest pixel at (a·x + b·y + c) for both coordinates, which run from pixel centres; zero outside.

    across, down: (a, b, c), each a number or [B]; where in the input the pixel of the output at column x, row y lies.
    """
    height, width = x.shape[2:]
    ys = torch.arange(height, device=x.device).view(1, -1, 1) + 0.5
    xs = torch.arange(width, device=x.device).view(1, 1, -1) + 0.5

    def at(row: Row) -> Tensor:
        a, b, c = (v.view(-1, 1, 1) if isinstance(v, Tensor) else v for v in row)
        return (a * xs + b * ys + c).floor().long().expand(len(x), height, width)

    column, line = at(across), at(down)
    inside = (column >= 0) & (column < width) & (line >= 0) & (line < height)
    index = (line.clamp(0, height - 1) * width + column.clamp(0, width - 1)).flatten(1)
    picked = x.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    return picked * inside[:, None]  # uint8 · bool
