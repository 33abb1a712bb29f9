"""The five tests that carry the design, and what follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import methods
from bench import data as datasets
from bench import models
from bench.data import Data
from bench.jobs import checkpoint, cohort_job, run, teacher
from bench.jobs.run_writer import RunWriter
from bench.suite.suite import MethodSpec, Run, Suite, validate
from bench.training.clock import Clock
from bench.training.cohort import Cohort
from bench.training.member import STATE_FORMAT, Member
from methods.base import NetworkView, Progress
from methods.kd import KD
from tracking.record import Record


class Exploding(KD):
    """Its loss is infinite from the second epoch on."""

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        terms = super().loss(s, t, y, at)
        return {**terms, "kd": terms["kd"] * (float("inf") if at.epoch > 1 else 1.0)}


class Raising(KD):
    """It raises in the second epoch."""

    def loss(self, s: NetworkView, t: NetworkView, y: Tensor, at: Progress) -> dict[str, Tensor]:
        if at.epoch > 1:
            raise RuntimeError("out of\nmemory")
        return super().loss(s, t, y, at)


def suite_of(tiny: dict[str, Any], **changes: Any) -> Suite:
    raw = {**tiny, "pairs": ["resnet14w4 -> resnet8w4"], **changes}  # equal channels: a pair for every method
    return run.resolve_suite(validate(raw, "test"), torch.device("cpu"))


def cohort_of(suite: Suite, names: list[str], **swaps: type[KD]) -> Cohort:
    data = datasets.load(suite.data, torch.device("cpu"))
    pair = suite.pairs[0]
    network = teacher.build_network(pair.teacher, data, init="teacher").requires_grad_(False).eval()
    shapes = cohort_job.method_dims(pair, data, suite.protocol.batch_size, network)
    members = []
    specs = {spec.method: spec for spec in suite.methods}
    for name in names:
        entry = Run.of(suite, pair, specs.get(name, MethodSpec(method=name)), 0, cohort_job.describe_data(data), "")
        member = cohort_job.make_member(entry, data, shapes)
        if name in swaps:
            member.train_step.method = swaps[name](shapes, **entry.hp)
        members.append(member)
    return Cohort(data, suite.protocol, network, members, 0)


def trained(cohort: Cohort, until: int | None = None) -> Cohort:
    for epoch in cohort.epochs():
        if epoch == until:
            break
    return cohort


def same(a: Member, b: Member) -> bool:
    mine, other = a.weights(), b.weights()
    assert mine.keys() == other.keys()
    return all(torch.equal(mine[name], other[name]) for name in mine)


def accuracies(member: Member) -> list[float]:
    return [row["metrics"]["validation/top1"] for row in member.history if row["epoch"] > 0]


def test_company_changes_nothing(tiny: dict[str, Any]) -> None:
    suite = suite_of(tiny)
    every = list(methods.names())
    together = trained(cohort_of(suite, every))
    for i, name in enumerate(every):
        assert together.members[i].status == "running", together.members[i].reason
        alone = trained(cohort_of(suite, [name]))
        assert same(together.members[i], alone.members[0]), name
        assert accuracies(together.members[i]) == accuracies(alone.members[0])


class KnownClock(Clock):
    """Every lap takes what is written here, in milliseconds."""

    LAPS = {"view strong": 2.0, "view weak": 1.0, "teacher strong": 20.0, "teacher weak": 10.0}

    def read_medians(self) -> dict[str, float]:
        names = list(self._laps)
        self._laps.clear()
        return {name: self.LAPS.get(name, 100.0) for name in names}


def costs_of(suite: Suite, names: list[str]) -> dict[str, dict[str, float]]:
    """cost/* of every member, by name."""
    cohort = cohort_of(suite, names)
    cohort.clock = KnownClock(cohort.data.device)
    trained(cohort)
    finals = {member.name: cohort.evaluate_final(member).metrics for member in cohort.members}
    return {name: {k: v for k, v in row.items() if k.startswith("cost/")} for name, row in finals.items()}


def test_a_runs_cost_does_not_depend_on_its_company(tiny: dict[str, Any]) -> None:
    suite = suite_of(tiny)
    names = ["vanilla", "kd", "sld", "block_kd", "crd", "ft"]
    together, alone = costs_of(suite, names), {name: costs_of(suite, [name])[name] for name in names}
    assert together == alone
    steps = {name: together[name]["cost/step_alone_ms"] for name in names}
    weak, both = 100 + 1 + 10, 100 + 1 + 2 + 10 + 20
    assert steps == {"vanilla": 101, "kd": weak, "sld": both, "block_kd": weak, "crd": weak, "ft": weak}


class _Stop(Exception):
    pass


def stopped_after(cohort: Cohort, n_steps: int) -> Cohort:
    """The cohort as it stands between two steps."""
    left = n_steps

    def stop() -> None:
        nonlocal left
        left -= 1
        if not left:
            raise _Stop

    with pytest.raises(_Stop):
        for _ in cohort.epochs(between_steps=stop):
            pass
    return cohort


@pytest.mark.parametrize("name", methods.names())
def test_any_step_may_be_the_first_after_a_resume(name: str, tiny: dict[str, Any], tmp_path: Path) -> None:
    """To the bit, with every number of the epoch: 3 epochs of 3 steps, stopped behind the first or second of one."""
    suite = suite_of(tiny)
    whole = trained(cohort_of(suite, [name])).members[0]
    state = None
    for n_steps in (1, 1, 3):  # each attempt goes on where the one before it stopped
        cohort = cohort_of(suite, [name])
        if state is not None:
            cohort.members[0].load_state_dict(state)
        checkpoint.save(tmp_path / "checkpoint.pt", stopped_after(cohort, n_steps).members[0].state_dict())
        state = checkpoint.load(tmp_path / "checkpoint.pt")
    resumed = cohort_of(suite, [name])
    assert state is not None and state["next_step"] > 0
    resumed.members[0].load_state_dict(state)
    (member,) = trained(resumed).members
    assert same(whole, member) and member.images == whole.images
    rows = [[{k: v for k, v in row["metrics"].items() if "_ms" not in k} for row in m.history] for m in (whole, member)]
    assert rows[0] == rows[1]


def test_members_of_other_steps_meet_again(tiny: dict[str, Any]) -> None:
    suite = suite_of(tiny)
    whole = trained(cohort_of(suite, ["kd", "crd"]))
    ahead = stopped_after(cohort_of(suite, ["crd"]), 2).members[0]
    together = cohort_of(suite, ["kd", "crd"])
    together.members[1].load_state_dict(ahead.state_dict())
    trained(together)
    assert all(same(a, b) for a, b in zip(whole.members, together.members, strict=True))


@pytest.mark.parametrize("until", [-1, 0])
@pytest.mark.parametrize("name", ["fsp", "ft"])
def test_the_epochs_before_the_first_resume_as_well(name: str, until: int, tiny: dict[str, Any]) -> None:
    suite = suite_of(tiny, methods=[{name: {"before": 0.8}}])  # 3 epochs before 3
    whole = trained(cohort_of(suite, [name])).members[0]
    assert [row["epoch"] for row in whole.history] == [-2, -1, 0, 1, 2, 3]
    first = trained(cohort_of(suite, [name]), until=until).members[0]
    assert first.epoch == until
    resumed = cohort_of(suite, [name])
    resumed.members[0].load_state_dict(first.state_dict())
    trained(resumed)
    assert same(whole, resumed.members[0])


@pytest.mark.slow  # test_any_step_may_be_the_first_after_a_resume stops at more places
@pytest.mark.parametrize("name", methods.names())
def test_stopping_and_going_on_changes_nothing(name: str, tiny: dict[str, Any]) -> None:
    suite = suite_of(tiny)
    whole = trained(cohort_of(suite, [name])).members[0]
    first = trained(cohort_of(suite, [name]), until=1).members[0]
    resumed = cohort_of(suite, [name])
    resumed.members[0].load_state_dict(first.state_dict())
    trained(resumed)
    assert same(whole, resumed.members[0])
    assert [r["epoch"] for r in resumed.members[0].history if r["epoch"] > 0] == [1, 2, 3]
    assert accuracies(whole) == accuracies(resumed.members[0]) and whole.images == resumed.members[0].images


def test_members_that_resume_from_different_epochs_meet_again(tiny: dict[str, Any]) -> None:
    suite = suite_of(tiny)
    whole = trained(cohort_of(suite, ["kd", "vanilla"]))
    ahead = trained(cohort_of(suite, ["kd"]), until=2).members[0]
    mixed = cohort_of(suite, ["kd", "vanilla"])
    mixed.members[0].load_state_dict(ahead.state_dict())
    trained(mixed)
    assert all(same(a, b) for a, b in zip(whole.members, mixed.members, strict=True))


@pytest.mark.parametrize("name", methods.names())
def test_no_method_touches_the_teacher(name: str, tiny: dict[str, Any]) -> None:
    cohort = cohort_of(suite_of(tiny), [name])
    assert cohort.teacher is not None
    before = models.state_hash(cohort.teacher)
    trained(cohort)
    cohort.evaluate_final(cohort.members[0])
    assert models.state_hash(cohort.teacher) == before
    assert not cohort.teacher.training
    assert all(p.grad is None for p in cohort.teacher.parameters())


def test_the_headline_is_the_last_epochs_and_so_are_the_weights(tiny: dict[str, Any]) -> None:
    longer = {**tiny, "protocol": {**tiny["protocol"], "epochs": 8, "milestones": [6]}}
    cohort = trained(cohort_of(suite_of(longer), ["vanilla"]))
    member = cohort.members[0]
    member.best.state = {k: torch.zeros_like(v) for k, v in member.best.state.items()}  # unlike any trained network
    before = {k: v.clone() for k, v in member.weights().items()}
    last = member.history[-1]["metrics"]
    final = cohort.evaluate_final(member).metrics
    assert all(torch.equal(v, before[k]) for k, v in member.weights().items())
    assert all(final[name] == last[name] for name in ("test/top1", "test/nll", "validation/top1"))
    assert final["test/top1_best_epoch_on_validation"] != final["test/top1"]


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_every_test_image_is_counted_once(size: int, tiny: dict[str, Any]) -> None:
    tiny["protocol"] = {**tiny["protocol"], "epochs": 1, "milestones": [], "eval_batch_size": size}
    cohort = cohort_of(suite_of(tiny), ["vanilla"])
    trained(cohort)
    final = cohort.evaluate_final(cohort.members[0])
    got, said = final.metrics, final.predictions
    correct = torch.from_numpy(said.guess == said.label)
    assert len(correct) == len(cohort.data.test.y) == 100
    assert got["test/top1"] == pytest.approx(correct.float().mean().item() * 100)
    network = cohort.members[0].network.eval()
    one_by_one = [network(x).logits.argmax().item() for x in _images(cohort.data)]
    assert (torch.tensor(one_by_one) == cohort.data.test.y).eq(correct).float().mean() > 0.98


def _images(data: Data) -> list[Tensor]:
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (data.mean, data.std))
    return [(x[None].float() / 255 - mean) / std for x in data.test.x]


@pytest.mark.parametrize(
    ("swap", "status", "reason"), [(Exploding, "diverged", "loss_kd is"), (Raising, "failed", "RuntimeError")]
)
def test_a_broken_neighbour_changes_nothing(swap: type[KD], status: str, reason: str, tiny: dict[str, Any]) -> None:
    suite = suite_of(tiny)
    alone = trained(cohort_of(suite, ["vanilla", "dkd"]))
    beside = trained(cohort_of(suite, ["vanilla", "kd", "dkd"], kd=swap))
    vanilla, broken, dkd = beside.members
    assert same(alone.members[0], vanilla) and same(alone.members[1], dkd)
    assert broken.status == status and reason in broken.reason and "\n" not in broken.reason
    assert vanilla.status == dkd.status == "running" and vanilla.epoch == 3


def test_all_methods_start_from_the_same_student(tiny: dict[str, Any]) -> None:
    cohort = cohort_of(suite_of(tiny), list(methods.names()))
    first = cohort.members[0].network.state_dict()
    for member in cohort.members[1:]:
        assert all(torch.equal(first[k], v) for k, v in member.network.state_dict().items())


def test_a_bare_loop_gives_the_same_weights(tiny: dict[str, Any]) -> None:
    """The harness is what a script of ten lines would do, to the bit: plain SGD on the same batches."""
    from bench.data.augment import apply_view, draw_view
    from bench.data.batches import batches
    from bench.seeds import generator

    suite = suite_of(tiny)
    cohort = cohort_of(suite, ["vanilla"])
    data = cohort.data
    network = teacher.build_network("resnet8w4", data, init=0).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, fused=True)
    for epoch in (1, 2, 3):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 if epoch <= 2 else 0.005
        for step, index in enumerate(batches(90, 32, generator("order", 0, epoch))):
            views = generator("view", "weak", 0, epoch, step)
            x = apply_view(
                data.train.x[index],
                draw_view("weak", len(index), data.size, views, pad=data.pad, flip=data.flip),
                data.mean,
                data.std,
            )
            loss = torch.nn.functional.cross_entropy(network(x).logits, data.train.y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    trained(cohort)
    ours = cohort.members[0].network.state_dict()
    assert all(torch.equal(ours[k], v) for k, v in network.state_dict().items() if v.is_floating_point())


@pytest.mark.parametrize(
    ("change", "epoch", "why"),
    [
        ({}, 2, ""),
        ({"format": STATE_FORMAT - 1}, 0, f"format {STATE_FORMAT - 1}"),
        ({"device": "cuda"}, 0, "made on cuda"),
        ({"weights": {}}, 0, "Missing key"),
        ({"next_step": 1, "sums": None}, 0, "NoneType"),
    ],
)
def test_a_checkpoint_that_cannot_go_on_costs_its_own_progress_alone(
    change: dict[str, Any], epoch: int, why: str, tmp_path: Path, tiny: dict[str, Any], capsys: Any
) -> None:
    def fresh() -> Member:
        return cohort_of(suite_of(tiny), ["vanilla"]).members[0]

    member, record = fresh(), Record(tmp_path / "run")
    record.begin("0" * 16, {}, {})
    member.epoch = 2
    with torch.no_grad():
        next(member.network.parameters()).zero_()
    checkpoint.save(record.folder / "checkpoint.pt", member.state_dict() | change)
    writer = RunWriter(fresh(), record, None)
    writer.resume(fresh)
    assert writer.member.epoch == epoch and same(writer.member, member if epoch else fresh())
    said = capsys.readouterr().err
    assert (why in said and "starts anew" in said and said.count("\n") == 1) if why else not said
