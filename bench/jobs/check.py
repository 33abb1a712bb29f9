"""What is refused before any training: rows that a pair or the data cannot serve, and files that cannot be read."""

from __future__ import annotations

import torch
from torch import nn

import methods
from bench.data import Data
from bench.data.augment import VIEWS
from bench.errors import UserError, notice
from bench.jobs.cohort_job import method_dims
from bench.jobs.headless import check_without_logits
from bench.jobs.teacher import link_method
from bench.jobs.teacher_source import initial_student, initial_teacher
from bench.seeds import fork_rng
from bench.suite.pair import TeacherSource
from bench.suite.suite import Pair, Suite
from bench.training.step import make_optimizer
from methods.base import Method, Refusal, unknown


def check_pair(suite: Suite, pair: Pair, data: Data) -> dict[str, str]:
    """Refuse in one line, before any training, what cannot be trained on this pair and data. Returns the reasons, by
    title, of rows that may be left out."""
    shapes, unfit = method_dims(pair, data, suite.protocol.batch_size), dict[str, str]()
    for spec in suite.methods:
        try:
            kind = methods.get(spec.method)
            kind.check_pair(shapes)
            _check_views(kind, data)
            with fork_rng("check"):
                method = kind(shapes, **spec.values(pair.networks))
            if not shapes.teacher.head:
                check_without_logits(method, shapes)
            method.optimizer(make_optimizer(suite.protocol, [nn.Parameter(torch.zeros(1))], suite.protocol.lr))
            if method.needs.full_batches and len(shapes.train_y) < shapes.batch_size:
                raise Refusal(
                    f"it takes full batches, and {len(shapes.train_y)} training images make none of"
                    f" {shapes.batch_size}; set protocol.batch_size lower"
                )
        except Refusal as error:
            if not spec.if_fit:
                raise UserError(
                    f"{spec.title} on {pair.name}: {error}; --skip-unfit leaves out what does not take a pair"
                ) from None
            unfit[spec.title] = str(error)
        except UserError:
            raise
        except Exception:  # a fault of the method's own: its runs end by it, and no other's
            continue
    _check_files(pair, data, suite.teacher.seed)
    _check_chain(pair, data, suite.protocol.batch_size)
    if len(unfit) == len(suite.methods):
        title, reason = next(iter(unfit.items()))
        raise UserError(f"no method of the suite takes {pair.name}: {title}: {reason}; name another pair or kd")
    return unfit


def _check_files(pair: Pair, data: Data, seed: int) -> None:
    """Read, once before all training, what student and teachers begin with."""
    if pair.student_file:
        initial_student(pair, data, "check")
    for source in pair.sources:
        _check_source(source, data, seed)


def _check_source(source: TeacherSource, data: Data, seed: int) -> None:
    """Read what a teacher begins with."""
    if not (source.teacher_file or source.pretrained):
        return
    initial_teacher(source, data, seed)
    if source.teacher_file and source.is_ready and source.teacher_head == "use" and not data.own_validation:
        notice(
            f"{source.teacher_file}: the validation split is {len(data.validation)} images taken from train; if the"
            " teacher was trained on them, its validation accuracy says nothing"
        )


def _check_chain(pair: Pair, data: Data, batch_size: int) -> None:
    """Refuse a method that cannot teach one of a chain's networks."""
    while pair.chain:
        shapes = method_dims(pair.before, data, batch_size)
        try:
            method = link_method(pair, shapes)
            if not shapes.teacher.head:
                check_without_logits(method, shapes)
        except Refusal as error:
            raise UserError(f"link {pair.link.method} on {pair.before.name}: {error}; name another, link: kd") from None
        pair = pair.before


def _check_views(kind: type[Method], data: Data) -> None:
    """Refuse a view that nothing draws, or that means nothing on this data."""
    for view in {*kind.needs.views, *(kind.pretrain_needs.views if kind.pretrain_needs else ())} - set(data.views):
        if view in VIEWS:
            raise Refusal(f"it needs the {view} view of an image, and data.{view} is false for {data.name}")
        raise unknown("view of the images", view, data.views)
