"""Files of a report, each whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.errors import UserError

SUFFIXES = ("png", "pdf")  # of a figure


def of_figures(names: Iterable[str]) -> list[str]:
    """The files of figures, by their paths in a report's folder."""
    return [f"figures/{name}.{suffix}" for name in names for suffix in SUFFIXES]


def put(where: Path, files: Mapping[str, bytes], stale: Iterable[str]) -> None:
    """Write all files under other names first, then rename them: a reader sees each old or new, never in between.

    stale: what an earlier call may have left; it is removed where it is not among `files`.
    """
    partials = {name: where / f"{name}.{os.getpid()}.partial" for name in files}
    try:
        (where / "figures").mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            partials[name].write_bytes(content)
        for name, partial in partials.items():
            partial.replace(where / name)
        for name in stale:
            if name not in files:
                (where / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the report into {where}: {error.strerror}") from None
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
