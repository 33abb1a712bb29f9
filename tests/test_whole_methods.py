"""Methods as a person runs them: sums, plug-ins, own predictions, and what each of them costs."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import methods
from bench import models
from bench.models import student
from bench.seeds import fork_rng
from bench.suite.suite import load, validate
from methods.base import Dims, NetworkView, Progress, Refusal
from tests.methods.test_contract import Scene
from tests.test_cli import call
from tests.training.test_cohort import cohort_of, suite_of, trained
from tracking.record import scan

ROOT = Path(__file__).parent.parent


def run(folder: Path, tiny: dict[str, Any], *words: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """Run the tiny suite with changes; final metrics and header by label."""
    raw = {k: v for k, v in {**tiny, "seeds": 1, **changes}.items() if k != "name"}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(raw))
    assert call("run", str(folder / "tiny.yaml"), "--results", str(folder / "results"), "--quiet", *words) == 0
    found = {}
    for record in scan(folder / "results" / "tiny"):
        lines = record.read()
        assert lines.end is not None
        found[lines.header["spec"]["label"]] = {
            **lines.end["metrics"],
            "spec": lines.header["spec"],
            "at": record.folder,
        }
    return found


def test_what_a_member_costs_is_in_its_record(tmp_path: Path, tiny: dict[str, Any]) -> None:
    rows = ["vanilla", "kd", "kd_two_view", {"ft": {"before": 0.5}}, {"block_kd": {"keep_last": 2}}, "semckd", "simkd"]
    got = run(tmp_path, tiny, methods=rows)

    def cost(label: str, what: str) -> float:
        return got[label].get(f"cost/{what}", 0.0)  # type: ignore[no-any-return]

    n = 3 * 90  # images of three epochs
    assert [cost(m, "images_seen") for m in ("vanilla", "kd", "kd_two_view")] == [n, n, 2 * n]
    assert [cost(m, "teacher_forwards") for m in ("vanilla", "kd", "kd_two_view")] == [0, n, 2 * n]
    assert cost("semckd", "images_seen") == 3 * 64, "the last batch of 26 is left out"
    ft, block = "ft(before=0.5)", "block_kd(keep_last=2)"
    assert cost(ft, "epochs_before") == 2 and cost(ft, "images_seen") == n + 2 * 90
    assert cost(ft, "student_forwards") == n and cost(ft, "teacher_forwards") == n + 2 * 90
    assert cost(block, "teacher_tail_forwards") == 2 * n and cost("kd", "teacher_tail_forwards") == 0
    assert cost("kd", "inference_params") == cost("vanilla", "inference_params") == cost("vanilla", "params")
    # SimKD: its own classifier (16·10 + 10) goes; projector and the teacher's classifier (32·10 + 10) come
    assert cost("simkd", "inference_params") == cost("vanilla", "params") - 170 + cost("simkd", "extra_params") + 330


def test_a_student_that_predicts_through_its_teacher_goes_home_whole(tmp_path: Path, tiny: dict[str, Any]) -> None:
    got = run(tmp_path, tiny, methods=["simkd"])["simkd"]
    to = tmp_path / "s.safetensors"
    assert call("export", got["at"].name[:10], str(to), "--results", str(tmp_path / "results")) == 0
    data = load_data(tiny)
    taken = student.load(to)
    x = (data.test.x.float() / 255 - torch.tensor(data.mean).view(1, -1, 1, 1)) / torch.tensor(data.std).view(
        1, -1, 1, 1
    )
    with torch.no_grad():
        top1 = 100 * (taken(x).argmax(dim=1) == data.test.y).float().mean()
    assert top1.item() == pytest.approx(got["test/top1"])


def load_data(tiny: dict[str, Any]) -> Any:
    from bench import data

    return data.load(validate(tiny, "test").data, torch.device("cpu"))


def test_the_lines_of_the_guide_run(tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """CONTRIBUTING's own lines, saved to a file, are a method: alone, in a sum, and named by the environment."""
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    lines = guide.partition("<!-- method:begin -->")[2].partition("<!-- method:end -->")[0]
    file = tmp_path / "my_method.py"
    file.write_text(lines.replace("```python\n", "").replace("```", "").lstrip())
    assert len(lines.splitlines()) < 32
    monkeypatch.setenv("KDBENCH_PLUGINS", "")
    got = run(tmp_path, tiny, "--plugin", str(file), methods=["kd", "my_method", "kd + my_method"])
    assert set(got) == {"kd", "my_method", "kd+my_method"}
    assert os.environ["KDBENCH_PLUGINS"] == str(file) and "my_method" in methods.names()
    kind = methods.get("my_method")
    assert kind.name() == "my_method" and len(str(kind.version)) > 10, "an edited file is another method"
    other = tmp_path / "again" / "my_method.py"
    other.parent.mkdir()
    other.write_text(file.read_text() + "\n# edited\n")
    monkeypatch.setenv("KDBENCH_PLUGINS", str(other))
    assert methods.get("my_method").version != kind.version


def test_a_sum_is_the_sum_of_its_parts() -> None:
    changes: dict[str, Any] = {"kd.weight": 0.5, "crd.nce_k": 10**6}
    both = Scene("crd+kd", **changes)
    crd, kd = Scene("crd", nce_k=10**6), Scene("kd")
    parts: list[Any] = [both.method.get_submodule("parts.crd"), crd.method]
    for part in parts:
        with torch.no_grad():
            for tensor in [*part.parameters(), part.memory_s, part.memory_t]:
                tensor.fill_(0.1)
    terms, one, other = both.terms(), crd.terms(), kd.terms()
    assert terms.keys() == {"crd.ce", "crd.crd", "kd.kd"}, "the labels count once"
    torch.testing.assert_close(terms["crd.crd"], one["crd"])
    torch.testing.assert_close(terms["crd.ce"], one["ce"])
    torch.testing.assert_close(terms["kd.kd"], 0.5 * other["kd"])


def test_sums_are_written_in_three_ways(tiny: dict[str, Any]) -> None:
    rows = ["crd + 0.5*kd", {"dkd + reviewkd": {"dkd": {"beta": 2.0}, "reviewkd": {"weight": 3}}}]
    rows += [{"method": "kd+at", "label": "both", "set": {"at.at": 100.0}}]  # type: ignore[list-item]
    first, second, third = validate({**tiny, "methods": rows}, "test").methods
    assert first.method == "crd+kd" and first.set == {"kd.weight": 0.5} and first.title == "crd+kd(kd.weight=0.5)"
    assert second.set == {"dkd.beta": 2.0, "reviewkd.weight": 3} and third.title == "both"
    values = methods.get("dkd+reviewkd").resolve("resnet56->resnet20")
    assert values["dkd.beta"] == 2.0 and values["reviewkd.review"] == 0.6 and "reviewkd.ce" not in values


def test_sums_keep_phases_views_and_predictions(tiny: dict[str, Any]) -> None:
    kind = methods.get("mlkd+ft")
    assert kind.needs.views == ("weak", "strong") and {"logits", "feats"} <= set(kind.needs.taps)
    for name in ("kd+ft", "mlkd+simkd"):
        member = trained(cohort_of(suite_of(tiny), [name])).members[0]
        assert member.status == "running", member.reason
        assert member.pretrain_epochs == (1 if "ft" in name else 0)
        predicts = type(member.method).predict
        assert predicts is not methods.get("kd").predict
    with pytest.raises(Refusal, match="two parts come with epochs"):
        Scene("fsp+ft")


def test_all_stands_for_every_method_not_named_otherwise() -> None:
    rows = load("digits-all").methods
    names = [row.method for row in rows]
    assert set(methods.names()) <= set(names) and names.count("semckd") == 1


PAIRS = [("ResNet50", "MobileNetV2"), ("vgg13", "MobileNetV2"), ("wrn_16_2", "ShuffleV1")]
SLOW = [("semckd", PAIRS[0])]  # nine regressors up to 2,048 channels wide


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        pytest.param(name, pair, id=f"{name}-{pair[0]}", marks=[pytest.mark.slow] if (name, pair) in SLOW else [])
        for name, pair in itertools.product(methods.names(), PAIRS)
    ],
)
def test_a_pair_of_other_families_works_or_is_refused(name: str, pair: tuple[str, str], nets: Any) -> None:
    """Different numbers, sizes and kinds of stages."""
    teacher, network = (nets[arch] for arch in pair)
    dims = Dims(
        network.dims(),
        teacher.dims(),
        5,
        4,
        torch.arange(40) % 5,
        lambda: (0.0, 3.0, 1.0, 2.0, 4.0)[: teacher.n_stages + 1],
    )
    kind = methods.get(name)
    try:
        kind.check(dims)
        with fork_rng("pairs"):
            method = kind(dims, **kind.resolve("->".join(pair)))
    except Refusal as refusal:
        assert "\n" not in str(refusal) and name in ("ab", "fsp", "kdsvd", "norm", "ofd", "reviewkd")
        return
    x, y, index = (
        torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
        torch.arange(4),
        torch.arange(4),
    )
    for phase in (True, False) if method.pretrain_share else (False,):
        needs = (phase and method.pretrain_needs) or method.needs
        s = NetworkView({v: network(x) for v in needs.views}, needs.taps, network.tail)
        with torch.no_grad():
            t = NetworkView({v: teacher(x) for v in needs.views}, needs.taps, teacher.tail)
        at = Progress(2, 10, torch.Generator().manual_seed(0), index)
        terms = (method.pretrain_loss if phase else method.loss)(s, t, y, at)
        assert all(term.isfinite() for term in terms.values())
        torch.stack(list(terms.values())).sum().backward()


@pytest.fixture(scope="module")
def nets() -> dict[str, Any]:
    with fork_rng("nets"):
        made = {
            n: models.build(n, size=16, n_classes=5)
            for n in ("ResNet50", "vgg13", "wrn_16_2", "MobileNetV2", "ShuffleV1")
        }
    for name in ("ResNet50", "vgg13", "wrn_16_2"):
        made[name].eval().requires_grad_(False)
    return made


def test_every_loss_is_timed(tiny_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("time", str(tiny_file), "--methods", "all", "--rounds", "3", "--json") == 0
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(methods.names()) - {"kdsvd"} <= set(rows)
    assert rows["kd"]["loss_ms"] > 0 and "same channels" in rows["fsp"]["note"] and "ft (before)" in rows
