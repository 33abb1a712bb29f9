"""The loop that owns a run: students, teachers and trials all train, are kept, shown and judged in `train_cohort`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress

from bench.errors import error_message
from bench.jobs.claims import ClaimHeld
from bench.jobs.progress import Progress
from bench.jobs.run_writer import ClaimCheck, RunWriter
from bench.jobs.stop import Interrupted, stop_gracefully
from bench.training.cohort import Cohort
from bench.training.member import Member


def train_cohort(
    title: str,
    open_runs: Callable[[], Iterable[RunWriter]],
    make_cohort: Callable[[list[Member]], Cohort],
    close_runs: Callable[[Cohort, list[RunWriter]], None],
    check_claim: ClaimCheck,
    progress: Progress,
    prune: Callable[[Cohort], None] = lambda cohort: None,
) -> None:
    """Train a cohort from where its members stand to its end.

    open_runs: the members with their records open, each resumed where it can be; close_runs: evaluates and closes them;
    check_claim: raises `claims.ClaimHeld` where the work is another process's by now; prune: may end members between
    two epochs.
    """
    writers: list[RunWriter] = []
    with end_runs_on_interrupt(writers, check_claim) as raise_if_asked:
        for writer in open_runs():
            writers.append(writer)
        if not writers:
            return

        def keep_between_steps() -> None:
            raise_if_asked()
            _save_those([writer for writer in writers if writer.is_due(in_epoch=True)], check_claim)

        cohort = make_cohort([writer.member for writer in writers])
        prune(cohort)  # a kill may have come before the last judgement
        with progress.cohort(title, cohort) as callbacks:
            for epoch in cohort.epochs(callbacks.after_step, keep_between_steps):
                check_claim()
                raise_if_asked()
                _save_those([writer for writer in writers if writer.is_due()], check_claim)
                callbacks.after_epoch(epoch)
                prune(cohort)
        check_claim()
        close_runs(cohort, writers)


@contextmanager
def end_runs_on_interrupt(writers: Collection[RunWriter], check_claim: ClaimCheck) -> Iterator[Callable[[], None]]:
    """From the first record that is begun to the last that is ended. Yields what raises, between two steps, where a
    signal has asked to stop.

    Ctrl-C, SIGTERM and the end of the call's time end the runs as `interrupted`, with a checkpoint of the step that
    just ended where it ended in time; the same command resumes them. So does an error that is no run's own (a full
    disk). Where `check_claim` finds the claim lost, nothing is written any more: the runs are another's.
    """

    def running_writers() -> list[RunWriter]:
        return [writer for writer in writers if writer.record.status == "running"]

    with stop_gracefully() as raise_if_asked:
        try:
            yield raise_if_asked
        except ClaimHeld:
            raise
        except (KeyboardInterrupt, Interrupted) as stop:
            for writer in running_writers() if _is_held(check_claim) else ():
                if isinstance(stop, Interrupted) and stop.between_steps and writer.member.status == "running":
                    writer.save()
                writer.end("interrupted", "stopped by the user or the system; the same command resumes it", {})
            raise
        except Exception as error:
            for writer in running_writers():
                member, reason = writer.member, error_message(error)
                with suppress(Exception):  # what has made the device unusable was one member's doing
                    writer.end(
                        *(("failed", member.reason) if member.status == "failed" else ("interrupted", reason)), {}
                    )
            raise


def _save_those(due: list[RunWriter], check_claim: ClaimCheck) -> None:
    if due:
        check_claim()
    for writer in due:
        writer.save()


def _is_held(check_claim: ClaimCheck) -> bool:
    try:
        check_claim()
    except ClaimHeld:
        return False
    return True
