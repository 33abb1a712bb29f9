"""Image classifiers of Hugging Face: `hf/<repository>` or `hf/<folder>`."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bench.errors import UserError, short_message
from bench.models.teaching import ExpectedInput


class Logits(nn.Module):
    """A Hugging Face classifier as a module from images to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(pixel_values=x).logits  # type: ignore[no-any-return]

    def stored(self, path: Path) -> dict[str, Tensor]:
        """The weights in a folder that the library wrote, under the names that it gives them in memory: other ones."""
        folder = path if path.is_dir() else path.parent
        try:
            return type(self.model).from_pretrained(folder, local_files_only=True).state_dict()  # type: ignore[attr-defined, no-any-return]
        except Exception:  # no such folder, or another network's: what the file itself holds says more
            return {}


def _transformers(name: str) -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise UserError(f"'{name}' needs transformers; pip install kdbench[hf]") from None


@cache
def config_of(name: str) -> Any:
    """The configuration that a repository or folder holds. Raises `UserError`."""
    library, where = _transformers(name), name.removeprefix("hf/")
    try:
        return library.AutoConfig.from_pretrained(where)  # no code of the repository's is run
    except Exception as error:  # the library raises what its download, cache and readers do
        raise UserError(
            f"'{name}': {short_message(error)}; it takes hf/<repository> or hf/<folder>, with a config.json"
        ) from None


def packaged(name: str) -> tuple[ExpectedInput, int]:
    """What the weights of a `hf/` network expect, and how many classes they know."""
    library, where, config = _transformers(name), name.removeprefix("hf/"), config_of(name)
    try:
        how = library.AutoImageProcessor.from_pretrained(where)
        size = how.crop_size or how.size if getattr(how, "do_center_crop", False) else how.size
        pixels = size.get("height") or size["shortest_edge"]
        return ExpectedInput(tuple(how.image_mean), tuple(how.image_std), int(pixels)), int(config.num_labels)
    except Exception as error:  # the library raises what its download, cache and readers do
        raise UserError(
            f"'{name}' does not say which images it expects ({short_message(error)}); write teacher_input: {{mean:"
            " [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], size: 224}"
        ) from None


def make(name: str, in_channels: int, size: int, n_classes: int, pretrained: bool) -> nn.Module:
    """The classifier for this data, with fresh or packaged weights. Raises `UserError`."""
    kind, where = _transformers(name).AutoModelForImageClassification, name.removeprefix("hf/")
    config = type(config_of(name)).from_dict(config_of(name).to_dict())
    asked = {"num_labels": n_classes, "num_channels": in_channels, "image_size": size}
    for key, value in asked.items():
        if hasattr(config, key):
            setattr(config, key, value)
    try:
        if pretrained:
            return Logits(kind.from_pretrained(where, config=config, ignore_mismatched_sizes=True))
        return Logits(kind.from_config(config))
    except Exception as error:
        raise UserError(f"'{name}' cannot be made: {short_message(error)}") from None
