"""The loop that owns a run: students, teachers and trials all train, are kept, shown and judged in `train_cohort`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress

from bench.errors import error_message
from bench.jobs.claims import Held
from bench.jobs.progress import Progress
from bench.jobs.run_writer import Check, RunWriter
from bench.jobs.stop import Interrupted, gracefully
from bench.training.cohort import Cohort
from bench.training.member import Member


def train_cohort(
    title: str,
    begin: Callable[[], Iterable[RunWriter]],
    cohort_of: Callable[[list[Member]], Cohort],
    end: Callable[[Cohort, list[RunWriter]], None],
    check: Check,
    progress: Progress,
    judge: Callable[[Cohort], None] = lambda cohort: None,
) -> None:
    """Train a cohort from where its members stand to its end.

    begin: the members with their records open, each resumed where it can be; end: evaluates and closes them; check:
    raises `claims.Held` where the work is another process's by now; judge: may end members between two epochs.
    """
    writers: list[RunWriter] = []
    with interruptible(writers, check) as pause:
        for writer in begin():
            writers.append(writer)
        if not writers:
            return
        cohort = cohort_of([writer.member for writer in writers])
        judge(cohort)  # a kill may have come before the last judgement
        with progress.cohort(title, cohort) as shown:
            for epoch in cohort.epochs(shown.step):
                check()
                pause()
                for writer in writers:
                    writer.save_if_due()
                shown.epoch(epoch)
                judge(cohort)
        check()
        end(cohort, writers)


@contextmanager
def interruptible(writers: Collection[RunWriter], check: Check) -> Iterator[Callable[[], None]]:
    """From the first record that is begun to the last that is ended. Yields what raises, between two epochs, where a
    signal has asked to stop.

    Ctrl-C and SIGTERM end the runs as `interrupted`, with a checkpoint of the epoch that just ended where it ended in
    time; the same command resumes them. So does an error that is no run's own (a full disk). Where `check` finds the
    claim lost, nothing is written any more: the runs are another's.
    """

    def running() -> list[RunWriter]:
        return [writer for writer in writers if writer.record.status == "running"]

    with gracefully() as pause:
        try:
            yield pause
        except Held:
            raise
        except (KeyboardInterrupt, Interrupted) as stop:
            for writer in running():
                if isinstance(stop, Interrupted) and stop.whole and writer.member.status == "running":
                    writer.save()
                writer.end("interrupted", "stopped by the user or the system; the same command resumes it", {})
            raise
        except Exception as error:
            for writer in running():
                member, why = writer.member, error_message(error)
                with suppress(Exception):  # what has made the device unusable was one member's doing
                    writer.end(*(("failed", member.reason) if member.status == "failed" else ("interrupted", why)), {})
            raise
