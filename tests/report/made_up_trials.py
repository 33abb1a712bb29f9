"""Trials and studies as a tuning call would leave them, with made-up numbers from a named draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from bench.report.trials import COLUMNS
from tests.report.made_up import ENVIRONMENT
from tracking.record import Record

METHODS = ("kd", "dkd", "fitnet", "crd", "block_kd", "sld")
PAIR = "resnet56->resnet20"
MORE = "ab at cc crd_kd ctkd dist dot fsp ft kd_two_view kdsvd(mdistiller) logit_free lskd lskd_ctkd lskd_dkd lskd_mlkd"
MORE += " lskd_sld mlkd nkd nst ofd pkt reviewkd rkd semckd simkd sld_single sp vid attention kd(ce=0.1,kd=0.9)"
MANY = (*METHODS, *MORE.split())
TUNE = {"sampler": "tpe", "pruner": "none", "objective": ["accuracy"], "batch": 4, "rule": "best_trial", "seed": 0}
SPACE = {"tau": "1 to 20, log", "kd": "0.1 to 20, log"}


def trial(
    number: int,
    top1: float = np.nan,
    method: str = "kd",
    state: str = "complete",
    step_ms: float = np.nan,
    pair: str = PAIR,
    steps: int = 100,
) -> dict[str, Any]:
    """One row of trials.csv; trial 0 is the recipe."""
    named = {"suite": "made", "pair": pair, "method": method, "study": f"made/{pair}/{method}", "trial": number}
    reached = {"state": state, "recipe": number == 0, "top1": top1, "nll": 1.0, "step_ms": step_ms, "epochs": 5}
    spent = {"student_steps": steps, "seconds": 2.5, "reason": "", "hp.tau": 4.0 + number, "hp.kd": 0.9}
    return named | reached | spent


def trials(
    methods: Sequence[str] = METHODS, count: int = 24, pair: str = PAIR, times: bool = True, pruned: float = 0.2
) -> pd.DataFrame:
    """What `read` gives: methods differ in level, gain and step time, and some trials were pruned or failed."""
    rows = []
    for name in methods:
        draw = np.random.default_rng([ord(letter) for letter in f"{pair}{name}"])
        level, gain, step = 66 + 3 * draw.random(), 2.5 * draw.random(), 18 * np.exp(1.6 * draw.random() ** 2)
        for number in range(count):
            values = {"step_ms": step * (1 + 0.03 * draw.random()) if times else np.nan}
            off = 0 if number == 0 else gain - 6 * draw.random() ** 2
            fate = draw.random() if number else 1.0
            state = "failed" if fate < 0.03 else "pruned" if fate < pruned else "complete"
            top1 = np.nan if state == "failed" else round(level + off - 4 * (state == "pruned"), 2)
            rows.append(
                trial(number, top1, name, state, **values, pair=pair, steps=480 if state == "complete" else 160)
            )
    return pd.DataFrame(rows, columns=[*COLUMNS, "hp.tau", "hp.kd"])


def study(
    results: Path,
    rows: pd.DataFrame,
    tune: Mapping[str, Any] = TUNE,
    chosen: bool = True,
    status: str = "finished",
    again: Mapping[int, Sequence[float]] | None = None,
) -> Path:
    """One study's folder under results/made/tuning: its record, trials.csv and tuned.yaml.

    again: by trial, what it reached when it was trained again with seeds 1001, 1002, …; the best mean is chosen.
    """
    pair, method, name = (str(rows[key].iloc[0]) for key in ("pair", "method", "study"))
    slug = name.partition("/")[2].replace("->", "--").replace("/", "_")
    record = Record(results / "made" / "tuning" / slug)
    spec = {
        "kind": "study",
        "suite": "made",
        "pair": pair,
        "method": method.split("(")[0],
        "label": method,
        "seed": 1000,
    }
    space = {"study": name, "space": SPACE, "hp": {"ce": 0.1, "kd": 0.9, "tau": 4.0}, "tune": dict(tune)}
    record.begin(slug, spec | space, ENVIRONMENT)
    record.write_epochs([{"epoch": n, "time": 0.0, "metrics": {}} for n in rows["trial"]])
    rows.to_csv(record.folder / "trials.csv", index=False)
    if chosen:
        content: dict[str, Any] = {"method": method, "values": {"ce": 0.1, "kd": 1.25, "tau": 7.5}}
        if again:
            content |= _confirmed(record.folder, again)
        (record.folder / "tuned.yaml").write_text(yaml.safe_dump(content))
    if status != "running":
        record.end(status, "", {}, ["trials.csv"])
    return record.folder


def _confirmed(folder: Path, again: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    """The records of the trials that were trained again, and what tuned.yaml says of them."""
    for number, reached in again.items():
        for seed, top1 in enumerate(reached, 1001):
            record = Record(folder / "trials" / f"{number}-{seed}")
            record.begin(f"{number}-{seed}", {"stage": "confirm", "trial": number, "seed": seed}, ENVIRONMENT)
            record.end("finished", "", {"validation/top1": top1}, [])
    means = {number: float(np.mean(reached)) for number, reached in again.items()}
    seeds = list(range(1001, 1001 + len(next(iter(again.values())))))
    confirmation = {"seeds": seeds, "validation_top1": means, "student_steps": 480 * len(again) * len(seeds)}
    return {"trial": max(means, key=means.__getitem__), "rule": "confirmed", "confirmation": confirmation}


def studies(results: Path, frame: pd.DataFrame, **named: Any) -> None:
    for _, rows in frame.groupby(["pair", "method"], sort=False):
        study(results, rows, **named)
