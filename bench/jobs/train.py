"""The loop that owns a run: students, teachers and trials all train, are kept, shown and judged in `train_cohort`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress

from bench.jobs.claims import Held
from bench.jobs.keep import Check, Keeper
from bench.jobs.progress import Progress
from bench.jobs.stop import Interrupted, gracefully
from bench.training.cohort import Cohort
from bench.training.member import Member, told


def train_cohort(
    title: str,
    begin: Callable[[], Iterable[Keeper]],
    cohort_of: Callable[[list[Member]], Cohort],
    end: Callable[[Cohort, list[Keeper]], None],
    check: Check,
    progress: Progress,
    judge: Callable[[Cohort], None] = lambda cohort: None,
) -> None:
    """Train a cohort from where its members stand to its end.

    begin: the members with their records open, each resumed where it can be; end: evaluates and closes them; check:
    raises `claims.Held` where the work is another process's by now; judge: may end members between two epochs.
    """
    keepers: list[Keeper] = []
    with interruptible(keepers, check) as pause:
        for keeper in begin():
            keepers.append(keeper)
        if not keepers:
            return
        cohort = cohort_of([keeper.member for keeper in keepers])
        judge(cohort)  # a kill may have come before the last judgement
        with progress.cohort(title, cohort) as shown:
            for epoch in cohort.epochs(shown.step):
                check()
                pause()
                for keeper in keepers:
                    keeper.save_if_due()
                shown.epoch(epoch)
                judge(cohort)
        check()
        end(cohort, keepers)


@contextmanager
def interruptible(keepers: Collection[Keeper], check: Check) -> Iterator[Callable[[], None]]:
    """From the first record that is begun to the last that is ended. Yields what raises, between two epochs, where a
    signal has asked to stop.

    Ctrl-C and SIGTERM end the runs as `interrupted`, with a checkpoint of the epoch that just ended where it ended in
    time; the same command resumes them. So does an error that is no run's own (a full disk). Where `check` finds the
    claim lost, nothing is written any more: the runs are another's.
    """

    def running() -> list[Keeper]:
        return [keeper for keeper in keepers if keeper.record.status == "running"]

    with gracefully() as pause:
        try:
            yield pause
        except Held:
            raise
        except (KeyboardInterrupt, Interrupted) as stop:
            for keeper in running():
                if isinstance(stop, Interrupted) and stop.whole and keeper.member.status == "running":
                    keeper.save()
                keeper.end("interrupted", "stopped by the user or the system; the same command resumes it", {})
            raise
        except Exception as error:
            for keeper in running():
                member, why = keeper.member, told(error)
                with suppress(Exception):  # what has made the device unusable was one member's doing
                    keeper.end(*(("failed", member.reason) if member.status == "failed" else ("interrupted", why)), {})
            raise
