"""Networks by name: the 23 of the CIFAR literature, their families, and adapted torchvision and timm classifiers."""

from bench.models.base import Network
from bench.models.files import files
from bench.models.state import load_state, state_hash
from bench.models.zoo import build, names

__all__ = ["Network", "build", "files", "load_state", "names", "state_hash"]
