"""Work in this process, one piece after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.data import Data
from bench.jobs import claims
from bench.jobs.keep import Follower
from bench.jobs.progress import Progress
from bench.jobs.work import Cell, Done, Ground


class Local:
    """A single use, on data that is loaded already."""

    def __init__(
        self, data: Data, results: Path, environment: dict[str, Any], progress: Progress, follower: Follower | None
    ) -> None:
        self.data, self.rest = data, (results, environment, progress, follower)
        self.progress = progress
        self._ground: Ground | None = None  # of the pair in work: one teacher at a time

    def each(self, cells: Iterable[Cell]) -> Iterator[Done]:
        """Do them all. Those that another process does are left for the end, and waited for."""
        return claims.in_turn([partial(self._do, cell) for cell in cells], self.progress.say)

    def _do(self, cell: Cell) -> Done:
        return cell.run(self.ground(cell))

    def ground(self, cell: Cell) -> Ground:
        if self._ground is None or self._ground.pair != cell.pair:
            self._ground = None  # its memory goes before another teacher's comes
            self._ground = Ground.of(cell.suite, cell.pair, self.data, *self.rest)
        return self._ground
