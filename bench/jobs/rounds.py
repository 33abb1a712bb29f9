"""Which seeds and rows train next: all that the suite names, or one seed after another until all is decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from bench.errors import UserError
from bench.suite import decide
from bench.suite.suite import Suite

Round = tuple[Sequence[int], Mapping[str, Sequence[str]]]
"""Seeds, and by pair the titles of the rows that train with them."""


def rounds(
    suite: Suite, decisions: Callable[[], list[decide.Decision]], cohorts_at_once: Callable[[], int]
) -> Iterator[Round]:
    """One round after the other; the next is asked for when the runs of this one have ended.

    decisions: of all runs so far; cohorts_at_once: those that there is room for. Both are asked after the first round.
    What was decided is found anew from the records, so that a call which goes on where another one stopped asks for the
    same runs.
    """
    rows = [spec.title for spec in suite.methods]
    going: Mapping[str, Sequence[str]] = {pair.name: rows for pair in suite.pairs}
    if suite.until is None:
        yield suite.seeds, going
        return
    check_comparisons(suite)
    first, last = 0, suite.until.least
    while going and first < suite.until.most:
        yield suite.seeds[first:last], going
        going = decide.rows_to_continue(decisions(), rows)
        first, last = last, last + max(1, cohorts_at_once() // max(1, len(going)))


def check_comparisons(suite: Suite) -> None:
    """Raises `UserError` where seeds are to be added until comparisons are decided, and there are none."""
    if suite.until and len(suite.methods) < 2:
        raise UserError(
            f"seeds: {{until: decided}} compares rows, and {suite.name} has one, {suite.methods[0].title}; name two or"
            " more methods, or a number of seeds (--seeds 5)"
        )
