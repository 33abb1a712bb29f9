"""What a teacher begins with: a fresh network, a file, or its library's weights; and the fingerprint of what it is made
from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import methods
from bench import models
from bench.data import Data
from bench.errors import UserError, unknown
from bench.models.base import Network
from bench.models.teaching import Ensemble, ExpectedInput, change_input, ignore_head
from bench.seeds import fork_rng
from bench.suite import plain
from bench.suite.pair import Pair, TeacherSource, file_checksum
from bench.suite.protocol import NUMBERS, digest
from bench.suite.suite import Suite

COLOURS = 3  # channels of a teacher that grey images are repeated for


def build_network(
    name: str, data: Data, *, init: object, images: ExpectedInput | None = None, **options: Any
) -> Network:
    """A network for this data; `init` names the draw of its initial weights, or of what its library's weights lack.
    images: that it takes, where not the data's; options: of `models.build`."""
    taken = images or data_input(data)
    shape = {"in_channels": len(taken.mean), "size": taken.size, "n_classes": data.n_classes}
    with fork_rng("init", name, init):
        return models.build(name, **shape | options)


def untrained_teacher(pair: Pair, data: Data, init: object) -> Network:
    """The pair's teacher with fresh weights: what it shows, and what a step costs it."""
    if pair.ensemble:
        return Ensemble([untrained_teacher(member, data, init) for member, _ in pair.members()], pair.ensemble_tau)
    images = expected_input(pair.source, data)
    network = build_network(pair.teacher, data, init=init, images=images)
    return with_source(network, pair.source, data)


def with_source(network: Network, source: TeacherSource, data: Data) -> Network:
    """The network, shown images as its source expects them, without its head where that is to be ignored."""
    images, own = expected_input(source, data), data_input(data)
    if images != own:
        change_input(network, own, images)
    if source.teacher_head == "ignore":
        ignore_head(network)
    return network


def data_input(data: Data) -> ExpectedInput:
    return ExpectedInput(tuple(data.mean), tuple(data.std), data.size)


def expected_input(source: TeacherSource, data: Data) -> ExpectedInput:
    """What the suite says of a teacher's images, else what its library says of its weights, else what the data are.

    The library's size holds for weights that are used as they are; those that are trained further take the data's.
    """
    said, own = source.teacher_input, data_input(data)
    n = _channels(source, data)
    if source.pretrained and not (said and said.mean and said.std and said.size):
        packaged, _ = models.packaged(source.teacher)
        own = replace(packaged, size=packaged.size if source.is_ready else data.size)
    mean, std = ((said and getattr(said, name)) or _of_channels(getattr(own, name), n) for name in ("mean", "std"))
    return ExpectedInput(mean, std, (said and said.size) or own.size)


def _channels(source: TeacherSource, data: Data) -> int:
    """How many channels a teacher takes: the data's, or three where the images are grey and the suite, its library's
    weights, its file or its own code ask for colours. Raises `UserError` where the suite gives numbers for others."""
    said = source.teacher_input
    given = [(name, len(numbers)) for name in ("mean", "std") if said and (numbers := getattr(said, name)) is not None]
    possible = (1, COLOURS) if data.channels == 1 else (data.channels,)
    for name, n in given:
        if n not in possible or n != given[0][1]:
            raise UserError(
                f"teacher_input.{name} has {n} numbers, and the images have {data.channels} channels; write one for"
                " each"
            )
    if given:
        return given[0][1]
    if data.channels != 1:
        return data.channels
    shape = {"size": (said and said.size) or data.size, "n_classes": data.n_classes}
    coloured = source.pretrained or models.takes_colours_alone(source.teacher, **shape)
    if source.teacher_file and not coloured:
        coloured = models.is_coloured(source.teacher, source.checkpoint, **shape)
    return COLOURS if coloured else 1


def _of_channels(numbers: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """As they are, their mean for grey images, or the grey number for every colour."""
    return numbers if len(numbers) == channels else (sum(numbers) / len(numbers),) * channels


def initial_teacher(source: TeacherSource, data: Data, seed: int) -> tuple[Network, str]:
    """A teacher as its training finds it, and where in its file its weights lay."""
    init = ("teacher", seed)
    images, classes = expected_input(source, data), class_numbers(source, data)
    if source.pretrained and classes:
        network = build_network(source.teacher, data, init=init, images=images)
        _, n_classes = models.packaged(source.teacher)
        packaged = {"pretrained": True, "n_classes": n_classes}
        whole = build_network(source.teacher, data, init=init, images=images, **packaged)
        models.take_classes(network, whole, classes)
        return with_source(network, source, data), ""
    network = build_network(source.teacher, data, init=init, images=images, pretrained=source.pretrained)
    file_part = ""
    if source.teacher_file:
        new_head = source.teacher_head == "ignore" or (source.finetune is not None and not classes)
        file_part = models.load_state(
            network, source.checkpoint, source.teacher_key, new_head=new_head, classes=classes
        )
    return with_source(network, source, data), file_part


def initial_student(pair: Pair, data: Data, init: object) -> Network:
    """The student as its training finds it: fresh, or from its file but for a head of other classes."""
    network = build_network(pair.student, data, init=init)
    if pair.student_file:
        models.load_state(network, pair.student_checkpoint, new_head=True)
    return network


def class_numbers(source: TeacherSource, data: Data) -> list[int]:
    """Of every class of the data, its number among the teacher's; empty where no map is named."""
    if not source.class_map:
        return []
    path = Path(os.path.expandvars(source.class_map)).expanduser()
    try:
        found = plain.load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"class_map {path}: {getattr(error, 'strerror', None) or error}") from None
    if isinstance(found, list):
        found = dict(zip(data.classes, found, strict=True)) if len(found) == data.n_classes else found
    if not isinstance(found, dict):
        count = f"a list of {len(found)}" if isinstance(found, list) else f"a {type(found).__name__}"
        raise UserError(
            f"class_map {path} holds {count}, and the data have {data.n_classes} classes; write a line for each,"
            f" '{data.classes[0]}': its number in the teacher"
        )
    if strange := [name for name in found if name not in data.classes]:
        raise unknown(f"class of the data in class_map {path}", strange[0], data.classes)
    numbers = [found.get(name) for name in data.classes]
    if gaps := [name for name in data.classes if name not in found]:
        raise UserError(
            f"class_map {path} lacks '{gaps[0]}'; write a line for every class, '{gaps[0]}': its number in the teacher"
        )
    return _whole_and_different(numbers, data.classes, path)


def _whole_and_different(numbers: Sequence[object], classes: Sequence[str], path: Path) -> list[int]:
    out = list[int]()
    for name, number in zip(classes, numbers, strict=True):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise UserError(f"class_map {path}: '{name}' is {number!r}; write a whole number, counted from 0")
        if number in out:
            raise UserError(
                f"class_map {path}: '{classes[out.index(number)]}' and '{name}' are both {number}; correct one of them"
            )
        out.append(number)
    return out


def suite_of_member(suite: Suite, seeds_on: int) -> Suite:
    """The suite with the seed of one of several teachers."""
    return suite.model_copy(
        update={"teacher": suite.teacher.model_copy(update={"seed": suite.teacher.seed + seeds_on})}
    )


def teacher_fingerprint(suite: Suite, pair: Pair, data: dict[str, Any]) -> str:
    """What a teacher is made from, hashed. data: their description."""
    if pair.ensemble:
        members = [teacher_fingerprint(suite_of_member(suite, n), member, data) for member, n in pair.members()]
        return digest({"ensemble": members, "tau": pair.ensemble_tau})
    source, protocol = pair.source, suite.teacher_protocol(pair)
    parts = {"numbers": NUMBERS, "data": data, "teacher": pair.teacher}
    parts |= {"network": code} if (code := models.version(pair.teacher)) else {}
    if source.teacher_file:
        parts |= {"file": file_checksum(source.checkpoint)} | (
            {"key": source.teacher_key} if source.teacher_key else {}
        )
    if source.pretrained and len(data["mean"]) == 1:
        parts |= {"grey": "repeated"}
    later = source.set_keys() & {"pretrained", "teacher_head", "teacher_input"}
    parts |= {key: source.model_dump(mode="json")[key] for key in sorted(later)}
    if source.class_map:
        parts |= {"classes": file_checksum(Path(os.path.expandvars(source.class_map)).expanduser())}
    if source.is_ready:
        return digest(parts)
    if pair.chain:
        kind, before = methods.get(pair.link.method), teacher_fingerprint(suite, pair.before, data)
        hp = pair.link.values(pair.before.networks)
        parts |= {"taught_by": before, "method": pair.link.method, "version": kind.version, "hp": hp}
    training = {"protocol": protocol.model_dump(), "seed": suite.teacher.seed}
    return digest({**parts, "numbers": protocol.numbers, **training})
