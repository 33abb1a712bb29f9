"""Teachers of every make: several at a time, chains, without a head, of other classes, with images of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from torch import Tensor

from bench import data as datasets
from bench.data import Data
from bench.jobs.cohort_job import describe_data
from bench.jobs.progress import Progress
from bench.jobs.run import run_suite
from bench.jobs.teacher_source import (
    class_numbers,
    expected_input,
    initial_student,
    initial_teacher,
    teacher_fingerprint,
)
from bench.models import build, load_state, student, take_classes
from bench.models.teaching import Ensemble, ExpectedInput, change_input, ignore_head
from bench.seeds import fork_rng
from bench.suite.pair import InputSpec, Pair, TeacherSource
from bench.suite.protocol import digest
from bench.suite.suite import Suite, load, validate
from bench.timing.plan import estimate
from tests.test_cli import call
from tracking.record import Record, scan

SMALL: dict[str, Any] = {"in_channels": 1, "size": 8, "n_classes": 10}


def written(
    tmp_path: Path, tiny: dict[str, Any], pair: object, *methods: str, seeds: int = 1, epochs: int = 2
) -> list[str]:
    """The words that run a suite of few epochs."""
    raw = {key: value for key, value in tiny.items() if key != "name"}
    raw |= {"pairs": [pair], "methods": list(methods), "seeds": seeds}
    raw["protocol"] |= {"epochs": epochs, "milestones": []}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    return ["run", str(tmp_path / "own.yaml"), "--results", str(tmp_path / "results")]


def run(tmp_path: Path, tiny: dict[str, Any], pair: object, *methods: str, seeds: int = 1) -> Path:
    """The results of such a suite, and no report."""
    words = written(tmp_path, tiny, pair, *methods, seeds=seeds)
    progress, options = Progress(Console(width=500)), dict[str, Any](rerun=False, mirror=None)
    outcome = run_suite(load(words[1]), tmp_path / "results", device=torch.device("cpu"), progress=progress, **options)
    assert not outcome.failures
    return tmp_path / "results"


def specs(results: Path) -> dict[str, dict[str, Any]]:
    return {record.header["spec"]["label"]: record.header["spec"] for record in scan(results / "own")}


def trained(results: Path) -> dict[str, dict[str, Any]]:
    """The specs of the teachers that were trained, by fingerprint."""
    return {path.parent.name: Record(path.parent).header["spec"] for path in results.glob("teachers/*/record.jsonl")}


def suite(tiny: dict[str, Any], pair: object) -> Suite:
    return validate({**tiny, "pairs": [pair]}, "test")


@pytest.fixture(scope="module")
def digits() -> Data:
    return datasets.load(validate({**PLAIN, "pairs": ["resnet8 -> resnet8"]}, "test").data)


PLAIN: dict[str, Any] = {
    "name": "plain",
    "data": {"source": "digits", "train": 90, "validation": 60, "test": 100},
    "protocol": {"epochs": 3},
    "methods": ["kd"],
    "seeds": 1,
}

# ---------------------------------------------------------------------------------------------------- fingerprints


def test_pairs_that_could_be_written_before_are_what_they_were(
    tmp_path: Path, digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("bench.suite.protocol", "bench.jobs.teacher_source"):
        monkeypatch.setattr(f"{module}.NUMBERS", 2)  # as when the known values were made
    (tmp_path / "x.pth").write_text("x")
    file = {"teacher": "resnet8w8", "student": "resnet8w4", "teacher_file": str(tmp_path / "x.pth")}
    described = describe_data(digits) | {"fingerprint": "of these images"}
    for pair, known in ((file, "456227c22d4abbb6"), ("resnet8w8 -> resnet8w4", "48a7af60592eb59e")):
        made = validate({**PLAIN, "pairs": [pair]}, "test")
        dumped = made.model_dump(mode="json")["pairs"]
        assert {*dumped[0]} == {"teacher", "student", "teacher_file"}
        assert teacher_fingerprint(made, made.pairs[0], described) == known
        assert validate({**PLAIN, "pairs": dumped}, "test") == made
    assert digest(dumped[0]) == "6b0fbd88215570cc"


@pytest.mark.parametrize(
    "change",
    [
        {"teacher_head": "ignore"},
        {"teacher_input": {"mean": [0.2], "std": [0.3]}},
        {"teacher_input": {"size": 16}},
        {"class_map": "map.yaml"},
        {"teacher_key": "ema"},
        {"finetune": {}},
        {"finetune": {"epochs": 1}},
    ],
    ids=str,
)
def test_what_changes_a_teacher_changes_its_fingerprint(change: dict[str, Any], tmp_path: Path, digits: Data) -> None:
    (tmp_path / "x.pth").write_text("x")
    (tmp_path / "map.yaml").write_text("[]")
    change = {key: str(tmp_path / value) if key == "class_map" else value for key, value in change.items()}
    pair = {"teacher": "resnet8w8", "student": "resnet8w4", "teacher_file": str(tmp_path / "x.pth")}
    with_it, without = (validate({**PLAIN, "pairs": [pair | extra]}, "test") for extra in (change, {}))
    made = [teacher_fingerprint(one, one.pairs[0], describe_data(digits)) for one in (with_it, without)]
    assert made[0] != made[1]
    assert validate(with_it.model_dump(mode="json"), "test").pairs == with_it.pairs


# --------------------------------------------------------------------------------------------------- several teachers


def test_several_teachers_are_the_mean_of_their_softened_probabilities() -> None:
    a, b = (build("resnet8w4", **SMALL).eval() for _ in range(2))
    both, x = Ensemble([a, b], tau=4.0).eval(), torch.randn(5, 1, 8, 8)
    mean = (a(x).logits / 4).softmax(1) / 2 + (b(x).logits / 4).softmax(1) / 2
    torch.testing.assert_close((both(x).logits / 4).softmax(1), mean)
    assert not both.dims().tails and both.dims().pooled == 0 and both.dims().feats == ()
    alone = Ensemble([a, a], tau=2.0).eval()
    torch.testing.assert_close(alone(x).logits.softmax(1), a(x).logits.softmax(1))


def test_each_of_several_teachers_answers_once_for_all_students(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[tuple[int, int]] = []
    forward = Ensemble.forward

    def counted(self: Ensemble, x: Tensor) -> Any:
        shown.append((len(x), len(self.networks)))
        return forward(self, x)

    monkeypatch.setattr(Ensemble, "forward", counted)
    results = run(
        tmp_path, tiny, {"teacher": ["resnet8w8", "resnet8w8"], "student": "resnet8w4"}, "vanilla", "kd", "dkd"
    )
    steps = [n for n, networks in shown if n in (32, 26) and networks == 2]  # batches of 32 of 90 images
    assert steps.count(32) >= 4 and steps.count(26) == 2, "two epochs, three students"
    assert {spec["seed"] for spec in trained(results).values()} == {0, 10_000}, "equal teachers are trained apart"
    spec = specs(results)["kd"]
    assert spec["pair"] == "resnet8w8 + resnet8w8->resnet8w4" and sorted(spec["teacher_members"]) == sorted(
        trained(results)
    )
    said = capsys.readouterr()
    assert (said.out + said.err).count("% on validation") == 3, "of each, and of both"


def test_a_method_that_looks_at_maps_takes_no_several_teachers(
    tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pair = {"teacher": ["resnet8w8", "resnet14w6"], "student": "resnet8w4"}
    raw = {key: value for key, value in tiny.items() if key != "name"} | {"pairs": [pair], "methods": ["kd", "all"]}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(raw))
    assert call("check", str(tmp_path / "own.yaml")) == 0
    said = capsys.readouterr().out
    assert "left out: fitnet: fitnet needs maps of stages, and the teacher shows none" in said
    assert "left out: dkd" not in said


# --------------------------------------------------------------------------------------------------------- chains


def test_a_chain_is_trained_link_by_link_and_kept(
    tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pair = {"teacher": "resnet8w8 -> resnet8w6", "student": "resnet8w4", "link": {"dkd": {"beta": 2.0}}}
    results = run(tmp_path, tiny, pair, "kd")
    made = trained(results)
    (assistant,) = [name for name, spec in made.items() if spec["teacher"] == "resnet8w6"]
    (first,) = [name for name, spec in made.items() if spec["teacher"] == "resnet8w8"]
    assert made[assistant]["taught_by"] == first and made[assistant]["method"] == "dkd" and len(made) == 2
    assert specs(results)["kd"]["teacher_fingerprint"] == assistant
    assert specs(results)["kd"]["pair"] == "resnet8w8->resnet8w6->resnet8w4"
    said = "".join(capsys.readouterr())
    assert "teacher resnet8w8: " in said and "teacher resnet8w6: " in said
    run(tmp_path, tiny, pair, "kd", "dkd")
    assert trained(results).keys() == made.keys() and "teacher resnet8w8: " not in "".join(capsys.readouterr())
    other = suite(tiny, {**pair, "link": "kd"})
    data = datasets.load(other.data)
    assert teacher_fingerprint(other, other.pairs[0], describe_data(data)) not in made


def test_every_seed_has_its_own_chain_and_its_own_several_teachers(tmp_path: Path, tiny: dict[str, Any]) -> None:
    tiny["teacher"] = {"each": "seed"}
    several = {"teacher": ["resnet8w8", "resnet8w8"], "student": "resnet8w4"}
    for pair, expected in (
        (
            "resnet8w8 -> resnet8w6 -> resnet8w4",
            [("resnet8w6", 0), ("resnet8w6", 1), ("resnet8w8", 0), ("resnet8w8", 1)],
        ),
        (several, [("resnet8w8", seed) for seed in (0, 1, 10_000, 10_001)]),
    ):
        folder = tmp_path / str(isinstance(pair, str))
        folder.mkdir()
        made = trained(run(folder, tiny, pair, "kd", seeds=2))
        assert sorted((spec["teacher"], spec["seed"]) for spec in made.values()) == expected
        by_seed = {record.header["spec"]["seed"]: record.header["spec"] for record in scan(folder / "results" / "own")}
        assert by_seed[0]["teacher_fingerprint"] != by_seed[1]["teacher_fingerprint"]
        for spec in made.values():
            assert "taught_by" not in spec or made[spec["taught_by"]]["seed"] == spec["seed"]


def test_a_student_begins_with_its_file(
    tmp_path: Path, tiny: dict[str, Any], digits: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    other = build("resnet8w4", **SMALL | {"n_classes": 25})
    torch.save(other.state_dict(), tmp_path / "s.pth")
    pair = {"teacher": "resnet8w8 -> resnet8w6", "student": "resnet8w4", "student_file": str(tmp_path / "s.pth")}
    made = suite(tiny, pair).pairs[0]
    begun, again = (initial_student(made, digits, seed).state_dict() for seed in (0, 1))
    for name in other.state_dict().keys() - {"fc.weight", "fc.bias"}:
        assert torch.equal(begun[name], again[name]) and torch.equal(begun[name], other.state_dict()[name])
    assert not torch.equal(begun["fc.weight"], again["fc.weight"]), "the head is new"
    assert made.before.student_file == ""
    results = run(tmp_path, tiny, pair, "kd")
    with_file = {record.folder.name for record in scan(results / "own")}
    run(tmp_path, tiny, {key: pair[key] for key in ("teacher", "student")}, "kd")
    assert len({record.folder.name for record in scan(results / "own")}) == 2 * len(with_file) == 2
    capsys.readouterr()
    for file, said in (("s.pth", "is not a state of resnet8w6"), ("none.pth", "no file")):
        wrong = pair | {"student": "resnet8w6", "teacher": "resnet8w8", "student_file": str(tmp_path / file)}
        assert call(*written(tmp_path, tiny, wrong, "kd")) == 2
        line = capsys.readouterr().err
        assert said in line and len(line.splitlines()) == 1


def test_generations_are_a_chain_of_one_network(tiny: dict[str, Any]) -> None:
    born = suite(tiny, {"teacher": "resnet8w8", "student": "resnet8w4", "generations": 3}).pairs[0]
    assert born == suite(tiny, "resnet8w8 -> resnet8w4 -> resnet8w4 -> resnet8w4").pairs[0]
    assert [born.before.name, born.before.before.name] == ["resnet8w8->resnet8w4->resnet8w4", "resnet8w8->resnet8w4"]
    again = suite(tiny, {"teacher": "resnet8w4", "student": "resnet8w4", "generations": 1}).pairs[0]
    assert again == Pair(teacher="resnet8w4", student="resnet8w4")


def test_a_plan_counts_every_teacher_that_is_to_be_trained(tmp_path: Path, tiny: dict[str, Any]) -> None:
    def planned(*pairs: object, **changes: Any) -> list[int]:
        made = validate({**tiny, "pairs": [*pairs], "methods": ["kd"], **changes}, "test")
        rows = estimate(made, tmp_path / "results", torch.device("cpu"))
        assert all(row["seconds_per_teacher"] > 0 and row["seconds"] > row["seconds_per_teacher"] for row in rows)
        return [row["teachers"] for row in rows]

    several = {"teacher": ["resnet8w8", "resnet8w8", "resnet8w6"], "student": "resnet8w4"}
    chain = "resnet8w8 -> resnet8w6 -> resnet8w4"
    assert planned(chain, several) == [2, 2], "the first of each is the same"
    assert planned(chain, teacher={"each": "seed"}) == [4]
    assert planned(several, teacher={"each": "seed"}) == [6]
    run(tmp_path, tiny, "resnet8w8 -> resnet8w6", "kd")
    assert planned(chain, protocol=tiny["protocol"] | {"epochs": 2, "milestones": []}) == [1]


def test_two_teachers_of_one_network_stand_side_by_side_under_labels(tmp_path: Path, tiny: dict[str, Any]) -> None:
    for name in ("a", "b"):
        torch.save(build("resnet8w8", **SMALL).state_dict(), tmp_path / f"{name}.pth")
    pair = {"teacher": "resnet8w8", "student": "resnet8w4"}
    pairs = [pair | {"teacher_file": str(tmp_path / f"{name}.pth"), "label": f"from {name}"} for name in ("a", "b")]
    assert [one.name for one in validate({**tiny, "pairs": pairs}, "test").pairs] == ["from a", "from b"]


# ---------------------------------------------------------------------------------------- heads, classes and images


def test_a_teacher_of_other_classes_serves_methods_that_look_at_maps(
    tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(build("resnet8w8", in_channels=1, size=8, n_classes=25).state_dict(), tmp_path / "many.pth")
    pair = {"teacher": "resnet8w8", "student": "resnet8w4", "teacher_file": str(tmp_path / "many.pth")}
    pair |= {"teacher_head": "ignore"}
    assert call(*written(tmp_path, tiny, pair, "kd")) == 2
    said = capsys.readouterr().err
    assert "kd reads the teacher's logits" in said and "class_map" in said and len(said.splitlines()) == 1
    assert call(*written(tmp_path, tiny, pair, "vanilla", "fitnet", "at", "rkd")) == 0
    results = tmp_path / "results"
    assert {record.status for record in scan(results / "own")} == {"finished"}
    assert "its head is not looked at" in capsys.readouterr().out
    assert specs(results)["at"]["teacher_validation_top1"] is None
    final = next(record.final for record in scan(results / "own") if record.header["spec"]["method"] == "at")
    assert final and not [name for name in final["metrics"] if "teacher_top1" in name or "agreement" in name]
    assert "accuracy not recorded" in (results / "own" / "report.md").read_text()


def test_a_headless_network_shows_no_logits_and_goes_on_from_no_map() -> None:
    net = build("resnet8w4", **SMALL).eval()
    x = torch.randn(2, 1, 8, 8)
    before = net(x)
    ignore_head(net)
    assert net(x).logits.shape == (2, 0) and torch.equal(net(x).feats[-1], before.feats[-1])
    assert not net.dims().head and not net.dims().tails


def test_a_class_map_takes_the_classes_out_of_a_larger_head(tmp_path: Path, digits: Data) -> None:
    large = build("resnet8w8", in_channels=1, size=8, n_classes=25).eval()
    torch.save({"state_dict": large.state_dict()}, tmp_path / "many.pth")
    x, wanted = torch.randn(4, 1, 8, 8), [24, 3, 1, 0, 2, 5, 4, 6, 8, 7]
    for text in (yaml.safe_dump(wanted), yaml.safe_dump({str(i): n for i, n in enumerate(wanted)})):
        (tmp_path / "map.yaml").write_text(text)
        source = TeacherSource(
            teacher="resnet8w8", teacher_file=str(tmp_path / "many.pth"), class_map=str(tmp_path / "map.yaml")
        )
        assert class_numbers(source, digits) == wanted
        network, _ = initial_teacher(source, digits, 0)
        torch.testing.assert_close(network.eval()(x).logits, large(x).logits[:, wanted])
    same = build("resnet8w8", **SMALL).eval()
    torch.save(same.state_dict(), tmp_path / "same.pth")
    shuffled = build("resnet8w8", **SMALL).eval()
    load_state(shuffled, tmp_path / "same.pth", classes=[*range(9, -1, -1)])
    torch.testing.assert_close(shuffled(x).logits, same(x).logits.flip(1), msg="as many classes in another order")
    taken = build("resnet8w8", **SMALL).eval()
    take_classes(taken, large, wanted)
    torch.testing.assert_close(taken(x).logits, large(x).logits[:, wanted])


def test_images_are_given_as_the_teacher_expects_them(digits: Data) -> None:
    net, x = build("resnet8w4", **SMALL).eval(), torch.rand(3, 1, 8, 8)
    mean, std = torch.tensor(digits.mean).view(1, -1, 1, 1), torch.tensor(digits.std).view(1, -1, 1, 1)
    before = net((x - 0.25) / 0.5).logits
    change_input(net, ExpectedInput(digits.mean, digits.std, 8), ExpectedInput((0.25,), (0.5,), 8))
    torch.testing.assert_close(net((x - mean) / std).logits, before)
    assert {*net.state_dict()} == {*build("resnet8w4", **SMALL).state_dict()}
    larger = build("resnet8w4", in_channels=1, size=16, n_classes=10)
    change_input(larger, ExpectedInput(digits.mean, digits.std, 8), ExpectedInput(digits.mean, digits.std, 16))
    assert larger(x).feats[0].shape[2:] == (16, 16) and larger.dims().feats[0][1:] == (16, 16)


COLOURED = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.a, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(self.a(x).relu().mean((2, 3)))
"""


def test_a_grey_image_is_repeated_for_a_teacher_of_colours(
    tmp_path: Path, tiny: dict[str, Any], digits: Data, capsys: pytest.CaptureFixture[str]
) -> None:
    state = build("resnet8w8", **SMALL | {"in_channels": 3}).state_dict()
    torch.save({"net": state}, tmp_path / "x.pth")
    (tmp_path / "net.py").write_text(COLOURED)
    file = {"teacher": "resnet8w8", "student": "resnet8w4", "teacher_file": str(tmp_path / "x.pth")}
    said = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    source = validate({**tiny, "pairs": [file | {"teacher_input": said}]}, "test").pairs[0].source
    teacher, _ = initial_teacher(source, digits, 0)
    x, (mean, std) = torch.rand(3, 1, 8, 8), (torch.tensor(said[name]).view(3, 1, 1) for name in ("mean", "std"))
    plain = build("resnet8w8", **SMALL | {"in_channels": 3}).eval()
    plain.load_state_dict(state)
    seen = (x - torch.tensor(digits.mean)) / torch.tensor(digits.std)
    torch.testing.assert_close(teacher.eval()(seen).logits, plain((x - mean) / std).logits)
    results = run(tmp_path, tiny, file, "kd", "simkd")
    assert {tuple(spec["teacher_input"]["mean"]) for spec in specs(results).values()} == {(digits.mean[0],) * 3}
    assert "the grey repeated in 3 channels" in "".join(capsys.readouterr())
    weights = {r.header["spec"]["method"]: r.folder / "student.safetensors" for r in scan(results / "own")}
    assert student.load(weights["simkd"])(torch.zeros(2, 1, 8, 8)).shape == (2, 10), "through the teacher's head"
    several = {"teacher": [f"{tmp_path}/net.py:Net", "resnet8w6"], "student": "resnet8w4"}
    for pair in (several, file | {"finetune": {"epochs": 1}}, f"{tmp_path}/net.py:Net -> resnet8w4"):
        run(tmp_path, tiny, pair, "kd")


def test_packaged_weights_bring_their_own_images(digits: Data) -> None:
    source = TeacherSource(teacher="timm/resnet18", pretrained=True, finetune={})
    images = expected_input(source, digits)
    assert images.mean == (0.485, 0.456, 0.406) and images.size == 8, "its finetuning learns the size"
    ready = expected_input(source.model_copy(update={"finetune": None}), digits)
    assert ready.size == 224 and ready.mean == images.mean
    said = source.model_copy(update={"teacher_input": InputSpec(size=32)})
    assert expected_input(said, digits).size == 32
    tv = expected_input(TeacherSource(teacher="torchvision/resnet18", pretrained=True, finetune={}), digits)
    assert tv == images


def test_packaged_weights_are_used_without_training_where_a_map_names_the_classes(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    make = timm.create_model
    with fork_rng("packaged"):
        whole = make("test_resnet", num_classes=1000, in_chans=3)

    def downloaded(model: str, pretrained: bool, **how: Any) -> torch.nn.Module:
        net: torch.nn.Module = make(model, **how)
        if pretrained:
            net.load_state_dict(whole.state_dict())
        return net

    monkeypatch.setattr(timm, "create_model", downloaded)
    (tmp_path / "map.yaml").write_text(yaml.safe_dump([*range(990, 1000)]))
    pair = {"teacher": "timm/test_resnet", "student": "resnet8w4", "pretrained": True, "teacher_input": {"size": 32}}
    results = run(tmp_path, tiny, pair | {"class_map": str(tmp_path / "map.yaml")}, "kd")
    assert not trained(results) and specs(results)["kd"]["teacher_input"]["size"] == 32


# ------------------------------------------------------------------------------------------------ what is said of them


def test_a_name_that_image_net_knows_is_said_to_be_of_cifar(
    tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    suite(tiny, "resnet50 -> resnet20")
    assert "ImageNet's is torchvision/resnet50" in capsys.readouterr().err


def test_a_teacher_below_its_student_alone_is_warned_of_before_more_is_trained(
    tmp_path: Path, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    state = build("resnet8w8", **SMALL).state_dict()
    torch.save(state | {"fc.bias": torch.arange(10.0) * 99}, tmp_path / "nine.pth")  # says 9 of every image
    pair = {"teacher": "resnet8w8", "student": "resnet8w8", "teacher_file": str(tmp_path / "nine.pth")}
    assert call(*written(tmp_path, tiny, pair, "vanilla", epochs=12)) == 0
    results = tmp_path / "results"
    line = "teacher resnet8w8 of resnet8w8->resnet8w8: "
    assert capsys.readouterr().err.count(line) == 1
    assert "little to learn from it" in (results / "own" / "report.md").read_text()
    assert call(*written(tmp_path, tiny, pair, "vanilla", "kd", epochs=12), "--quiet") == 0
    seen = capsys.readouterr().err
    assert seen.count(line) == 1 and seen.index(line) < seen.index("chance level"), "before the teacher is even loaded"


@pytest.mark.slow
def test_a_network_of_ones_own_trains_in_workers(tmp_path: Path, tiny: dict[str, Any]) -> None:
    from tests.models.test_own import NET

    (tmp_path / "my_net.py").write_text(NET.replace("Conv2d(3", "Conv2d(1"))
    words = written(tmp_path, tiny, "my_net:Net -> my_net:Net", "kd", seeds=2)
    assert call(*words, "--plugin", str(tmp_path / "my_net.py"), "--workers", "2") == 0
    assert [record.status for record in scan(tmp_path / "results" / "own")] == ["finished"] * 2
