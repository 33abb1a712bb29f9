"""Image files to one uint8 array."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from bench.errors import UserError
from bench.memory import physical_memory_bytes

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # no format that runs a program
GREY_MODES = ("1", "L", "LA")
CHUNK = 256  # images a thread takes at once: one at a time costs more than it decodes
DEEP_MODES = ("I", "F")  # and I;16, I;16B …

Item = tuple[str, Callable[[], bytes]]
"""Where an image comes from, in words, and its bytes."""

ImageShape = tuple[int, int]
"""Channels and size that further images must have to stand beside earlier ones."""


def decode(items: Sequence[Item], size: int | None, shape: ImageShape | None = None) -> np.ndarray:
    """[N, C, H, W] uint8. Without `size` the images must be equal squares. One channel if all are grey, else three."""
    if size is not None:
        check_memory(len(items), 3, size)
    workers = min(16, os.cpu_count() or 1)
    chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    with ThreadPoolExecutor(workers) as pool:
        pictures = [p for part in pool.map(lambda chunk: [_decode(item, size) for item in chunk], chunks) for p in part]
    height, width = (shape[1], shape[1]) if shape else pictures[0].shape[:2]
    if height != width:
        raise UserError(f"{items[0][0]}: the image is {width}×{height}, not square; set `size: {min(width, height)}`")
    channels = shape[0] if shape else max(1 if p.ndim == 2 else 3 for p in pictures)
    out = np.empty((len(items), channels, height, width), np.uint8)
    for i, (picture, (where, _)) in enumerate(zip(pictures, items, strict=True)):
        if picture.shape[:2] != (height, width):
            got = f"{picture.shape[1]}×{picture.shape[0]}"
            raise UserError(f"{where}: the image is {got} where others are {width}×{height}; set `size: {height}`")
        out[i] = _with_channels(picture, channels)
    return out


def _decode(item: Item, size: int | None) -> np.ndarray:
    """[H, W] or [H, W, 3] uint8."""
    where, read = item
    try:
        with Image.open(io.BytesIO(read()), formats=FORMATS) as image:
            if image.mode.startswith(DEEP_MODES):
                raise UserError(f"{where}: pixels of mode {image.mode}; store images with 8 bits per channel")
            plain = image.convert("L" if image.mode in GREY_MODES else "RGB")
    except UserError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders run into
        reason = str(error).partition("<")[0].strip() or type(error).__name__
        raise UserError(f"{where}: not a readable image ({reason}); replace or remove it") from None
    return np.asarray(plain if size is None else resize_and_crop(plain, size))


def check_memory(n: int, channels: int, size: int) -> None:
    """Refuse images that this machine's memory cannot hold."""
    if (
        needed := 2 * n * channels * size**2
    ) > physical_memory_bytes():  # bytes: the pictures, and the array they are put into
        raise UserError(
            f"{n} images of {size}×{size} take {needed / 2**30:,.0f} GiB, more than this machine has; set size lower"
        )


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """The image scaled (bilinear, antialiased) so that its shorter side is `size`, then cropped around its centre."""
    short = min(image.size)
    width, height = (size if side == short else int(size * side / short) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def resize_array(x: np.ndarray, size: int | None) -> np.ndarray:
    """[N, C, H, W] uint8 → [N, C, size, size]; unchanged where they have that size or none is asked."""
    if size is None or x.shape[2:] == (size, size):
        return x
    check_memory(x.shape[0], x.shape[1], size)
    pictures = (image[0] if len(image) == 1 else image.transpose(1, 2, 0) for image in x)
    fitted = [np.asarray(resize_and_crop(Image.fromarray(np.ascontiguousarray(p)), size)) for p in pictures]
    return np.stack([_with_channels(p, x.shape[1]) for p in fitted])


def _with_channels(picture: np.ndarray, channels: int) -> np.ndarray:
    """[H, W] or [H, W, 3] → [channels, H, W]; colour becomes grey by luminance, grey becomes three equal channels."""
    if picture.ndim == 2:
        return np.broadcast_to(picture, (channels, *picture.shape))
    if channels == 3:
        return picture.transpose(2, 0, 1)
    return np.asarray(Image.fromarray(picture).convert("L"))[None]
