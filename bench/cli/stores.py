"""Commands that move results: sync, export, ui."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.common import (
    Results,
    app,
    console,
)

if TYPE_CHECKING:
    pass


@app.command()
def sync(results: Results = None, suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None) -> None:
    """Deliver to MLflow what it does not hold yet. Doing it twice changes nothing."""
    from bench.suite import results_folder
    from tracking import location, mirror

    folder = results_folder(results)
    delivered, already, failed = mirror.sync(folder, location.default_uri(folder), suite)
    console.print(f"{delivered} runs delivered, {already} were there already, {len(failed)} failed", highlight=False)
    for record, reason in failed:
        console.print(f"  {record.folder.name}: {reason}", highlight=False, markup=False)
    if failed:
        raise SystemExit(1)


@app.command()
def export(
    fingerprint: Annotated[str, typer.Argument(help="A run's fingerprint, or its beginning.")],
    to: Annotated[Path, typer.Argument(help="File to write: .safetensors or .pth")],
    results: Results = None,
) -> None:
    """Take a distilled student home: its weights under the network's own names."""
    from bench import student

    arch = student.export(Path(results or os.environ.get("KDBENCH_RESULTS") or "results"), fingerprint, to)
    console.print(f"{to}: {arch}; load it with bench.student.load('{to}')", highlight=False)


@app.command()
def ui(results: Results = None, port: Annotated[int, typer.Option(min=1, max=65535)] = 5000) -> None:
    """Open MLflow's side-by-side comparison on 127.0.0.1."""
    from bench.suite import results_folder
    from tracking import location, store

    folder = results_folder(results)
    uri = location.check(location.default_uri(folder))
    if (file := location.sqlite_file(uri)) is None:
        console.print(f"the runs are on {location.mask(uri)}: open it in a browser", highlight=False)
        return
    location.prepare()
    store.initialise(file)
    base = f"http://127.0.0.1:{port}"
    for name, number in store.Store(uri, folder).experiments().items():
        console.print(f"{name}: {store.ui_link(base, number)}", highlight=False, soft_wrap=True)
    console.print("[dim]Ctrl-C ends the server[/dim]")
    sys.stdout.flush()
    server = ["server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execve(
        sys.executable,
        [sys.executable, "-m", "mlflow", *server],
        {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
