"""What each stage of a teacher offers: Q against loops over samples, its command, and the method that goes by it."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from bench import data as datasets
from bench.data.spec import DigitsSpec
from bench.jobs import teacher
from bench.report import layers as shown
from bench.seeds import generator
from bench.training import layers
from methods import logit_free
from methods.base import Refusal
from methods.logit_free import best_stages, knowledge_quality
from tests.prose import Prose
from tests.report.test_figures import texts_out_of_page
from tests.test_cli import call

KEYS = ("separation", "information", "efficiency", "quality")


def naive(f: Tensor, y: list[int], n: int) -> dict[str, float]:
    """Q as its docstring says it, one pair of samples at a time."""
    classes, samples = sorted(set(y)), list(f.double())
    of = {c: [x for x, label in zip(samples, y, strict=True) if label == c] for c in classes}

    def cosine(a: Tensor, b: Tensor) -> float:
        return abs(float(a @ b)) / max(float(a.norm()) * float(b.norm()), 1e-24)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def entropy(own: list[Tensor]) -> float:
        centre = torch.stack(own).mean(dim=0)
        p = np.linalg.svd(np.stack([(x - centre).numpy() for x in own]), compute_uv=False) ** 2
        return -sum(v * math.log(v) for v in p / p.sum() if v > 1e-15)

    within = {c: [cosine(a, b) for a in of[c] for b in of[c]] for c in classes}
    between = [mean([cosine(a, b) for a in of[c] for b in of[d]]) for c, d in combinations(classes, 2)]
    near = [min(float((a - b).norm()) for a in of[c] for d in classes if d != c for b in of[d]) for c in classes]
    norm = mean([mean([float(x.norm()) for x in of[c]]) for c in classes])
    s = mean([mean(w) for w in within.values()]) - mean(between)
    i = (1 - mean([min(w) for w in within.values()])) * mean([entropy(of[c]) for c in classes]) / math.log(5)
    e = 2 * mean(near) / norm * (n / math.pi) ** (1 / min(f.shape))
    return {"separation": s, "information": i, "efficiency": e, "quality": s + math.sqrt(i * e)}


def example(m: int, d: int, seed: int = 0) -> tuple[Tensor, list[int]]:
    """Features like those behind a ReLU, of four classes of different sizes."""
    g = torch.Generator().manual_seed(seed)
    y = [0, 0, 1, 1, 1, 3, 3, *([4] * (m - 7))]
    return torch.relu(torch.randn(5, d, generator=g)[y] + torch.randn(m, d, generator=g)), y


def values(out: dict[str, Tensor]) -> dict[str, float]:
    return {key: value.item() for key, value in out.items()}


@pytest.mark.parametrize("d", [3, 40])
def test_quality_is_what_loops_say(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    f, y = example(16, d)
    f[0] = 0.0  # a sample whose ReLUs are all off is like no other, nor like itself
    for columns, rows in ((4096, 1024), (7, 5)):
        monkeypatch.setattr(logit_free, "COLUMNS", columns)
        monkeypatch.setattr(logit_free, "ROWS", rows)
        assert values(knowledge_quality(f, torch.tensor(y), n=300)) == pytest.approx(naive(f, y, 300), rel=1e-9)


def test_distances_from_products_are_exact_far_from_the_origin() -> None:
    f, y = example(16, 40)
    f = f + 100
    assert values(knowledge_quality(f, torch.tensor(y), n=300)) == pytest.approx(naive(f, y, 300), rel=1e-6)


def test_samples_that_do_not_differ_offer_no_information() -> None:
    f = torch.tensor([[0.3, 0.1], [0.3, 0.1], [0.2, 0.7], [0.2, 0.7]]).repeat(1, 500)
    out = values(knowledge_quality(f, torch.tensor([0, 0, 1, 1]), n=4))
    assert out["information"] == pytest.approx(0, abs=1e-12) and out["quality"] == pytest.approx(out["separation"])
    nothing = values(knowledge_quality(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]), n=4))
    assert nothing == dict.fromkeys(KEYS, 0.0)


@pytest.mark.parametrize("y", [[0, 0, 0, 0], [0, 0, 0, 1]])
def test_quality_refuses_what_cannot_be_compared(y: list[int], prose: Prose) -> None:
    with pytest.raises(Refusal, match="two or more") as error:
        knowledge_quality(torch.rand(4, 3, generator=torch.Generator()), torch.tensor(y), n=4)
    prose(str(error.value))
    with pytest.raises(Refusal, match="finite"):
        knowledge_quality(torch.full((4, 3), math.nan), torch.tensor([0, 0, 1, 1]), n=4)


def test_classes_are_compared_by_as_many_images_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """By loops over the pixels of the last maps, of images of one class in one order."""
    data = datasets.load(DigitsSpec(source="digits", train=120, validation=60, test=60))
    network = teacher.build_network("resnet8w4", data, init="test").eval()
    monkeypatch.setattr(layers, "IMAGES_PER_CLASS", 3)
    found = layers.relations(network, data)
    with torch.no_grad():
        maps = network(next(layers.unaugmented_batches(data.train, data, 120))).feats[-1].double()
    order = torch.randperm(120, generator=generator("layers")).tolist()
    shown = [[i for i in order if data.train.y[i] == c][:3] for c in range(10)]
    rows = [torch.stack([maps[i, :, h, w] for i in own for h in range(2) for w in range(2)]) for own in shown]
    x = [r - r.mean(dim=0) for r in rows]

    def shared(a: Tensor, b: Tensor) -> float:
        return sum(float(a[:, i] @ b[:, j]) ** 2 for i in range(a.shape[1]) for j in range(b.shape[1]))

    for i, j in ((0, 0), (0, 1), (7, 3)):
        expected = shared(x[i], x[j]) / math.sqrt(shared(x[i], x[i]) * shared(x[j], x[j]))
        assert found[i, j].item() == pytest.approx(expected, rel=1e-4)


def test_the_best_stages_come_in_order_of_depth() -> None:
    q = (0.3, 0.9, 0.1, 0.8, 0.9)
    assert best_stages(q, 1) == [1] and best_stages(q, 3) == [1, 3, 4] and best_stages(q, 9) == [0, 1, 2, 3, 4]


def test_passes_cover_every_column_once() -> None:
    passes = layers._split_into_passes([5, 3, 9], 4)
    assert all(sum(last - first for _, first, last in slices) <= 4 for slices in passes) and len(passes) == 5
    covered = [(stage, column) for slices in passes for stage, a, b in slices for column in range(a, b)]
    assert covered == [(stage, column) for stage, width in enumerate([5, 3, 9]) for column in range(width)]


def test_rows_are_the_same_in_one_pass_and_in_many(monkeypatch: pytest.MonkeyPatch) -> None:
    data = datasets.load(DigitsSpec(source="digits", train=120, validation=60, test=60))
    network = teacher.build_network("resnet8w4", data, init="test").eval()
    with torch.no_grad():
        maps = [f.flatten(1) for f in network(next(layers.unaugmented_batches(data.train, data, 120))).feats]
    whole = [values(knowledge_quality(f, data.train.y, n=120)) for f in maps]
    for room, batch in ((layers.MAX_NUMBERS_IN_MEMORY, 100), (120 * 100, 32)):
        monkeypatch.setattr(layers, "MAX_NUMBERS_IN_MEMORY", room)
        monkeypatch.setattr(layers, "BATCH_SIZE", batch)
        found = layers.stage_qualities(network, data)
        assert [row["stage"] for row in found] == [0.0, 1.0, 2.0, 3.0] and {row["images"] for row in found} == {120.0}
        for row, expected in zip(found, whole, strict=True):
            assert {key: row[key] for key in KEYS} == pytest.approx(expected, rel=1e-5)


def test_the_sample_is_of_the_training_split_and_stratified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MAX_SAMPLES", 12)
    y = torch.tensor([0] * 20 + [1] * 3 + [2] * 9)
    chosen = layers._sample_positions(y)
    assert y[chosen].bincount().tolist() == [4, 3, 4] and torch.equal(chosen, layers._sample_positions(y))


@pytest.mark.parametrize("stages", [2, 9])
def test_the_figure_stays_on_its_page(stages: int) -> None:
    rows = [
        {"stage": i, "images": 5000, "separation": i / 20 - 0.1, "information": 1 / (i + 1), "efficiency": 1 + i % 3}
        | {"quality": 12 + i / 300}
        for i in range(stages)
    ]
    data = shown.stage_data("torchvision/efficientnet_b0->torchvision/mobilenet_v3_small", rows, [0, stages - 1])
    before = dict(matplotlib.rcParams)
    figure = shown.stage_figure(data, "Commit 0123456789ab with uncommitted changes.")
    assert dict(matplotlib.rcParams) == before and len(figure.axes) == 5 and texts_out_of_page(figure) == []
    said = {text.get_text() for ax in figure.axes for text in ax.texts}
    assert {"−0.100", "12.000", "12.003"} <= said  # three decimals, as two would make Q of two stages look the same


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny suite, of logit_free alone, and a teacher trained by the command."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("layers")
    raw = {key: value for key, value in TINY.items() if key != "name"} | {"methods": ["logit_free"], "seeds": 1}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(raw))
    torch.set_num_threads(1)
    return folder


def said(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert call("layers", str(folder / "tiny.yaml"), "--results", str(folder / "results"), "--json") == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_json_comes_alone_and_chooses_as_many_stages_as_the_student_has(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pair,) = said(made, capsys)  # the teacher is trained in this very call, and says nothing of it
    stages = pair["stages"]
    assert pair["pair"] == "resnet8w8->resnet8w4" and [row["name"] for row in stages] == ["stem", "1", "2", "3"]
    q = [row["quality"] for row in stages]
    assert [row["stage"] for row in stages if row["chosen"]] == best_stages(q, 3) and len(set(q)) == 4
    for row in stages:
        root = math.sqrt(row["information"] * row["efficiency"])
        assert row["quality"] == pytest.approx(row["separation"] + root) and row["images"] == 90


def test_the_command_shows_a_table_and_leaves_a_figure(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pair,) = said(made, capsys)
    where = made / "results/tiny/figures"
    for path in where.iterdir():
        path.unlink()
    assert call("layers", str(made / "tiny.yaml"), "--results", str(made / "results")) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    for row in pair["stages"]:
        assert f"{row['quality']:.3f}" in lines[row["name"]] and ("●" in lines[row["name"]]) is row["chosen"]
    names = sorted(path.name for path in where.iterdir())
    assert names == ["layers-resnet8w8__resnet8w4.png"] and (where / names[0]).read_bytes()[1:4] == b"PNG"
    assert names[0] in out and pair["figure"].endswith(names[0])


def test_logit_free_trains_on_those_stages_and_says_so(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from bench.jobs.progress import Progress
    from bench.jobs.run import run_suite
    from bench.suite.suite import load
    from tracking.record import scan

    (pair,) = said(made, capsys)
    suite, quiet = load(str(made / "tiny.yaml")), Progress(Console(), quiet=True)
    results = made / "results"
    done = run_suite(suite, results, device=torch.device("cpu"), rerun=False, progress=quiet, mirror=None)
    assert done.n_trained == 1 and not done.failures
    (record,) = scan(results / "tiny")
    spec = record.header["spec"]
    assert record.status == "finished" and spec["hp"]["layers"] == "auto"
    chosen = ",".join(str(row["stage"]) for row in pair["stages"] if row["chosen"])
    assert spec["facts"] == {"teacher stages": chosen} and spec["teacher_fingerprint"] == pair["teacher"]
    assert len(list((results / "teachers").glob("*/record.jsonl"))) == 1


def of_one_image(folder: Path, raw: dict[str, Any]) -> None:
    """Images of two classes, of which the second has one left for training."""
    g = np.random.default_rng(0)
    for split, name, count in (("train", "a", 30), ("train", "b", 2), ("test", "a", 2), ("test", "b", 2)):
        (folder / "set" / split / name).mkdir(parents=True)
        for i in range(count):
            pixels = g.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "set" / split / name / f"{i}.png")
    raw["data"] = {"source": "image_folder", "path": str(folder / "set"), "size": 8, "validation": 10}


def of_a_lost_file(folder: Path, raw: dict[str, Any]) -> None:
    raw["pairs"] = ["resnet8w8 -> resnet8w5", {"teacher": "resnet8w8", "student": "resnet8w4", "teacher_file": "nil"}]


BAD = {
    "a class of one image": (of_one_image, (), ("resnet8w8->resnet8w4", "two training samples or more of every class")),
    "the second pair's file": (of_a_lost_file, (), ("nil", "no file")),
    "misspelt key": (None, ("--set", "protocol.epoch=3"), ("did you mean 'epochs'",)),
    "no such device": (None, ("--device", "gpu"), ("gpu", "cuda")),
    "unwritable": (None, ("--results", "/proc/results"), ("--results",)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_measured_is_refused_in_one_line_before_a_teacher_trains(
    name: str,
    tiny: dict[str, Any],
    tiny_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change, words, expected = BAD[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    if change:
        change(tmp_path, tiny)
        tiny_file.write_text(yaml.safe_dump({key: value for key, value in tiny.items() if key != "name"}))
    assert call("layers", str(tiny_file), *words) == 2
    err = capsys.readouterr().err
    assert err.startswith("kdbench: ") and len(err.splitlines()) == 1, err
    assert all(part in err for part in expected), err
    assert not list(tmp_path.glob("results/teachers/*"))
