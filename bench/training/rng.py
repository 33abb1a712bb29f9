"""The random numbers of one member, apart from everybody else's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from bench.seeds import seed


class MemberRNG:
    """A member's own random stream: torch's generators inside the block, put aside outside it."""

    def __init__(self, device: torch.device, *parts: object) -> None:
        self.generator = torch.Generator(device).manual_seed(seed(*parts, "explicit"))
        self._default = (
            torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index or 0]
        )
        self._state = torch.Generator(device).manual_seed(seed(*parts, "default")).get_state()

    @contextmanager
    def use(self) -> Iterator[None]:
        global_state = self._default.get_state()
        self._default.set_state(self._state)
        try:
            yield
        finally:
            self._state = self._default.get_state()
            self._default.set_state(global_state)

    def state_dict(self) -> dict[str, Tensor]:
        return {"explicit": self.generator.get_state(), "default": self._state}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.generator.set_state(state["explicit"])
        self._state = state["default"]
