"""One Optuna study per (suite, pair, row). Trials are asked in batches, trained as one cohort, told together.

A batch of k trials costs one teacher forward and k students. What is on disk decides what comes next: Optuna's database
holds the trials that were told, in order, and each trial's folder its checkpoint and record. So whatever is killed at
whatever moment, the same command finishes the batch that was under way and goes on to the same suggestions; no trial
is ever left running in the database, and none that ended is trained again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage

import bench
import methods
from bench.errors import UserError
from bench.jobs import claims, tuned
from bench.jobs.cohort_job import PairContext
from bench.suite.protocol import digest
from bench.suite.spec import MethodSpec
from bench.suite.suite import Suite
from bench.tune import pruning, select, storage
from bench.tune.search import Search, directions, distribution, grid
from bench.tune.study_record import StudyRecord
from bench.tune.trials import STEP, TrialBatch, TrialResult, result_of_trial, trial_of_result
from methods.base import Value


@dataclass(frozen=True)
class TuningResult:
    """What came of a study."""

    pair: str
    method: str
    values: dict[str, Value]  # the chosen ones; none where no trial finished
    budget: dict[str, int]  # trials, pruned, failed, student_steps
    file: Path
    failure: str = ""


RunBatch = Callable[[TrialBatch], dict[int, TrialResult]]


def recipe_of(suite: Suite, pair: str, spec: MethodSpec) -> dict[str, Value]:
    """The values of trial 0. Raises `UserError` where the suite's ranges leave them out."""
    if spec.tuned:
        raise UserError(f"{spec.title}: a tuned row is not tuned again; leave it out with --methods")
    values = spec.values(pair)
    for key, knob in suite.tune.search_space(spec.method).items():
        try:
            knob.check(values[key])
        except ValueError:
            raise UserError(
                f"tune.space.{spec.method}.{key} ({knob}) leaves out {values[key]}, the value of the recipe, which is"
                f" trial 0; widen it, or set {key} in the suite's row"
            ) from None
    return values


def slug(name: str) -> str:
    """A name as one folder: 'resnet14->resnet8/kd' as 'resnet14--resnet8_kd'."""
    return re.sub(r"[^\w.()+=,-]+", "_", name.replace("->", "--"))


class Study:
    """A single use: `Study(...).run(database)`."""

    def __init__(
        self, context: PairContext, spec: MethodSpec, results: Path, name: str, run_batch: RunBatch, group_size: int
    ) -> None:
        suite, pair = context.suite, context.pair
        self.results, self.run_batch, self.group_size = results, run_batch, group_size
        self.context, self.spec, self.tune_spec = context, spec, suite.tune
        self.name = "/".join(filter(None, (suite.name, pair.name, spec.title, name)))
        self.folder = results / suite.name / "tuning" / slug(self.name.partition("/")[2])
        self.file = tuned.tuned_file(results, suite.name, pair, spec.title)
        self.recipe, self.knobs = recipe_of(suite, pair.networks, spec), self.tune_spec.search_space(spec.method)
        self.seed, *self.confirmation_seeds = select.unused_seeds(suite.seeds)
        shares = [methods.get(row.method).fully_active_from(row.values(pair.networks)) for row in suite.methods]
        self.judged_from = (
            max(shares) if self.tune_spec.pruner != "none" else 0.0
        )  # the latest of all: so budgets are equal

    def run(self, database: RDBStorage) -> TuningResult:
        """Raises `claims.ClaimHeld` where another process runs it. An outage of the database cannot hurt what a kill
        cannot: the study is taken up again."""
        path = claims.claim_file(self.folder.parent.parent, f"tuning {self.folder.name}")
        with claims.claim(path, f"study {self.name}", [self.folder]):
            return storage.retry_through_outage(database, lambda: self._run(database), self.context.progress.log)

    def _run(self, database: RDBStorage) -> TuningResult:
        study = storage.load_study(database, self.name, directions(self.tune_spec), self.made_for())
        search = Search(self.tune_spec, self.knobs, self.recipe, self.name)
        record = StudyRecord(self.folder, self.record_spec(), self.context)
        while len(reported_trials := study.get_trials(deepcopy=False)) < search.size:
            self._train_batch(database, study, search.next(reported_trials))
            record.write_trials(study.get_trials(deepcopy=False))
        results = {trial.number: result_of_trial(trial) for trial in reported_trials}
        budget = _budget(results)
        if not select.ranked(results):
            failure = f"no trial finished: {results[0].reason}"
            record.fail(reported_trials, failure, budget)
            return TuningResult(self.context.pair.name, self.spec.title, {}, budget, self.file, failure)
        chosen = self._choose_trial(results, {trial.number: trial.params for trial in reported_trials})
        content = self._tuned_content(chosen, results, reported_trials[chosen.trial].params, budget)
        tuned.write_tuned(self.file, content)
        storage.mark_chosen(study, chosen.trial)
        record.close(study, content)
        return TuningResult(self.context.pair.name, self.spec.title, content["values"], budget, self.file)

    def _train_batch(self, database: RDBStorage, study: optuna.Study, batch: Mapping[int, dict[str, Any]]) -> None:
        """Train a batch, or what is left of it, and tell it in the order of its numbers, each number once whoever
        else works on this study."""
        rungs = pruning.rungs(
            self.tune_spec, self.context.suite.protocol.epochs, self.judged_from, min(batch) // self.tune_spec.batch
        )
        results = self._train(batch, self.seed, "search", rungs)
        space = {key: distribution(knob) for key, knob in self.knobs.items()}
        for number in sorted(batch):
            trial = trial_of_result(results[number], batch[number], space, len(self.tune_spec.objective))
            with storage.study_lock(database, self.name):
                if number == len(study.get_trials(deepcopy=False)):
                    study.add_trial(trial)

    def _train(
        self, settings: Mapping[int, Mapping[str, Any]], seed: int, stage: str, rungs: Sequence[int] = ()
    ) -> dict[int, TrialResult]:
        extra = {"kind": "trial", "stage": stage, "study": self.name, "study_fingerprint": self.fingerprint}
        title = f"{self.context.pair.name} {self.spec.title} "
        title += f"trials {min(settings)}-{max(settings)}" if stage == "search" else f"confirmed with seed {seed}"
        context, settings = self.context, {number: dict(values) for number, values in settings.items()}
        arguments = (context.suite, context.pair, self.results, self.spec, settings, self.folder, extra, title)
        return self.run_batch(TrialBatch(*arguments, seed, tuple(rungs), self.group_size))

    def _choose_trial(
        self, results: Mapping[int, TrialResult], params: Mapping[int, dict[str, Any]]
    ) -> select.ChosenTrial:
        def retrain(trials: Sequence[int], seed: int) -> dict[int, TrialResult]:
            return self._train({number: params[number] for number in trials}, seed, "confirm")

        return select.RULES[self.tune_spec.rule](results, retrain, self.confirmation_seeds)

    def made_for(self) -> dict[str, Any]:
        """All that a trial of this study depends on; one that differs in it is another study."""
        context, plan = self.context, self.tune_spec
        return {
            **tuned.tuning_conditions(context.suite, self.spec, context.data_description, context.teacher.fingerprint),
            "recipe": self.recipe,
            "space": {key: str(knob) for key, knob in self.knobs.items()},
            **{key: getattr(plan, key) for key in ("batch", "sampler", "pruner", "objective")},
            **({"cost": STEP} if "cost" in plan.objective else {}),  # earlier studies were told another quantity
            "points": 1 + len(grid(plan, self.knobs, self.recipe)) if plan.sampler == "grid" else 0,  # with the recipe
            "judged from": self.judged_from,
            "search seed": plan.seed,
            "training seed": self.seed,
        }

    @property
    def fingerprint(self) -> str:
        return digest({"study": self.name, **self.made_for()})

    def record_spec(self) -> dict[str, Any]:
        """The header of the study's record."""
        context, made_for = self.context, self.made_for()
        tune_options = {
            key: getattr(self.tune_spec, key) for key in ("sampler", "pruner", "objective", "batch", "rule", "seed")
        }
        return {
            "kind": "study",
            "study": self.name,
            "study_fingerprint": self.fingerprint,
            "suite": context.suite.name,
            "dataset": context.data.name,
            "pair": context.pair.name,
            "teacher": context.pair.teacher,
            "student": context.pair.student,
            "method": self.spec.method,
            "label": self.spec.title,
            "recipe": self.spec.recipe,
            "seed": self.seed,
            "hp": self.recipe,
            "space": made_for["space"],
            "protocol": made_for["protocol"],
            "data": made_for["data"],
            "teacher_fingerprint": made_for["teacher"],
            "tune": tune_options,
        }

    def _tuned_content(
        self,
        chosen: select.ChosenTrial,
        results: Mapping[int, TrialResult],
        params: Mapping[str, Any],
        budget: Mapping[str, int],
    ) -> dict[str, Any]:
        """What the tuned file says."""
        context, environment = self.context, self.context.environment
        confirmation = {
            "seeds": list(chosen.seeds),
            "validation_top1": dict(chosen.means),
            "student_steps": chosen.student_steps,
        }
        return {
            "method": self.spec.method,
            "values": self.spec.model_copy(update={"set": {**self.spec.set, **params}}).values(context.pair.networks),
            "validation_top1": results[chosen.trial].top1,
            "recipe_validation_top1": results[0].top1 if results[0].status == "finished" else None,
            "study": self.name,
            "trial": chosen.trial,
            "rule": chosen.rule,
            "budget": dict(budget),
            **({"confirmation": confirmation} if chosen.seeds else {}),
            "made_for": tuned.tuning_conditions(
                context.suite, self.spec, context.data_description, context.teacher.fingerprint
            ),
            "versions": {
                "optuna": optuna.__version__,
                "torch": environment["torch"],
                "kdbench": bench.__version__,
                "commit": environment["commit"],
                "dirty": environment["dirty"],
            },
        }


def _budget(results: Mapping[int, TrialResult]) -> dict[str, int]:
    kinds = [result.status for result in results.values()]
    return {
        "trials": len(kinds),
        "pruned": kinds.count("pruned"),
        "failed": kinds.count("failed") + kinds.count("diverged"),
        "student_steps": sum(result.student_steps for result in results.values()),
    }
