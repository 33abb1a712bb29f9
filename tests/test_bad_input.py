"""Whatever a person gets wrong is answered in one line that says what to type, exit code 2, and nothing is lost."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from bench.cli import main

Change = Callable[[dict[str, Any], Path], list[str] | None]


def setting(path: str, value: object) -> Change:
    """Change one key of the suite's YAML."""

    def change(raw: dict[str, Any], folder: Path) -> None:
        *parents, last = path.split(".")
        place = raw
        for part in parents:
            place = place.setdefault(part, {})
        place[last] = value

    return change


def typed(*words: str) -> Change:
    return lambda raw, folder: list(words)


def mlflow_storage(raw: dict[str, Any], folder: Path) -> list[str]:
    return ["--storage", f"sqlite:///{folder / 'results' / 'mlflow.db'}"]


def teacher(write: Callable[[Path], None]) -> Change:
    def change(raw: dict[str, Any], folder: Path) -> None:
        write(folder / "teacher.pth")
        raw["pairs"] = [{"teacher": "resnet8w8", "student": "resnet8w4", "teacher_file": str(folder / "teacher.pth")}]

    return change


def network(name: str, n_classes: int, cut: int | None = None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        from bench import models

        torch.save(models.build(name, in_channels=1, size=8, n_classes=n_classes).state_dict(), path)
        if cut:
            path.write_bytes(path.read_bytes()[:cut])

    return write


def text(path: Path) -> None:
    path.write_text("hello")


def without_data(raw: dict[str, Any], folder: Path) -> None:
    del raw["data"]


def no_yaml(raw: dict[str, Any], folder: Path) -> None:
    (folder / "tiny.yaml").write_text("a: [1")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch pwned",))


def evil(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Evil()}))


def shards(**columns: Any) -> Change:
    """Point the suite at parquet shards with these columns (train and test alike)."""

    def change(raw: dict[str, Any], folder: Path) -> None:
        table = pa.table({name: make() for name, make in columns.items()})
        for split in ("train", "test"):
            pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
        raw["data"] = {"source": "parquet", "path": str(folder), "validation": 20, "train": 20}

    return change


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def images(broken: int | None = None) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [{"bytes": b"no image" if i == broken else png(), "path": None} for i in range(60)]


def labels(last: int = 1, classes: int = 2) -> Callable[[], list[int]]:
    return lambda: [i % classes for i in range(59)] + [last]


def folder_of(*names: str) -> Change:
    def change(raw: dict[str, Any], folder: Path) -> None:
        for name in names:
            (folder / "set" / name).mkdir(parents=True)
        (folder / "set").mkdir(exist_ok=True)
        raw["data"] = {"source": "image_folder", "path": str(folder / "set"), "size": 8, "validation": 10}

    return change


def also(*changes: Change) -> Change:
    def change(raw: dict[str, Any], folder: Path) -> None:
        for one in changes:
            one(raw, folder)

    return change


def plugin(source: str) -> Change:
    def change(raw: dict[str, Any], folder: Path) -> list[str]:
        (folder / "mine.py").write_text(source)
        return ["--plugin", "mine.py"]

    return change


def until(**changes: object) -> dict[str, object]:
    return {"until": "decided", **changes}


CASES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "misspelt key": (setting("protocol.epoch", 3), ("protocol.epoch", "did you mean 'epochs'")),
    "misspelt top key": (setting("sedes", 3), ("sedes", "did you mean 'seeds'")),
    "misspelt data key": (setting("data.validaton", 3), ("validaton", "did you mean 'validation'")),
    "misspelt method": (setting("methods", ["vanila", "kd"]), ("no method 'vanila'", "did you mean 'vanilla'")),
    "misspelt method, typed": (typed("--methods", "dkdd"), ("no method 'dkdd'", "did you mean 'dkd'")),
    "misspelt network": (setting("pairs", ["resnet8y4 -> resnet8"]), ("resnet8y4", "did you mean")),
    "impossible depth": (setting("pairs", ["resnet21 -> resnet8"]), ("resnet21", "nearest are 20 and 26")),
    "misspelt data source": (
        setting("data", {"source": "digit", "validation": 9}),
        ("no data source 'digit'", "did you mean 'digits'"),
    ),
    "misspelt data set": (
        setting("data", {"source": "torchvision", "name": "CIFAR101", "validation": 9}),
        ("CIFAR101", "CIFAR10"),
    ),
    "misspelt suite": (typed("SUITE", "digitz"), ("no suite 'digitz'", "did you mean 'digits'")),
    "misspelt recipe": (setting("methods", [{"method": "kd", "recipe": "papr"}]), ("recipe", "did you mean 'paper'")),
    "misspelt hyper-parameter": (setting("methods", [{"kd": {"temprature": 4}}]), ("temprature",)),
    "hyper-parameter out of range": (setting("methods", [{"kd": {"tau": -1}}]), ("kd.tau is -1", "1 to 20")),
    "wrong type": (setting("protocol.lr", "fast"), ("protocol.lr", "fast", "number")),
    "wrong type of a switch": (setting("protocol.nesterov", "perhaps"), ("protocol.nesterov", "perhaps")),
    "wrong choice": (setting("protocol.schedule", "steps"), ("protocol.schedule", "did you mean 'step'")),
    "negative epochs": (setting("protocol.epochs", -3), ("protocol.epochs", "-3", "greater")),
    "milestone after the end": (setting("protocol.milestones", [2, 30]), ("milestones", "3 epochs")),
    "empty seeds": (setting("seeds", []), ("seeds", "at least 1")),
    "no seeds": (setting("seeds", 0), ("seed",)),
    "seeds until another word": (setting("seeds", until(until="done")), ("seeds", "until", "'decided'")),
    "no margin": (setting("seeds", until(margin=0)), ("seeds", "'margin' is 0", "greater than 0")),
    "a margin below zero": (setting("seeds", until(margin=-1)), ("seeds", "'margin' is -1", "greater than 0")),
    "least above most": (setting("seeds", until(least=9, most=4)), ("seeds", "least 9", "most 4", "least: 4")),
    "a decision by one seed": (
        setting("seeds", until(least=1)),
        ("seeds", "'least' is 1", "equal to 2"),
    ),
    "a misspelt key of seeds": (setting("seeds", until(margn=1)), ("seeds", "margn", "did you mean 'margin'")),
    "until beside seeds": (setting("until", until()), ("'until' stands within seeds", "seeds: {until: decided}")),
    "nothing to decide": (
        also(setting("seeds", until()), setting("methods", ["kd"])),
        ("tiny has one, kd", "two or more methods", "--seeds 5"),
    ),
    "a teacher of each pair": (setting("teacher.each", "pair"), ("teacher.each", "'pair'", "'suite' or 'seed'")),
    "a split of each run": (setting("split.each", "run"), ("split.each", "'run'", "'suite' or 'seed'")),
    "a split without its teacher": (
        setting("split.each", "seed"),
        ("add teacher: {each: seed}",),
    ),
    "a teacher file for every seed": (
        also(teacher(network("resnet8w8", 10)), setting("teacher.each", "seed")),
        ("teacher.pth", "write teacher: {each: suite}"),
    ),
    "seeds typed wrong": (typed("--seeds", "many"), ("seeds", "'5'")),
    "the same method twice": (setting("methods", ["kd", "kd"]), ("'kd' stands twice",)),
    "no methods": (setting("methods", []), ("methods", "at least 1")),
    "pair without arrow": (setting("pairs", ["resnet20"]), ("teacher -> student", "resnet20")),
    "no data": (without_data, ("'data' is missing",)),
    "no YAML": (no_yaml, ("not readable as YAML",)),
    "override without value": (typed("--set", "protocol.epochs"), ("key=value", "protocol.epochs")),
    "override into a value": (typed("--set", "protocol.epochs.x=1"), ("epochs", "holds no keys")),
    "unknown option": (typed("--ephocs", "3"), ("--ephocs",)),
    "teacher file missing": (teacher(lambda path: None), ("teacher.pth", "no file")),
    "teacher file truncated": (teacher(network("resnet8w8", 10, cut=2000)), ("teacher.pth",)),
    "teacher of another network": (teacher(network("resnet20", 10)), ("teacher.pth", "resnet20")),
    "teacher of other classes": (teacher(network("resnet8w8", 7)), ("teacher.pth", "7", "10")),
    "teacher with code in it": (teacher(evil), ("teacher.pth",)),
    "teacher is text": (teacher(text), ("teacher.pth",)),
    "parquet without images": (shards(text=lambda: ["a"] * 60, label=labels()), ("image", "text", "label")),
    "parquet without labels": (shards(img=images()), ("label",)),
    "undecodable image": (shards(img=images(broken=7), label=labels()), ("train-00000-of-00001.parquet", "row 7")),
    "label out of range": (shards(img=images(), label=labels(last=-4)), ("-4", "row 59")),
    "class absent from train": (shards(img=images(), label=labels(last=3)), ("class",)),
    "no shards": (setting("data", {"source": "parquet", "path": "nowhere", "validation": 9}), ("nowhere",)),
    "subset larger than the set": (setting("data.train", 5000), ("5000",)),
    "validation of size 0": (setting("data.validation", 0), ("validation",)),
    "validation too small": (setting("data.validation", 3), ("validation", "3")),
    "image folder empty": (folder_of(), ("train",)),
    "image folder without images": (folder_of("train/a", "train/b", "test/a", "test/b"), ("image",)),
    "device not there": (typed("--device", "cuda:99"), ("cuda:99", "--device cpu")),
    "device misspelt": (typed("--device", "gpu"), ("gpu", "cuda")),
    "fsp on unequal channels": (setting("methods", ["fsp"]), ("fsp", "same channels")),
    "a network without the taps of reviewkd": (
        also(setting("methods", ["reviewkd"]), setting("pairs", ["MobileNetV2 -> resnet8w4"])),
        ("reviewkd", "before their ReLU"),
    ),
    "a network without the taps of ab": (
        also(setting("methods", ["ab"]), setting("pairs", ["resnet8w8 -> MobileNetV2"])),
        ("ab", "student shows none"),
    ),
    "semckd without a full batch": (
        also(setting("methods", ["semckd"]), setting("protocol.batch_size", 100)),
        ("semckd", "full batches", "90", "100"),
    ),
    "no strong view": (also(setting("methods", ["mlkd"]), setting("data.strong", False)), ("mlkd", "strong view")),
    "no strong view for sld": (
        also(setting("methods", ["sld"]), setting("data.strong", False)),
        ("sld", "strong view"),
    ),
    "dot without sgd": (also(setting("methods", ["dot"]), setting("protocol.optimizer", "adamw")), ("dot", "sgd")),
    "deepkd without sgd": (
        also(setting("methods", ["deepkd"]), setting("protocol.optimizer", "adamw")),
        ("deepkd", "sgd"),
    ),
    "deepkd with a momentum too large": (
        also(setting("methods", ["deepkd"]), setting("protocol.momentum", 0.95)),
        ("deepkd", "momentum"),
    ),
    "dot with a momentum too small": (also(setting("methods", ["dot"]), setting("protocol.momentum", 0.0)), ("dot",)),
    "unknown layers": (setting("methods", [{"logit_free": {"layers": "best"}}]), ("logit_free.layers", "auto")),
    "too many layers": (
        setting("methods", [{"logit_free": {"layers": "0,1,2,3"}}]),
        ("logit_free.layers", "at most 3"),
    ),
    "a sum of one method": (setting("methods", ["kd + kd"]), ("kd + kd", "twice")),
    "a sum with a misspelt method": (setting("methods", ["crd + kdd"]), ("no method 'kdd'", "did you mean 'kd'")),
    "a sum with an optimiser": (setting("methods", ["dot + crd"]), ("dot", "cannot be part of a sum")),
    "a weight that is none": (setting("methods", ["crd + x*kd"]), ("x*kd", "0.5*kd")),
    "no plug-in": (typed("--plugin", "mine.py"), ("mine.py", "no such Python file")),
    "a plug-in without a method": (plugin("x = 1\n"), ("holds 0 methods",)),
    "a plug-in with two methods": (
        plugin("from methods.kd import KD\nclass A(KD): pass\nclass B(KD): pass\n"),
        ("holds 2 methods",),
    ),
    "a plug-in that is no Python": (plugin("x ="), ("SyntaxError",)),
    "results not writable": (typed("--results", "/proc/results"), ("/proc/results", "--results")),
}


TUNE: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no trials": (typed("--trials", "0"), ("tune.trials", "0", "greater than or equal to 1")),
    "an empty batch": (typed("--batch", "0"), ("tune.batch", "0")),
    "a misspelt sampler": (typed("--sampler", "tpa"), ("tune.sampler", "did you mean 'tpe'", "random")),
    "a misspelt pruner": (typed("--pruner", "halve"), ("tune.pruner", "halving")),
    "a misspelt rule": (typed("--rule", "best"), ("tune.rule", "best_trial")),
    "a misspelt objective": (typed("--objective", "speed"), ("tune.objective", "accuracy", "cost")),
    "cost without accuracy": (typed("--objective", "cost"), ("tune.objective", "accuracy,cost")),
    "two objectives and a pruner": (
        typed("--objective", "accuracy,cost", "--pruner", "halving"),
        ("pruner halving", "one objective"),
    ),
    "a misspelt key of tune": (setting("tune.trails", 9), ("tune.trails", "did you mean 'trials'")),
    "an unknown method": (typed("--methods", "kdd"), ("no method 'kdd'", "did you mean 'kd'")),
    "a space of an unknown method": (setting("tune.space.kdd.kd", [1, 2]), ("no method 'kdd'",)),
    "a space of an unknown key": (setting("tune.space.kd.tua", [1, 2]), ("'tua'", "did you mean 'tau'")),
    "an empty range": (setting("tune.space.kd.tau", [2, 2]), ("tune.space.kd.tau", "empty")),
    "an inverted range": (setting("tune.space.kd.tau", [5, 2]), ("tune.space.kd.tau", "lower end first")),
    "a range of one number": (setting("tune.space.kd.tau", 5), ("tune.space.kd.tau", "[low, high]")),
    "a logarithm through zero": (setting("tune.space.kd.kd", [0, 2]), ("tune.space.kd.kd", "0.01")),
    "a range without the recipe": (setting("tune.space.kd.tau", [5, 9]), ("tune.space.kd.tau", "4.0", "trial 0")),
    "a tuned row": (setting("methods", [{"method": "kd", "recipe": "tuned"}]), ("kd(tuned)", "not tuned again")),
    "a storage that is no URL": (typed("--storage", "here"), ("here", "postgresql://")),
    "a storage nowhere": (typed("--storage", "sqlite:////nowhere/x.db"), ("/nowhere/x.db", "cannot be opened")),
    "a storage with a password": (typed("--storage", "postgresql://me:pw@127.0.0.1:1/x"), ("***", "cannot be opened")),
    "mlflow's storage": (mlflow_storage, ("MLflow's database", "optuna.db")),
}


def call(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["kdbench", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 25


@pytest.mark.parametrize(("command", "name"), [("run", n) for n in CASES] + [("tune", n) for n in TUNE])
def test_one_line_says_what_to_type(
    command: str,
    name: str,
    tiny: dict[str, Any],
    tiny_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change, expected = (CASES if command == "run" else TUNE)[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    kept = tmp_path / "results" / "tiny" / "runs" / "kept"
    kept.mkdir(parents=True)
    (kept / "student.safetensors").write_text("finished work")
    raw = {key: value for key, value in tiny.items() if key != "name"}
    tiny_file.write_text(yaml.safe_dump(raw))
    words = change(raw, tmp_path)
    if name != "no YAML":
        tiny_file.write_text(yaml.safe_dump(raw))
    suite = str(tiny_file)
    if words and words[0] == "SUITE":
        suite, words = words[1], []
    code, _, err = call([command, suite, *(words or [])], monkeypatch, capsys)
    assert code == 2
    assert err.startswith("kdbench: ") and len(err.splitlines()) == 1, err
    for part in expected:
        assert part in err, err
    assert (kept / "student.safetensors").read_text() == "finished work"
    assert not (tmp_path / "pwned").exists()
    assert not list(tmp_path.glob("results/teachers/*/record.jsonl")), "nothing may train before it is refused"


def test_no_traceback_from_the_shell(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bench", "run", "digitz"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "did you mean 'digits'" in done.stderr


def test_a_report_without_runs_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(["report", "digits", "--results", str(tmp_path)], monkeypatch, capsys)
    assert code == 2 and len(err.splitlines()) == 1 and "run" in err
