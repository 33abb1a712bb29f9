"""Networks by name: those of the CIFAR literature and their families, and adapted torchvision and timm classifiers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from bench.errors import UserError, unknown
from bench.models import adapters, hugging_face, mobilenet, own, resnet, shufflenet, vgg, wrn
from bench.models.base import Network
from bench.models.check import check_classifier
from bench.models.teaching import ExpectedInput

FAMILIES = (resnet, wrn, vgg, mobilenet, shufflenet)


def names() -> tuple[str, ...]:
    """The networks that public CIFAR checkpoints exist for."""
    return tuple(name for family in FAMILIES for name in family.NAMES)


def register_plugin(file: str) -> bool:
    """As `own.register_plugin`; a file of networks must not be called like one that comes with the project."""
    if (stem := Path(file).stem) in names() and own.register_plugin(file):
        raise UserError(f"--plugin {file}: a network '{stem}' exists already; rename the file")
    return own.register_plugin(file)


def is_known_without_data(name: str) -> bool:
    """Can the network be built at any size? Libraries' and one's own may depend on the images'."""
    return not name.startswith(("torchvision/", "timm/")) and not own.is_own(name)


def build(
    name: str, *, in_channels: int = 3, size: int = 32, n_classes: int = 100, pretrained: bool = False
) -> Network:
    """A network with fresh weights, drawn from torch's global generator and nothing else.

    `name`: one of `names()`, `resnet{6n+2}`, `resnet{6n+2}x{k}`, `resnet{6n+2}w{a}`, `wrn_{6n+4}_{k}`,
    `torchvision/<name>`, `timm/<name>`, `hf/<repository or folder>`, or one of one's own (`own`): path/to/file.py:Name,
    a name of a plug-in or of an entry point. `pretrained` goes to the libraries' three.
    """
    for what, value in (("in_channels", in_channels), ("size", size), ("n_classes", n_classes)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{what} of network '{name}' is {value!r}; it takes a whole number from 1")
    if name.startswith(("torchvision/", "timm/")):
        return adapters.adapt(name, in_channels, size, n_classes, pretrained)
    if own.is_own(name):
        net = own.make(name, in_channels, size, n_classes, pretrained)
        check_classifier(name, net, in_channels, size, n_classes)
        network = adapters.adapted(name, net, in_channels, size, n_classes, own.stages(name, net))
        network.prefix = "net.model." if isinstance(net, hugging_face.Logits) else network.prefix
        return network
    for family in FAMILIES:
        if net := family.make(name, in_channels, size, n_classes):
            if pretrained:
                raise UserError(f"'{name}' has no packaged weights; load a checkpoint, or take torchvision/ or timm/")
            return net
    raise unknown("network", name, names())


@cache
def takes_colours_alone(name: str, size: int, n_classes: int) -> bool:
    """Does a network of one's own take images of three channels, and no grey ones?"""
    if name.startswith("hf/") or not own.is_own(name):
        return False
    with torch.random.fork_rng(devices=[]):
        takes_grey, takes_colours = (
            adapters.takes(own.make(name, n, size, n_classes, pretrained=False), n, size) for n in (1, 3)
        )
    return takes_colours and not takes_grey


def packaged(name: str) -> tuple[ExpectedInput, int]:
    """What images the packaged weights of a `torchvision/`, `timm/` or `hf/` network expect, and how many classes they
    know."""
    if name.startswith(("torchvision/", "timm/")):
        return adapters.packaged(name)
    if name.startswith("hf/"):
        return hugging_face.packaged(name)
    raise UserError(f"'{name}' has no packaged weights; load a checkpoint, or take torchvision/ or timm/")
