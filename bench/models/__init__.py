"""Networks by name: the 23 of the CIFAR literature, their families, and adapted torchvision and timm classifiers."""

from bench.models.base import IMAGENET, Network
from bench.models.files import files
from bench.models.own import NETWORKS, version
from bench.models.state import is_coloured, load_state, state_hash, take_classes
from bench.models.zoo import build, is_known_without_data, names, packaged, register_plugin, takes_colours_alone

__all__ = [
    "IMAGENET",
    "NETWORKS",
    "Network",
    "build",
    "files",
    "is_coloured",
    "is_known_without_data",
    "load_state",
    "names",
    "packaged",
    "register_plugin",
    "state_hash",
    "take_classes",
    "takes_colours_alone",
    "version",
]
