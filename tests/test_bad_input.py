"""Whatever a person gets wrong is answered in one line that says what to type, exit code 2, and nothing is lost."""

from __future__ import annotations

import io
import json
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
from safetensors.torch import save_file

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


NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.fc(self.b(self.a(x).relu()).relu().mean((2, 3)))
"""


def own_network(*changes: tuple[str, str], name: str = "my_net.py:Net", source: str = NET) -> Change:
    """A network of one's own with a fault, as the teacher."""
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)

    def change(raw: dict[str, Any], folder: Path) -> None:
        (folder / "my_net.py").write_text(source)
        raw["pairs"] = [f"{folder / name} -> resnet8w4"]

    return change


def with_stages(*names: str) -> tuple[str, str]:
    return "    def __init__", f"    stages = {list(names)}\n    def __init__"


def saved(content: Callable[[Any], Any]) -> Callable[[Path], None]:
    """A checkpoint that holds what is made of a right state."""

    def write(path: Path) -> None:
        from bench import models

        torch.save(content(models.build("resnet8w8", in_channels=1, size=8, n_classes=10).state_dict()), path)

    return write


def half_a_checkpoint(lost: bool) -> Change:
    """Two shards and their index, of which one is lost or another's."""

    def change(raw: dict[str, Any], folder: Path) -> None:
        from bench import models

        state = models.build("resnet8w8", in_channels=1, size=8, n_classes=10).state_dict()
        files = {name: f"m-{i % 2}.safetensors" for i, name in enumerate(state)}
        for file in ("m-0.safetensors",) if lost else ("m-0.safetensors", "m-1.safetensors"):
            save_file({name: state[name] for name in state if files[name] == "m-0.safetensors"}, folder / file)
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": files}))
        raw["pairs"] = [{"teacher": "resnet8w8", "student": "resnet8w4", "teacher_file": str(index)}]

    return change


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")


def wandering_index(path: Path) -> None:
    path.write_text('{"weight_map": {"conv1.weight": "../other.safetensors"}}')


def also(*changes: Change) -> Change:
    def change(raw: dict[str, Any], folder: Path) -> list[str]:
        words: list[str] = []
        for one in changes:
            words += one(raw, folder) or []
        return words

    return change


def plugin(source: str) -> Change:
    def change(raw: dict[str, Any], folder: Path) -> list[str]:
        (folder / "mine.py").write_text(source)
        return ["--plugin", "mine.py"]

    return change


def until(**changes: object) -> dict[str, object]:
    return {"until": "decided", **changes}


def of_a_pair(**keys: object) -> Change:
    """A pair of small networks with these keys."""
    return setting("pairs", [{"teacher": "resnet8w8", "student": "resnet8w4", **keys}])


def mapped(content: object, n_classes: int = 25) -> Change:
    """A teacher of 25 classes, and the file that says which of them are the data's."""

    def change(raw: dict[str, Any], folder: Path) -> None:
        teacher(network("resnet8w8", n_classes))(raw, folder)
        (folder / "map.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        raw["pairs"][0]["class_map"] = str(folder / "map.yaml")

    return change


def with_file(**keys: object) -> Change:
    """A right teacher's file, and these keys beside it."""
    return also(teacher(network("resnet8w8", 10)), lambda raw, folder: raw["pairs"][0].update(keys))


DIGITS = {str(i): i for i in range(10)}

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
    "teacher of two states": (
        teacher(saved(lambda state: {"student": state, "teacher": {k: v + 1 for k, v in state.items()}})),
        ("several states", "teacher_key: 'student' or 'teacher'"),
    ),
    "teacher's key is another": (
        also(
            teacher(saved(lambda state: {"net": state})), lambda raw, folder: raw["pairs"][0].update(teacher_key="nets")
        ),
        ("teacher_key 'nets'", "there is 'net'"),
    ),
    "teacher as a whole module": (
        teacher(saved(lambda state: torch.nn.Linear(2, 2))),
        ("could run code", "state_dict()"),
    ),
    "teacher without a state": (teacher(saved(lambda state: {"epoch": 3, "acc": 71.0})), ("holds no state dict",)),
    "teacher with a layer less": (
        teacher(saved(lambda state: {k: v for k, v in state.items() if "layer3.0.conv2" not in k})),
        ("'layer3.0.conv2.weight' is missing",),
    ),
    "teacher with a layer more": (
        teacher(saved(lambda state: {**state, "fc2.weight": torch.zeros(2, 2)})),
        ("'fc2.weight' is unexpected",),
    ),
    "teacher of other widths": (teacher(network("resnet8w4", 10)), ("is not a state of resnet8w8", "not [8, 1, 3, 3]")),
    "half a checkpoint": (half_a_checkpoint(lost=True), ("m-1.safetensors", "put all shards beside it")),
    "a shard of another": (half_a_checkpoint(lost=False), ("m-1.safetensors' lacks", "fetch that shard again")),
    "an index that leads elsewhere": (teacher(wandering_index), ("teacher.pth", "names no files beside it")),
    "a pointer of git lfs": (teacher(pointer), ("git lfs pull",)),
    "no such file of a network": (
        setting("pairs", ["nowhere/my_net.py:Net -> resnet8w4"]),
        ("nowhere/my_net.py", "path/to/file.py:ClassName"),
    ),
    "no such class": (own_network(name="my_net.py:Nett"), ("'Nett'", "did you mean 'Net'")),
    "several classes": (
        own_network(name="my_net.py:", source=NET + "class Other(Net): pass"),
        ("Net, Other", "name one"),
    ),
    "a network that is no Python": (own_network(source="x ="), ("my_net.py", "SyntaxError")),
    "a network's import": (
        own_network(source="import nowhere_at_all" + NET),
        ("ModuleNotFoundError", "nowhere_at_all"),
    ),
    "a network's script that ends": (own_network(source="raise SystemExit(3)"), ("SystemExit: 3",)),
    "a network's parameter more": (own_network(("num_classes):", "num_classes, depth):")), ("'depth'", "a default")),
    "a network that cannot be made": (own_network(("super().__init__()", "1 / 0")), ("ZeroDivisionError",)),
    "a function that makes no network": (
        own_network(source="def make():\n    return 3\n", name="my_net.py:make"),
        ("makes a int", "torch.nn.Module"),
    ),
    "a network that gives a tuple": (own_network(("return self.fc", "return x, self.fc")), ("a tuple", "logits alone")),
    "a network that gives a tuple in training": (
        own_network(("return self.fc", "if self.training: return x, x\n        return self.fc")),
        ("a tuple", "in training"),
    ),
    "a network of other classes": (own_network(("(4, num_classes)", "(4, 7)")), ("[2, 7]", "[2, 10]", "num_classes")),
    "a network of another size": (
        own_network(("nn.Linear(4", "nn.Linear(64"), (".mean((2, 3))", ".flatten(1)")),
        ("two images of 1x8x8", "data.size"),
    ),
    "a network of other channels": (own_network(("Conv2d(1", "Conv2d(5")), ("two images of 1x8x8", "channels")),
    "a stage that is not there": (own_network(with_stages("a", "c")), ("no module", "'c'")),
    "a stage without a map": (own_network(with_stages("fc")), ("'fc' gives no map",)),
    "a stage that is called twice": (
        own_network(with_stages("b"), ("self.b(self.a(x)", "self.b(self.b(self.a(x))")),
        ("'b' 2 times", "calls once"),
    ),
    "a stage that is never called": (own_network(with_stages("c"), ("self.fc =", "self.c = self.fc =")), ("'c'",)),
    "stages that are not there for a method": (
        also(own_network(("x):", "x):\n        if x.sum() > 9e9: x = -x")), setting("methods", ["at"])),
        ("at needs maps of stages, and the teacher shows none", "--skip-unfit"),
    ),
    "a map that cannot go on": (
        also(
            own_network(with_stages("a", "b"), ("x):", "x):\n        if x.sum() > 9e9: x = -x")),
            setting("methods", ["simkd"]),
        ),
        ("simkd needs the teacher's answer to a map",),
    ),
    "pretrained without a new head": (
        lambda raw, folder: raw.update(
            pairs=[{"teacher": "timm/resnet18", "student": "resnet8w4", "pretrained": True}]
        ),
        ("no head for these classes", "finetune: {epochs: 10, lr: 0.01}"),
    ),
    "finetune of nothing": (
        lambda raw, folder: raw.update(pairs=[{"teacher": "resnet8w8", "student": "resnet8w4", "finetune": {}}]),
        ("pretrained: true, or teacher_file",),
    ),
    "finetune with a misspelt key": (
        also(teacher(network("resnet8w8", 7)), lambda raw, folder: raw["pairs"][0].update(finetune={"epoch": 3})),
        ("epoch", "did you mean 'epochs'"),
    ),
    "pretrained and a file": (
        also(teacher(network("resnet8w8", 7)), lambda raw, folder: raw["pairs"][0].update(pretrained=True)),
        ("leave out one of them",),
    ),
    "pretrained without weights": (
        lambda raw, folder: raw.update(
            pairs=[{"teacher": "resnet8w8", "student": "resnet8w4", "pretrained": True, "finetune": {}}]
        ),
        ("'resnet8w8' has no packaged weights",),
    ),
    "no method that fits": (
        also(setting("methods", ["fsp"]), typed("--skip-unfit")),
        ("no method of the suite takes",),
    ),
    "an unknown network of Hugging Face": (setting("pairs", ["hf/nowhere -> resnet8w4"]), ("hf/nowhere",)),
    "a network too large for the images": (
        setting("pairs", ["torchvision/vgg11_bn -> resnet8w4"]),
        ("cannot take 8x8", "it takes 32x32"),
    ),
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


TEACHERS: dict[str, tuple[Change, tuple[str, ...]]] = {  # refused by `check`, as by `run`
    "an empty link of a chain": (setting("pairs", ["resnet8w8 -> -> resnet8w4"]), ("'teacher -> student'",)),
    "a chain with a cycle": (
        setting("pairs", ["resnet8w8 -> resnet8w4 -> resnet8w8 -> resnet8w4"]),
        ("comes back to 'resnet8w8'", "once, or in a row"),
    ),
    "an unknown network within a chain": (
        setting("pairs", ["resnet8w8 -> resnet9w4 -> resnet8w4"]),
        ("'resnet9w4'", "8 and 14"),
    ),
    "a link of an unknown method": (
        setting("pairs", [{"teacher": "resnet8w8 -> resnet8w6", "student": "resnet8w4", "link": "dkdd"}]),
        ("'dkdd'", "did you mean 'dkd'"),
    ),
    "a link with an unknown key": (
        setting("pairs", [{"teacher": "resnet8w8 -> resnet8w6", "student": "resnet8w4", "link": {"kd": {"tua": 2.0}}}]),
        ("'tua'", "did you mean 'tau'"),
    ),
    "a link whose student is more than a network": (
        setting("pairs", [{"teacher": "resnet8w8 -> resnet8w6", "student": "resnet8w4", "link": "simkd"}]),
        ("link simkd", "link: kd"),
    ),
    "a link that does not take its networks": (
        setting("pairs", [{"teacher": "resnet8w8 -> resnet8w6", "student": "resnet8w4", "link": "fsp"}]),
        ("link fsp on resnet8w8->resnet8w6", "link: kd"),
    ),
    "a link without a chain": (of_a_pair(link="dkd"), ("a -> b -> c",)),
    "no generation": (of_a_pair(generations=0), ("generations", "from 1 to 100", "0")),
    "generations in words": (of_a_pair(generations="two"), ("generations", "'two'")),
    "generations of several teachers": (
        of_a_pair(teacher=["resnet8w8", "resnet8w6"], generations=2),
        ("two or more teachers, and one generation",),
    ),
    "several teachers that are one": (of_a_pair(teacher=["resnet8w8"]), ("[a, b]", "two or more")),
    "several teachers of which one is unknown": (of_a_pair(teacher=["resnet8w8", "vgg9"]), ("'vgg9'", "did you mean")),
    "a file of several teachers": (
        of_a_pair(teacher=["resnet8w8", "resnet8w6"], teacher_file="x.pth"),
        ("teacher_file is of one teacher", "write it in the list"),
    ),
    "a misspelt key of one of several teachers": (
        of_a_pair(teacher=["resnet8w8", {"teacher": "resnet8w6", "teacher_fil": "x.pth"}]),
        ("teacher_fil", "did you mean 'teacher_file'"),
    ),
    "several teachers and a method that looks at maps": (
        also(of_a_pair(teacher=["resnet8w8", "resnet8w6"]), setting("methods", ["fitnet"])),
        ("fitnet needs maps of stages", "--skip-unfit"),
    ),
    "a temperature of one teacher": (of_a_pair(ensemble_tau=2.0), ("ensemble_tau", "teacher: [a, b]")),
    "a temperature of zero": (
        of_a_pair(teacher=["resnet8w8", "resnet8w6"], ensemble_tau=0),
        ("ensemble_tau", "greater than 0"),
    ),
    "a misspelt key of a pair": (of_a_pair(teacher_hed="ignore"), ("teacher_hed", "did you mean 'teacher_head'")),
    "a misspelt head": (with_file(teacher_head="ignored"), ("teacher_head", "ignore")),
    "a head of a teacher that is trained": (of_a_pair(teacher_head="ignore"), ("teacher_head is of a teacher",)),
    "a head that is ignored and trained": (with_file(teacher_head="ignore", finetune={}), ("leave out one",)),
    "a head that is ignored and read": (
        with_file(teacher_head="ignore"),
        ("kd reads the teacher's logits", "class_map", "--skip-unfit"),
    ),
    "a class map of no file": (of_a_pair(class_map="map.yaml"), ("class_map is of a teacher that is there",)),
    "a class map that is not there": (with_file(class_map="nowhere.yaml"), ("class_map nowhere.yaml", "No such file")),
    "a class map that is no YAML": (mapped("a: [1"), ("class_map", "line 1", "not readable as YAML")),
    "a class map that is a word": (mapped("ten"), ("holds a str", "10 classes", "a line for each")),
    "a class map with gaps": (
        mapped({k: v for k, v in DIGITS.items() if k != "4"}),
        ("lacks '4'", "write a line for every class"),
    ),
    "a class map that is too short": (mapped([3, 4, 5]), ("a list of 3", "10 classes")),
    "a class map of other classes": (mapped(DIGITS | {"ten": 10}), ("no class of the data", "'ten'")),
    "a class map with one class twice": (mapped(DIGITS | {"9": 8}), ("'8' and '9' are both 8", "correct one")),
    "a class map of fractions": (mapped(DIGITS | {"9": 8.5}), ("'9' is 8.5", "whole number")),
    "a class map beyond the teacher": (mapped(DIGITS | {"9": 25}), ("class 25", "has 25", "from 0")),
    "a class map of another network": (
        also(mapped(DIGITS), lambda raw, folder: raw["pairs"][0].update(teacher="resnet8w6")),
        ("teacher.pth", "is not a state of resnet8w6"),
    ),
    "images of too many channels": (
        with_file(teacher_input={"mean": [0.5, 0.5]}),
        ("teacher_input.mean has 2 numbers", "1 channels", "one for each"),
    ),
    "images without spread": (with_file(teacher_input={"std": [0.0]}), ("teacher_input.std", "greater than 0")),
    "images without size": (with_file(teacher_input={"size": 0}), ("teacher_input.size", "1")),
    "a misspelt key of the images": (with_file(teacher_input={"means": [0.5]}), ("means", "did you mean 'mean'")),
    "pretrained and nothing to fit its head": (
        setting("pairs", [{"teacher": "timm/test_resnet", "student": "resnet8w4", "pretrained": True}]),
        ("finetune: {epochs: 10, lr: 0.01}", "class_map: FILE", "teacher_head: ignore"),
    ),
    "two pairs under one label": (
        setting(
            "pairs",
            [
                {"teacher": "resnet8w8", "student": "resnet8w4", "label": "mine"},
                {"teacher": "resnet8w6", "student": "resnet8w4", "label": "mine"},
            ],
        ),
        ("'mine' stands twice",),
    ),
    "a label that is a path": (of_a_pair(label="a/b"), ("label", "none of them /")),
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


OF_COMMAND = {"run": CASES, "check": TEACHERS, "tune": TUNE}


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command in OF_COMMAND for name in OF_COMMAND[command]]
)
def test_one_line_says_what_to_type(
    command: str,
    name: str,
    tiny: dict[str, Any],
    tiny_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change, expected = OF_COMMAND[command][name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KDBENCH_OFFLINE", "1")  # a store of its own for every case takes longer than all else
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
