"""One Optuna study per (suite, pair, method). Trials are asked in batches, trained as one cohort, told together.

A batch of k trials costs one teacher forward and k students, and what Optuna suggests does not depend on which trial
ends first. The sampler is seeded anew for every batch by what has been told so far, and a batch is noted in the study
once it has been asked whole, so that a study which was killed at any moment goes on to the suggestions of one which
was not: a batch that was noted is finished as it stands, one that was not is asked again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial, TrialState

import bench
import methods
from bench import data as datasets
from bench import environment as env
from bench import run as runs
from bench import teacher as teachers
from bench.cohort import Cohort
from bench.data import Data
from bench.errors import UserError
from bench.progress import Progress
from bench.protocol import digest
from bench.seeds import seed
from bench.suite import MethodSpec, Pair, Run, Suite
from bench.teacher import Teacher
from methods.base import Choice, Dims, Float, Int, Knob, Value

METRIC = "validation/top1"  # of the last epoch, as the headline is
RECIPE = "recipe"  # marks the trial of the paper's recipe, whatever number it has after a kill
BATCH = "batch asked"  # of the study: how many were told before its latest whole batch, and that batch's settings


@dataclass
class Tuned:
    """The best trial of a study beside the recipe, which is its trial 0."""

    pair: str
    method: str
    values: dict[str, Value]
    top1: float
    recipe_top1: float | None
    trials: int
    failed: int
    seconds: float  # of this call
    file: Path


def tune(
    suite: Suite,
    results: Path,
    *,
    trials: int,
    batch: int,
    device: torch.device,
    progress: Progress,
    search_seed: int = 0,
) -> list[Tuned]:
    """Run every method's study up to `trials` finished trials; finished ones are kept, the test split stays closed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    suite = runs.resolved(suite, device)
    suite = suite.model_copy(update={"protocol": suite.protocol.model_copy(update={"test_every_epoch": False})})
    data = datasets.load(suite.data, device)
    data.forbid_test()
    storage = f"sqlite:///{results.absolute() / 'optuna.db'}"
    out = []
    for pair in suite.pairs:
        runs.check(suite, pair, data)
        described, made = runs.describe(data), env.environment(device)
        teacher = teachers.obtain(
            pair, data, described, suite.teacher_protocol(), suite.teacher.seed, results, made, progress
        )
        shapes = runs.dims(pair, data, suite.protocol.batch_size, teacher.network)
        for spec in suite.methods:
            if space := space_of(methods.get(spec.method).space):
                start = time.monotonic()
                study = _study(storage, suite, pair, spec, space, described, teacher, batch, search_seed)
                _run(study, suite, pair, spec, space, data, shapes, teacher, trials, batch, search_seed, progress)
                out.append(_write(study, suite, pair, spec, results, made, time.monotonic() - start))
            else:
                progress.console.print(f"{spec.title} has nothing to tune", highlight=False)
    return out


def space_of(space: Mapping[str, Knob]) -> dict[str, BaseDistribution]:
    """The knobs that a study turns, as Optuna's distributions."""
    return {name: _distribution(knob) for name, knob in space.items() if knob.tune}


def _distribution(knob: Knob) -> BaseDistribution:
    if isinstance(knob, Float):
        return FloatDistribution(knob.low, knob.high, log=knob.log)
    if isinstance(knob, Int):
        return IntDistribution(knob.low, knob.high, log=knob.log)
    assert isinstance(knob, Choice)  # a Text is never tuned
    return CategoricalDistribution(knob.options)


def _study(
    storage: str,
    suite: Suite,
    pair: Pair,
    spec: MethodSpec,
    space: dict[str, BaseDistribution],
    described: dict[str, Any],
    teacher: Teacher,
    batch: int,
    search_seed: int,
) -> optuna.Study:
    """The study, new or as it was left. Refuses one that was made for something else."""
    name = f"{suite.name}/{pair.name}/{spec.title}"
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
    kind = methods.get(spec.method)
    made_for = {
        "protocol": digest(suite.protocol.model_dump()),
        "data": digest(described),
        "teacher": teacher.fingerprint,
        "method version": kind.version,
        "recipe": digest(kind.resolve(pair.name, spec.recipe, spec.set)),
        "space": digest({key: str(value) for key, value in space.items()}),
        "batch": batch,
        "seed": search_seed,
        "training seed": suite.seeds[0],
    }
    before = study.user_attrs.get("made_for")
    if before is None:
        study.set_user_attr("made_for", made_for)
    elif before != made_for:
        other = ", ".join(key for key in made_for if before.get(key) != made_for[key])
        raise UserError(f"study '{name}' was made with another {other}; use another --results, or delete it")
    _reap(study)
    return study


def _reap(study: optuna.Study) -> None:
    """Fail what a killed process left running or waiting; what it had asked is in the noted batch."""
    while study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.ask()  # the only public way to end a waiting trial is to let it run
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def _ask(
    study: optuna.Study, space: dict[str, BaseDistribution], recipe: Mapping[str, Value], k: int, *seeded: object
) -> list[Trial]:
    """The rest of the noted batch where some of it was not told, else a new batch of k, noted."""
    told = len(_told(study))
    noted = study.user_attrs.get(BATCH, {"told": 0, "trials": []})
    if rest := noted["trials"][told - noted["told"] :]:
        for settings in rest:
            study.enqueue_trial(settings["params"], user_attrs={RECIPE: settings[RECIPE]})
        return [study.ask(space) for _ in rest]
    study.sampler = optuna.samplers.TPESampler(seed=seed("tune", *seeded, told) % 2**32)
    if not told:
        study.enqueue_trial({key: recipe[key] for key in space}, user_attrs={RECIPE: True})
    asked = [study.ask(space) for _ in range(k)]
    batch = [{"params": t.params, RECIPE: t.user_attrs.get(RECIPE, False)} for t in asked]
    study.set_user_attr(BATCH, {"told": told, "trials": batch})
    return asked


def _run(
    study: optuna.Study,
    suite: Suite,
    pair: Pair,
    spec: MethodSpec,
    space: dict[str, BaseDistribution],
    data: Data,
    shapes: Dims,
    teacher: Teacher,
    trials: int,
    batch: int,
    search_seed: int,
    progress: Progress,
) -> None:
    recipe = methods.get(spec.method).resolve(pair.name, spec.recipe, spec.set)
    while (told := len(_told(study))) < trials:
        asked = _ask(study, space, recipe, min(batch, trials - told), study.study_name, search_seed)
        cohort = _cohort(suite, pair, spec, asked, data, shapes, teacher)
        with progress.cohort(f"{pair.name} {spec.title} trials {told + 1}-{told + len(asked)}", cohort) as watch:
            cohort.train(watch.epoch, watch.step)
        teacher.verify()
        for trial, member in zip(asked, cohort.members, strict=True):
            if member.status == "running":
                row = member.history[-1]["metrics"]
                trial.set_user_attr("nll", row["validation/nll"])
                study.tell(trial, row[METRIC])
            else:
                trial.set_user_attr("ended", f"{member.status}: {member.reason}")
                study.tell(trial, state=TrialState.FAIL)


def _told(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that have trained to an end: finished, or failed for a reason of their own."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state == TrialState.COMPLETE or "ended" in trial.user_attrs
    ]


def _cohort(
    suite: Suite, pair: Pair, spec: MethodSpec, asked: list[Trial], data: Data, shapes: Dims, teacher: Teacher
) -> Cohort:
    """The trials as students of seed 0: they differ in their hyper-parameters and in nothing else."""
    described = runs.describe(data)
    members = []
    for trial in asked:
        settings = spec.model_copy(update={"label": f"trial-{trial.number}", "set": {**spec.set, **trial.params}})
        run = Run.of(suite, pair, settings, suite.seeds[0], described, teacher.fingerprint)
        members.append(runs.member_of(run, data, shapes))
    return Cohort(data, suite.protocol, teacher.network, members, suite.seeds[0])


def _write(
    study: optuna.Study,
    suite: Suite,
    pair: Pair,
    spec: MethodSpec,
    results: Path,
    made: Mapping[str, Any],
    seconds: float,
) -> Tuned:
    """The best finished trial (NLL breaks ties) as YAML under results/tuned."""
    told = _told(study)
    done = [trial for trial in told if trial.state == TrialState.COMPLETE]
    if not done:
        raise UserError(f"no trial of {spec.title} on {pair.name} finished ({told[0].user_attrs['ended']})")
    best = max(done, key=lambda t: (t.value or 0.0, -t.user_attrs["nll"]))
    values = methods.get(spec.method).resolve(pair.name, spec.recipe, {**spec.set, **best.params})
    recipe = next((trial.value for trial in done if trial.user_attrs.get(RECIPE)), None)
    file = results / "tuned" / suite.name / pair.name.replace("->", "__").replace("/", "_") / f"{spec.title}.yaml"
    content = {
        "method": spec.method,
        "values": values,
        "validation_top1": best.value,
        "recipe_validation_top1": recipe,
        "study": study.study_name,
        "trial": best.number,
        "rule": "best_trial",
        "budget": {"trials": len(told), "failed": len(told) - len(done), "epochs": suite.protocol.epochs},
        "made_for": study.user_attrs["made_for"],
        "versions": {
            "optuna": optuna.__version__,
            "torch": str(torch.__version__),
            "kdbench": bench.__version__,
            "commit": made["commit"],
            "dirty": made["dirty"],
        },
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(yaml.safe_dump(content, sort_keys=False))
    partial.replace(file)
    failed = len(told) - len(done)
    return Tuned(pair.name, spec.title, values, best.value or 0.0, recipe, len(told), failed, seconds, file)
