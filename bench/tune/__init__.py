"""Hyper-parameters by Optuna: judged on the validation split, with the same budget for every method."""

from bench.tune.study import Tuned, tune

__all__ = ["Tuned", "tune"]
