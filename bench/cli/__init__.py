"""The command line. Every import that costs time stands inside the command that needs it."""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import Annotated, NoReturn

import typer

from bench import __version__
from bench.cli import measuring, reading, stores, training  # noqa: F401  # their commands join the application
from bench.cli.common import app
from bench.jobs import stop

STOPPED_MESSAGE = "stopped; the same command goes on where it was"
TIME_IS_UP_MESSAGE = "its time is up (--minutes); the same command goes on where it was"
EX_TEMPFAIL = 75  # sysexits.h: try again
ClickException = typer.BadParameter.__mro__[2]  # of the click that this typer uses, its own or the package


@app.callback(invoke_without_command=True)
def _(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say the version.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"kdbench {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> NoReturn:
    """Run the command line: what a person can mend is one line and exit code 2."""
    stop.raise_on_sigterm()
    try:
        code = app(standalone_mode=False, prog_name="kdbench")
    except stop.Interrupted as stopped:
        if stopped.number == stop.TIME_IS_UP:
            _exit(TIME_IS_UP_MESSAGE, EX_TEMPFAIL)
        _exit(STOPPED_MESSAGE, 128 + stopped.number)
    except (typer.Abort, KeyboardInterrupt):
        _exit(STOPPED_MESSAGE, 130)
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:
        if isinstance(error, ClickException):
            _exit(error.format_message() + "; see --help", 2)  # type: ignore[attr-defined]
        if _is_user_error(error):
            _exit(str(error), 2)
        if reason := _disk_error(error):
            _exit(f"{reason}; what is finished is safe, and the same command goes on once it can write again", 2)
        raise
    if code == 130:  # what typer makes of Ctrl-C
        _exit(STOPPED_MESSAGE, 130)
    raise SystemExit(code if isinstance(code, int) else 0)


def _is_user_error(error: Exception) -> bool:
    """Is it an error that a person can mend, by whichever room raised it?"""
    homes = {
        "bench.errors": "UserError",
        "methods.base": "Refusal",
        "tracking.record": "RecordError",
        "tracking.location": "TrackingError",
    }
    return any(isinstance(error, getattr(sys.modules[m], name)) for m, name in homes.items() if m in sys.modules)


def _disk_error(error: BaseException | None) -> str:
    """Which file could not be written, and why, if that is what lies behind an error; a database says it in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return f"{error.filename or 'the results folder'}: {error.strerror}"
        if found := re.search(r"disk is full|disk I/O error|readonly database|No space left on device", str(error)):
            return f"a file in the results folder cannot be written ({found[0]})"
        error = error.__cause__ or error.__context__
    return ""


def _exit(text: str, code: int) -> NoReturn:
    print(f"kdbench: {' '.join(text.split())}", file=sys.stderr)
    raise SystemExit(code)
