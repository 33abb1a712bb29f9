"""A results folder that was moved or copied: MLflow's SQLite file names its artifacts by absolute paths."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit


def artifact_folder(home: Path, experiment: str) -> Path:
    """Where an experiment's artifacts lie: beside the SQLite file, whose folder is `home`."""
    return home / "artifacts" / experiment.replace("/", "-")


def update_artifact_paths(file: Path) -> None:
    """Have a store's experiments and runs name the artifacts that lie beside it, where these came along with the file.

    MLflow keeps writing to the old folder, made anew, and has no call that changes it: so this is SQL. Call it under
    the file's lock. A place that is not of our making is left as it is.
    """
    with closing(sqlite3.connect(file, timeout=60)) as connection, connection:
        known = connection.execute("SELECT experiment_id, name, artifact_location FROM experiments").fetchall()
        for number, name, old in known:
            here = artifact_folder(file.parent, name)
            if old != (new := here.as_uri()) and _moved_with_file(old or "", here):
                connection.execute(
                    "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?)"
                    " WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                    (new, len(old) + 1, number, len(old) + 1, f"{old}/"),
                )
                connection.execute(
                    "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, number)
                )


def _moved_with_file(old: str, here: Path) -> bool:
    """Is the old place one beside another SQLite file, and are the artifacts here now, or nowhere?"""
    parts = urlsplit(old)
    there = Path(unquote(parts.path))
    ours = parts.scheme == "file" and there.parts[-2:] == here.parts[-2:]
    return ours and (here.is_dir() or not there.is_dir())
