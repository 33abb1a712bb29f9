"""The studies of a suite: one per pair and row, in this process or spread over machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import optuna
import torch

from bench import data as datasets
from bench import environment as env
from bench.jobs import claims
from bench.jobs import run as runs
from bench.jobs.cohort_job import CohortJob, PairContext
from bench.jobs.progress import Progress
from bench.jobs.run_writer import Follower
from bench.suite.spec import MethodSpec
from bench.suite.suite import Suite
from bench.tune import search, storage
from bench.tune.study import Do, Study, Tuned, recipe_of
from bench.tune.trials import Batch, Result


class Spread(Protocol):
    """What brings work to other machines; the studies go on side by side in this process, and share those."""

    def call(self, task: Any) -> Any: ...

    def studies(self, acts: Sequence[Callable[[], Tuned]]) -> list[Tuned]: ...


def tune(
    suite: Suite,
    results: Path,
    *,
    device: torch.device,
    progress: Progress,
    follower: Follower | None = None,
    url: str | None = None,
    name: str = "",
    spread: Spread | None = None,
    group_size: int = 0,
) -> list[Tuned]:
    """Run every row's study up to the suite's number of trials. Those that were told are kept; test stays closed.

    url: of Optuna's database, where it is not results/optuna.db; name: of new studies beside those that exist; spread:
    what brings batches to other machines, else they train in this process; group_size: trials on the device at a
    time (0: a whole batch).
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    suite = runs.resolved(suite, device)
    suite = suite.model_copy(update={"protocol": suite.protocol.model_copy(update={"test_every_epoch": False})})
    database = storage.connect(url, results)
    data = datasets.load(suite.data, "cpu" if spread else device, test=False)
    fitting: dict[str, list[MethodSpec]] = {}
    for pair in suite.pairs:
        unfit = runs.check(suite, pair, data)
        fitting[pair.name] = [spec for spec in suite.methods if spec.title not in unfit]
        for spec in fitting[pair.name]:
            recipe_of(suite, pair.name, spec)
    tunable = {spec.title: knobs for spec in suite.methods if (knobs := suite.tune.narrowed(spec.method))}
    if tunable and suite.tune.sampler == "grid":
        search.check_grid(suite.tune, tunable)
    runs.end_orphaned_runs(results / suite.name, follower)
    out: list[Tuned] = []
    for pair in suite.pairs:
        if spread:
            narrow = {"pairs": [pair], "seeds": suite.seeds[:1]}
            spread.call(CohortJob(suite.model_copy(update=narrow), results))  # its teacher
        get = partial(PairContext.of, suite, pair, data, results, env.environment(device), progress, follower)
        context = claims.run_when_free(get, progress.say)
        do: Do = spread.call if spread else partial(_here, context)
        rows = [spec for spec in fitting[pair.name] if suite.tune.narrowed(spec.method)]
        studies = [Study(context, spec, results, name, do, group_size) for spec in rows]
        acts = [partial(study.run, database) for study in studies]
        out += spread.studies(acts) if spread else claims.run_each_when_free(acts, progress.say)
        for spec in fitting[pair.name]:
            if not suite.tune.narrowed(spec.method):
                progress.say(f"{spec.title} has nothing to tune")
    return out


def _here(context: PairContext, batch: Batch) -> dict[int, Result]:
    return batch.run(context)
