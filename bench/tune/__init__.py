"""Hyper-parameters by Optuna: judged on the validation split, with the same budget for every method."""

from bench.tune.studies import tune
from bench.tune.study import TuningResult

__all__ = ["TuningResult", "tune"]
