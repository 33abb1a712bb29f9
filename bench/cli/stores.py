"""Commands that move results: sync, import, export, ui."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.common import Results, app, console, results_path

if TYPE_CHECKING:
    from tracking.ui import Links


@app.command()
def sync(results: Results = None, suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None) -> None:
    """Deliver to MLflow what it does not hold yet. Doing it twice changes nothing."""
    from bench.suite.suite import results_folder
    from tracking import location, mirror

    folder = results_folder(results)
    delivered, unchanged, failed = mirror.sync(folder, location.default_uri(folder), suite)
    console.print(
        f"{delivered} records delivered, {unchanged} were there already, {len(failed)} failed", highlight=False
    )
    _print_reasons([(record.folder.name, reason) for record, reason in failed])


def _print_reasons(failed: list[tuple[str, str]]) -> None:
    for name, reason in failed:
        console.print(f"  {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
    if failed:
        raise SystemExit(1)


@app.command("import")
def bring(
    folder: Annotated[
        Path, typer.Argument(help="A results folder of another machine, or what tools/gpu_job.py left to carry home.")
    ],
    results: Results = None,
) -> None:
    """Take in what another machine finished; runs that are here already stay as they are."""
    from bench.suite.suite import results_folder
    from tracking.bring_in import bring_in

    done = bring_in(folder, results_folder(results))
    counts = f"{len(done.taken)} runs taken, {len(done.unchanged)} were here already, {len(done.refused)} refused"
    console.print(f"{counts}; next: kdbench sync, kdbench report {' or '.join(done.suites)}", highlight=False)
    _print_reasons(done.refused)


@app.command()
def export(
    fingerprint: Annotated[str, typer.Argument(help="A run's fingerprint, or its beginning.")],
    to: Annotated[Path, typer.Argument(help="File to write: .safetensors or .pth")],
    results: Results = None,
    suite: Annotated[str | None, typer.Option(help="Whose run, where several suites hold it.")] = None,
) -> None:
    """Take a distilled student home: its weights under the names that its own library gives them."""
    from bench.models import student

    arch = student.export(results_path(results), fingerprint, to, suite)
    line = f"{to}: {arch}; load it with bench.models.student.load('{to}')"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def ui(
    results: Results = None,
    suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the links and open no browser.")] = False,
) -> None:
    """Open MLflow's side-by-side comparison on 127.0.0.1."""
    from tracking import location, store
    from tracking import ui as uis

    folder = results_path(results)
    runs = store.open_existing(location.default_uri(folder), folder)
    if runs.uri.startswith(location.SERVERS):  # it has a UI of its own
        _show_links(uis.links(runs, runs.uri, suite), no_open)
        return
    uis.free_port(port)
    base = f"http://127.0.0.1:{port}"
    _ = runs.client  # which makes an older file ready before the server opens it
    with suppress(KeyboardInterrupt), uis.serve_mlflow(runs.uri, port, folder) as server:
        links = uis.links(runs, base, suite)
        uis.wait_for(port, server)
        _show_links(links, no_open)
        console.print("[dim]Ctrl-C ends the server[/dim]")
        sys.stdout.flush()
        server.process.wait()


def _show_links(links: list[Links], no_open: bool) -> None:
    from tracking import ui as uis
    from tracking.views import PAGE

    for row in links:
        name = f"{row.suite}, {row.pair}" if row.pair else row.suite
        console.print(
            f"[bold]{name}[/bold]" + (f": {row.runs} runs of {len(row.methods)} methods" if row.runs else ""),
            highlight=False,
            soft_wrap=True,
        )
        shown = {"charts, means over seeds": row.charts, "table of runs": row.table}
        shown |= {"one seed of every method": row.compare}
        for what, link in (shown | {"report": row.report, "tuning": row.tuning}).items():
            if link:
                console.print(f"  {what:<24}  {link}", highlight=False, markup=False, soft_wrap=True)
        if row.runs > PAGE:
            console.print(f"  [yellow]MLflow loads {PAGE} runs: press 'Load more' for means over all seeds[/yellow]")
    if not no_open:
        uis.open_browser(links[0].charts)
