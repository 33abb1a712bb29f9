"""The random numbers of one member, apart from everybody else's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bench.seeds import seed


class MemberRNG:
    """A member's own random numbers, by counter: those of a step follow from its epoch and number alone, so that any
    step can be the first one after a resume."""

    def __init__(self, device: torch.device, *parts: object) -> None:
        self._parts = parts
        self.generator = torch.Generator(device).manual_seed(seed(*parts, "explicit"))  # what a method draws from
        self._default = (
            torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[device.index or 0]
        )

    @contextmanager
    def use(self, epoch: int, step: int) -> Iterator[None]:
        """Inside, both `generator` and torch's own (dropout) give the numbers of that step; torch's is put back."""
        before = self._default.get_state()
        self.generator.manual_seed(seed(*self._parts, "explicit", epoch, step))
        self._default.manual_seed(seed(*self._parts, "default", epoch, step))
        try:
            yield
        finally:
            self._default.set_state(before)
