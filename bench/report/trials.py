"""The trials of a suite's studies, from their files to frames: what each reached, and what it cost.

Conventions. A study is a row of the suite on one pair. Its trials count in the order of their numbers, k = 1 first. A
trial has reached something where its state is `complete` and its top-1 a finite number; a pruned or failed one costs,
and reaches nothing. Accuracies are in % on the validation split, of the last epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import UserError
from bench.report import stats
from bench.suite import plain
from tracking.lines import Damage
from tracking.record import FILE, Record

TRIALS, TUNED = "trials.csv", "tuned.yaml"
METRIC = "validation/top1"
STATES = ("complete", "pruned", "failed")
TEXTS = ("suite", "pair", "method", "study", "state", "reason")
NUMBERS = ("top1", "nll", "step_ms", "epochs", "student_steps", "seconds")
CONFIRMED = (
    "chosen_trial",
    "recipe_confirmed",
    "chosen_confirmed",
    "confirmed_gain",
    "confirmed_low",
    "confirmed_high",
    "confirmed_n",
    "confirmation_steps",
)
KEYS = ["pair", "method", "trial"]
COLUMNS = ("suite", "pair", "method", "study", "trial", "state", "recipe", *NUMBERS, "reason")


@dataclass(frozen=True)
class Study:
    """What a study's record says of it, and the values that were chosen."""

    pair: str
    method: str  # the row's title, as in `read`
    folder: Path
    space: Mapping[str, str]  # by knob: "0.1 to 20, log"
    recipe: Mapping[str, Any]  # the values of trial 0
    tune: Mapping[str, Any]  # sampler, pruner, objective, batch, rule, seed
    seed: Any  # of training
    status: str  # of the record
    recorded: int  # trials
    environment: Mapping[str, Any]
    chosen: Mapping[str, Any]  # empty where there is no tuned.yaml yet
    trial: int | None = None  # the number of the chosen one
    confirmation: Mapping[str, Any] = field(default_factory=dict)  # of the rule `confirmed`: as in tuned.yaml
    confirmed: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    """Of the trials that were trained again: top-1 (%) by trial and further seed, as far as their records are here."""


def read(results: Path, suite: str) -> pd.DataFrame:
    """Every reported trial of the suite's studies, in order of pair, method, trial; empty where there is none.

    Columns: `COLUMNS`, then hp.<knob>, NaN where a method has no such knob; method is the row's title, or 'title/name'
    where a study has a name of its own. Raises `UserError` for a damaged file.
    """
    paths = sorted((results / suite / "tuning").glob(f"*/{TRIALS}"))
    parts = [part for part in (_trials(path, suite) for path in paths) if len(part)]
    if not parts:
        kinds = {"trial": int, "recipe": bool, **dict.fromkeys(TEXTS, str), **dict.fromkeys(NUMBERS, float)}
        return pd.DataFrame(columns=list(COLUMNS)).astype({name: kinds[name] for name in COLUMNS})
    out = pd.concat(parts, ignore_index=True).sort_values(KEYS, ignore_index=True)
    if (twins := out.duplicated(KEYS)).any():
        pair, method = out.loc[twins, ["pair", "method"]].iloc[0]
        raise UserError(f"two studies of {method} on {pair} in {results / suite / 'tuning'}; move one of them away")
    return out


def _trials(path: Path, suite: str) -> pd.DataFrame:
    """One study's rows with their types. An empty cell alone is no value, since a knob's may be called 'None'."""
    try:
        raw = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXTS, str))
        if missing := [name for name in COLUMNS if name not in raw]:
            raise ValueError(f"no column '{missing[0]}'")
        if unknown := sorted({str(state) for state in raw["state"]} - set(STATES)):
            raise ValueError(f"no state '{unknown[0]}'; there are {', '.join(STATES)}")
        recipe = raw["recipe"].astype(str).map({"True": True, "False": False})
        if recipe.isna().any() or raw[["pair", "method", "study"]].isna().any(axis=None):
            raise ValueError("a row without pair, method, study or recipe")
        trial, numbers = raw["trial"].astype(int), {name: raw[name].astype(float) for name in NUMBERS}
        raw["method"] = [_titled(*row) for row in raw[["suite", "pair", "method", "study"]].itertuples(index=False)]
        Record(path.parent).file(path.name)
        return raw.assign(trial=trial, recipe=recipe.astype(bool), reason=raw["reason"].fillna(""), **numbers)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # so are a wrong checksum and pandas' errors of form and of encoding
        first = str(error).strip().partition("\n")[0]
        again = f"run `kdbench tune {suite}` again to have it written anew"
        raise UserError(f"{path}: not readable as the trials of a study ({first}); {again}") from None


def _titled(suite: str, pair: str, method: str, study: str) -> str:
    """The row's title with the study's own name, which ends its name in Optuna: suite/pair/title/name."""
    _, row, name = study.partition(f"{suite}/{pair}/{method}/")
    return f"{method}/{name}" if row else method


def studies(results: Path, suite: str) -> list[Study]:
    """What the records of the suite's studies say, in order of pair and method."""
    paths = (results / suite / "tuning").glob(f"*/{FILE}")
    return sorted((_study(Record(path.parent)) for path in paths), key=lambda study: (study.pair, study.method))


def _study(record: Record) -> Study:
    spec, path = record.header["spec"], record.folder / TUNED
    if missing := [key for key in ("pair", "label", "space", "hp", "tune") if key not in spec]:
        raise UserError(f"{record.path}: not the record of a study (its spec has no '{missing[0]}')")
    try:
        tuned = dict(plain.load(path.read_text(encoding="utf-8"))) if record.file(TUNED) else {"values": {}}
        chosen, confirmation = dict(tuned["values"]), dict(tuned.get("confirmation") or {})
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{path}: not readable as the values that a study chose; move it away") from None
    return Study(
        pair=str(spec["pair"]),
        method=_titled(*(str(spec.get(key)) for key in ("suite", "pair", "label", "study"))),
        folder=record.folder,
        space=spec["space"],
        recipe=spec["hp"],
        tune=spec["tune"],
        seed=spec.get("seed"),
        status=record.status,
        recorded=len(record.epochs),
        environment=record.environment,
        chosen=chosen,
        trial=tuned.get("trial"),
        confirmation=confirmation,
        confirmed=_confirmed(record.folder) if confirmation else {},
    )


def _confirmed(folder: Path) -> dict[int, dict[int, float]]:
    """Top-1 of the trials that were trained again, from their records."""
    out: dict[int, dict[int, float]] = {}
    for path in sorted(folder.glob(f"trials/*/{FILE}")):
        with suppress(Damage):  # then there is no interval; the next call of `tune` mends it
            record = Record(path.parent)
            spec, end = record.header["spec"], record.final
            if spec.get("stage") == "confirm" and end and METRIC in end["metrics"]:
                out.setdefault(int(spec["trial"]), {})[int(spec["seed"])] = float(end["metrics"][METRIC])
    return out


def best_of_k(trials: pd.DataFrame) -> pd.DataFrame:
    """Pair, method, k, best: validation top-1 (%) of the best of the first k trials, NaN before the first complete."""
    out = _counted(trials)
    groups = out.groupby(["pair", "method"], sort=False)["reached"]
    return out[["pair", "method", "k"]].assign(best=groups.cummax().groupby([out["pair"], out["method"]]).ffill())


def recipes(trials: pd.DataFrame) -> pd.DataFrame:
    """Pair, method, k, top1 (%) of the trial that is the recipe; studies whose recipe reached nothing are left out."""
    out = _counted(trials)
    named = out.loc[out["recipe"].astype(bool) & out["reached"].notna(), ["pair", "method", "k", "reached"]]
    return named.drop_duplicates(["pair", "method"]).rename(columns={"reached": "top1"}).reset_index(drop=True)


def chosen(trials: pd.DataFrame, known: Sequence[Study]) -> pd.DataFrame:
    """Pair, method, k, top1 (%), step_ms of the trial whose values each study chose, as far as it has."""
    numbers = {(study.pair, study.method): study.trial for study in known}
    out = _counted(trials)
    its = [numbers.get((pair, method)) == trial for pair, method, trial in out[KEYS].itertuples(index=False)]
    return out.loc[its, ["pair", "method", "k", "top1", "step_ms"]].reset_index(drop=True)


def budget(trials: pd.DataFrame, known: Sequence[Study] = ()) -> pd.DataFrame:
    """One row per pair and method, best first within a pair: what its study cost, and reached beside the recipe.

    Columns: pair, method, trials (reported), pruned, failed, student_steps, seconds, recipe and best (top-1, %), gain
    (points), space (as text, of the studies `known`), and of `known` whose rule trained trials again: chosen_trial,
    mean top-1 of the recipe and of the chosen trial over the further seeds (NaN where the recipe was not trained
    again), confirmed_gain (points) with its single 95 % t interval (NaN where no record has the values by seed) and its
    number of seeds, and the student-steps of it.
    """
    out = _counted(trials)
    stats.needs(out, ("student_steps", "seconds"))
    spaces = {(s.pair, s.method): "; ".join(f"{knob}: {text}" for knob, text in s.space.items()) for s in known}
    out = out.assign(of_recipe=out["reached"].where(out["recipe"].astype(bool)))
    out = out.assign(**{state: out["state"] == state for state in ("pruned", "failed")})
    sums = {name: (name, "sum") for name in ("pruned", "failed", "student_steps", "seconds")}
    groups = out.groupby(["pair", "method"], sort=False, as_index=False)
    rows = groups.agg(trials=("k", "size"), **sums, recipe=("of_recipe", "max"), best=("reached", "max"))
    space = [spaces.get(key, "") for key in zip(rows["pair"], rows["method"], strict=True)]
    rows = rows.assign(gain=rows["best"] - rows["recipe"], space=space)
    confirmed = {(study.pair, study.method): _of_confirmation(study) for study in known}
    more = [confirmed.get(key, {}) for key in zip(rows["pair"], rows["method"], strict=True)]
    rows = rows.join(pd.DataFrame(more, index=rows.index, columns=list(CONFIRMED)).astype(float))
    rows = rows.sort_values(["best", "method"], ascending=[False, True])
    return rows.sort_values("pair", key=_place(out["pair"]), kind="stable", ignore_index=True)


def _of_confirmation(study: Study) -> dict[str, float]:
    """`CONFIRMED` of a study, as far as it is known."""
    if study.trial is None:
        return {}
    out: dict[str, float] = {"chosen_trial": study.trial}
    means = {int(trial): float(top1) for trial, top1 in (study.confirmation.get("validation_top1") or {}).items()}
    recipe, chosen = means.get(0, np.nan), means.get(study.trial, np.nan)
    out |= {"recipe_confirmed": recipe, "chosen_confirmed": chosen, "confirmed_gain": chosen - recipe}
    out |= {"confirmed_n": len(study.confirmation.get("seeds") or ())}
    out |= {"confirmation_steps": study.confirmation.get("student_steps", np.nan)}
    before, now = study.confirmed.get(0, {}), study.confirmed.get(study.trial, {})
    if study.trial and len(shared := sorted(before.keys() & now.keys())) > 1:
        m = stats.moments(np.array([now[seed] - before[seed] for seed in shared]))
        out |= {"confirmed_low": m["mean"] - m["half"], "confirmed_high": m["mean"] + m["half"]}
    return out


def pareto(trials: pd.DataFrame) -> pd.DataFrame:
    """Pair, method, trial, recipe, top1 (%), step_ms, front: the complete trials whose step time is known.

    On the front of its pair stands a trial that no other beats: no less accurate and no slower, and better in one of
    the two. Trials that are equal in both stand there together.
    """
    out = _counted(trials)
    stats.needs(out, ("step_ms",))
    columns = ["pair", "method", "trial", "recipe", "top1", "step_ms"]
    points = out.loc[out["reached"].notna() & np.isfinite(out["step_ms"]), columns]
    at_step = points.groupby(["pair", "step_ms"])["top1"].max()  # sorted by step time within a pair
    faster = at_step.groupby("pair").cummax().groupby("pair").shift(fill_value=-np.inf)
    best = pd.DataFrame({"at_step": at_step, "faster": faster}).reset_index()
    joined = points.merge(best, on=["pair", "step_ms"], how="left")
    front = (joined["top1"] == joined["at_step"]) & (joined["top1"] > joined["faster"])
    return points.reset_index(drop=True).assign(front=front.astype(bool))


def _counted(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials in their order, each with its k and what it reached."""
    stats.needs(trials, ("pair", "method", "trial", "state", "recipe", "top1"))
    out = trials.sort_values("trial", kind="stable").astype({name: float for name in NUMBERS if name in trials})
    for name in ("method", "pair"):
        out = out.sort_values(name, key=_place(trials[name]), kind="stable", ignore_index=True)
    reached = out["top1"].where((out["state"] == "complete") & np.isfinite(out["top1"]))
    return out.assign(k=out.groupby(["pair", "method"], sort=False).cumcount() + 1, reached=reached)


def _place(names: pd.Series[str]) -> Callable[[pd.Series[str]], pd.Series[int]]:
    """A key to sort by: the order in which names first occur."""
    places = {name: i for i, name in enumerate(names.unique())}
    return lambda column: column.map(places)
