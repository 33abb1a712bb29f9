"""Files of a report, each whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from bench.errors import UserError

SUFFIXES = ("png", "pdf")  # of a figure


def put(where: Path, files: dict[str, bytes], stale: list[str]) -> None:
    """Write all files under other names first, then rename them: a reader sees each old or new, never in between."""
    partials = {name: where / f"{name}.{os.getpid()}.partial" for name in files}
    try:
        (where / "figures").mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            partials[name].write_bytes(content)
        for name, partial in partials.items():
            partial.replace(where / name)
        for name in stale:
            (where / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the report into {where}: {error.strerror}") from None
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
