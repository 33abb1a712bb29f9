"""How many runs per second a store takes: `python -m tests.servers.limits` prints the table of docs/scale.md.

A run is what `cifar100-mini` leaves: 14 epochs of 14 metrics, parameters, tags, inputs, and two files of 400 kB. It is
delivered as the mirror delivers it, by so many writers at once.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.conftest import MlflowServer, Postgres, postgres_bin
from tests.tracking.conftest import environment, rows, spec
from tracking.record import Record
from tracking.store import Store

RUNS = 24  # in all, whoever writes them
WRITERS = (1, 4, 8)


def write(uri: str, folder: Path, writers: int) -> float:
    """Runs per second."""
    records = []
    for seed in range(RUNS):
        record = Record(folder / f"suite{writers}" / "runs" / f"f{seed}")
        record.begin(f"f{seed}", spec(seed, suite="limits"), environment())
        record.write_epochs(rows(14, 14))
        for name in ("student.safetensors", "predictions.npz"):
            (record.folder / name).write_bytes(os.urandom(400_000))
        record.end("finished", "", {"test/top1": 0.5}, ["student.safetensors", "predictions.npz"])
        records.append(record)
    Store(uri, folder).experiment("kd/limits")
    start, children = time.monotonic(), []
    for writer in range(writers):
        if (child := os.fork()) == 0:
            store = Store(uri, folder)
            for record in records[writer::writers]:
                store.deliver(record)
            os._exit(0)
        children.append(child)
    assert not any(os.waitpid(child, 0)[1] for child in children)
    return RUNS / (time.monotonic() - start)


@contextmanager
def stores(folder: Path) -> Iterator[dict[str, str]]:
    """What a laptop has, and what a team has, by name."""
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "60"  # the limit is looked for, not the patience of clients
    programs = postgres_bin()
    assert programs is not None, "PostgreSQL is missing"
    (folder / "postgres").mkdir()
    folder.chmod(0o755)
    cluster = Postgres(programs, folder / "postgres")
    server = MlflowServer(cluster.database("mlflow"), folder)
    yield {"SQLite file": f"sqlite:///{folder}/mlflow.db", "MLflow server, PostgreSQL": server.uri}
    server.stop()
    cluster.stop()


def main() -> None:
    out = sys.stdout.write
    with tempfile.TemporaryDirectory() as name, stores(Path(name)) as known:
        out("| store | " + " | ".join(f"{n} at once" for n in WRITERS) + " |\n")
        for title, uri in known.items():
            folder = Path(name, title.replace(" ", ""))
            folder.mkdir()
            out(f"| {title} | " + " | ".join(f"{write(uri, folder, n):.1f}" for n in WRITERS) + " |\n")


if __name__ == "__main__":
    main()
