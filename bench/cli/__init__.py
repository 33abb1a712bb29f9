"""The command line. Every import that costs time stands inside the command that needs it."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from bench.cli import measuring, reading, stores, training  # noqa: F401  # their commands join the application
from bench.cli.common import app

ClickException = typer.BadParameter.__mro__[2]  # of the click that this typer uses, its own or the package


@app.callback(invoke_without_command=True)
def _(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> NoReturn:
    """Run the command line: what a person can mend is one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        _stop("stopped; the same command goes on where it was", 130)
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:
        if isinstance(error, ClickException):
            _stop(error.format_message() + "; see --help", 2)  # type: ignore[attr-defined]
        if not _of_user(error):
            raise
        _stop(str(error), 2)
    raise SystemExit(code if isinstance(code, int) else 0)


def _of_user(error: Exception) -> bool:
    """Is it an error that a person can mend, by whichever room raised it?"""
    homes = {
        "bench.errors": "UserError",
        "methods.base": "Refusal",
        "tracking.record": "RecordError",
        "tracking.location": "TrackingError",
    }
    return any(isinstance(error, getattr(sys.modules[m], name)) for m, name in homes.items() if m in sys.modules)


def _stop(text: str, code: int) -> NoReturn:
    print(f"kdbench: {' '.join(text.split())}", file=sys.stderr)
    raise SystemExit(code)
