"""Studies: on the validation split alone, the recipe first, the same suggestions after a stop."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file

from bench.cohort import Cohort
from bench.data import Data
from bench.errors import UserError
from bench.progress import Progress
from bench.suite import validate
from bench.tune import Tuned, tune
from methods import ofd
from tests.test_cli import call


def tuned(raw: dict[str, Any], results: Path, trials: int = 4, batch: int = 2) -> list[Tuned]:
    results.mkdir(exist_ok=True)
    quiet = Progress(Console(quiet=True), quiet=True)
    return tune(validate(raw, "test"), results, trials=trials, batch=batch, device=torch.device("cpu"), progress=quiet)


def trials_of(results: Path) -> list[tuple[Any, ...]]:
    storage = f"sqlite:///{results / 'optuna.db'}"
    study = optuna.load_study(study_name="tiny/resnet8w8->resnet8w4/kd", storage=storage)
    complete = [t for t in study.trials if t.state.name == "COMPLETE"]
    return [(tuple(sorted(t.params.items())), t.value) for t in complete]


def test_a_study_begins_with_the_recipe_and_leaves_its_best(tmp_path: Path, tiny: dict[str, Any]) -> None:
    (got,) = tuned(tiny, tmp_path)  # vanilla has nothing to tune
    found = trials_of(tmp_path)
    assert len(found) == 4 and dict(found[0][0]) == {"ce": 0.1, "kd": 0.9, "tau": 4.0}
    content = yaml.safe_load(got.file.read_text())
    assert content["validation_top1"] == max(value for _, value in found) >= content["recipe_validation_top1"]
    assert content["budget"] == {"trials": 4, "failed": 0, "epochs": 3} and content["rule"] == "best_trial"
    again = tuned(tiny, tmp_path)
    assert len(trials_of(tmp_path)) == 4 and again[0].values == got.values


def test_methods_read_the_trained_teacher(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a method takes from the teacher at its construction (ofd: BatchNorm) is the trained teacher's."""
    built: list[tuple[torch.Tensor, torch.Tensor]] = []
    real = ofd.margin

    def margin(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        built.append((weight, bias))
        return real(weight, bias)

    monkeypatch.setattr(ofd, "margin", margin)
    tuned({**tiny, "methods": ["ofd"]}, tmp_path, trials=1, batch=1)
    state = load_file(next(tmp_path.glob("teachers/*/teacher.safetensors")))
    weight, bias = built[-1]
    norms = [name.removesuffix(".weight") for name in state if name.startswith("layer") and name.endswith("bn2.weight")]
    assert any(torch.equal(state[f"{n}.weight"], weight) and torch.equal(state[f"{n}.bias"], bias) for n in norms)


def test_the_test_split_stays_closed(tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Data] = []
    forbid = Data.forbid_test

    def remember(self: Data) -> None:
        closed.append(self)
        forbid(self)

    monkeypatch.setattr(Data, "forbid_test", remember)
    tuned(tiny, tmp_path, trials=2)
    with pytest.raises(UserError, match="test split is closed"):
        _ = closed[0].test


def test_a_study_that_was_stopped_goes_on_to_the_same_suggestions(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned(tiny, tmp_path / "whole", trials=6)
    train, count = Cohort.train, 0

    def stop(self: Cohort, *words: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:  # the teacher, the first batch, and now the second, which has been asked and not told
            raise KeyboardInterrupt
        train(self, *words)

    monkeypatch.setattr(Cohort, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        tuned(tiny, tmp_path / "stopped", trials=6)
    monkeypatch.setattr(Cohort, "train", train)
    tuned(tiny, tmp_path / "stopped", trials=6)
    assert trials_of(tmp_path / "stopped") == trials_of(tmp_path / "whole")


def test_a_study_of_another_protocol_is_refused(tmp_path: Path, tiny: dict[str, Any]) -> None:
    tuned(tiny, tmp_path, trials=2)
    with pytest.raises(UserError, match="another batch"):
        tuned(tiny, tmp_path, trials=4, batch=4)
    with pytest.raises(UserError, match="another training seed"):
        tuned({**tiny, "seeds": [5]}, tmp_path, trials=4)
    with pytest.raises(UserError, match="another protocol, teacher"):
        tuned({**tiny, "protocol": {"epochs": 2, "batch_size": 32}}, tmp_path, trials=4)


def learned_at_once(self: Cohort, *words: Any) -> None:
    """Stands for training: a value that the hyper-parameters alone decide, so that many searches cost little."""
    for member in self.members:
        method: Any = member.method
        top1 = 50 - abs(method.tau - 6) - method.kd - method.ce
        member.epoch = self.protocol.epochs
        member.history.append({"epoch": 1, "time": 0.0, "metrics": {"validation/top1": top1, "validation/nll": 1.0}})


@pytest.mark.parametrize(("call_", "at"), [("ask", 3), ("ask", 14), ("tell", 1), ("tell", 2), ("tell", 7)])
def test_a_kill_at_any_moment_changes_no_suggestion(
    call_: str, at: int, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of asking or of telling a batch; beyond ten trials the suggestions are of the model."""
    tuned(tiny, tmp_path / "whole", trials=1)  # the teacher, trained in earnest
    shutil.copytree(tmp_path / "whole" / "teachers", tmp_path / "stopped" / "teachers")
    monkeypatch.setattr(Cohort, "train", learned_at_once)
    (tmp_path / "whole" / "optuna.db").unlink()
    (whole,) = tuned(tiny, tmp_path / "whole", trials=14, batch=4)
    real, count = getattr(optuna.Study, call_), 0

    def killed(self: optuna.Study, *words: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt
        return real(self, *words, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, call_, killed)
        tuned(tiny, tmp_path / "stopped", trials=14, batch=4)
    (resumed,) = tuned(tiny, tmp_path / "stopped", trials=14, batch=4)
    assert trials_of(tmp_path / "stopped") == trials_of(tmp_path / "whole")
    assert resumed.recipe_top1 == whole.recipe_top1 is not None


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path, tiny_file: Path) -> None:
    assert call("tune", str(tiny_file), "--trials", "0", "--results", str(tmp_path / "r")) == 2
    assert call("tune", str(tiny_file), "--methods", "kdd", "--results", str(tmp_path / "r")) == 2
