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
from bench.jobs import claims, pool
from bench.jobs import run as runs
from bench.jobs.cohort_job import CohortJob, PairContext
from bench.jobs.progress import Progress
from bench.jobs.run_writer import RecordMirror
from bench.suite.spec import MethodSpec
from bench.suite.suite import Suite
from bench.tune import search, storage
from bench.tune.study import RunBatch, Study, TuningResult, recipe_of
from bench.tune.trials import TrialBatch, TrialResult


class RemoteExecutor(Protocol):
    """What brings work to other machines; the studies go on side by side in this process, and share those."""

    def run_task(self, task: Any) -> Any: ...

    def run_studies(self, acts: Sequence[Callable[[], TuningResult]]) -> list[TuningResult]: ...


def tune(
    suite: Suite,
    results: Path,
    *,
    device: torch.device,
    progress: Progress,
    mirror: RecordMirror | None = None,
    url: str | None = None,
    name: str = "",
    remote: RemoteExecutor | None = None,
    workers: int | None = 1,
    group_size: int = 0,
) -> list[TuningResult]:
    """Run every row's study up to the suite's number of trials. Those that were told are kept; test stays closed.

    url: of Optuna's database, where it is not results/optuna.db; name: of new studies beside those that exist; remote:
    what brings batches to other machines, else they train on this one; workers: in as many processes (1: this one;
    None: as many as it has cores for); group_size: trials on the device at a time (0: a whole batch).
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    suite = runs.resolve_suite(suite, device)
    suite = suite.model_copy(update={"protocol": suite.protocol.model_copy(update={"test_every_epoch": False})})
    database = storage.connect(url, results)
    data = datasets.load(suite.data, "cpu" if remote else device, test=False)
    fitting: dict[str, list[MethodSpec]] = {}
    for pair in suite.pairs:
        unfit = runs.check_pair(suite, pair, data)
        fitting[pair.name] = [spec for spec in suite.methods if spec.title not in unfit]
        for spec in fitting[pair.name]:
            recipe_of(suite, pair.networks, spec)
    tunable = {spec.title: knobs for spec in suite.methods if (knobs := suite.tune.search_space(spec.method))}
    if tunable and suite.tune.sampler == "grid":
        search.check_grid(suite.tune, tunable)
    runs.end_orphaned_runs(results / suite.name, mirror)
    results_of_studies: list[TuningResult] = []
    tuned = {pair: [spec for spec in specs if spec.title in tunable] for pair, specs in fitting.items()}
    n_studies = 0 if remote else max(map(len, tuned.values()))
    with pool.open_pool(workers, suite, data, n_studies, suite.tune.batch, progress, mirror) as local_pool:
        executor = remote or local_pool
        for pair in suite.pairs:
            if remote:
                narrow = {"pairs": [pair], "seeds": suite.seeds[:1]}
                remote.run_task(CohortJob(suite.model_copy(update=narrow), results))  # its teacher
            make_context = partial(PairContext.of, suite, pair, data, results, env.describe(device), progress, mirror)
            context = claims.run_when_free(make_context, progress.log)
            run_batch: RunBatch = executor.run_task if executor else partial(_run_here, context)
            studies = [Study(context, spec, results, name, run_batch, group_size) for spec in tuned[pair.name]]
            tasks = [partial(study.run, database) for study in studies]
            results_of_studies += (
                executor.run_studies(tasks) if executor else claims.run_each_when_free(tasks, progress.log)
            )
            for spec in fitting[pair.name]:
                if spec.title not in tunable:
                    progress.log(f"{spec.title} has nothing to tune")
    return results_of_studies


def _run_here(context: PairContext, batch: TrialBatch) -> dict[int, TrialResult]:
    return batch.run(context)
