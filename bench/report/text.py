"""Numbers as text, the same way in every table, figure and sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NONE = "–"


def decimals(halves: Iterable[float], ends: Iterable[float] = ()) -> int:
    """How many decimals a column needs: one where the typical half-width is half a unit or more, else two.

    Two also where an end of an interval would read 0.0 without being 0: its sign is what the reader looks for.
    """
    finite = sorted(half for half in halves if math.isfinite(half))
    wide = not finite or finite[len(finite) // 2] >= 0.5
    return 1 if wide and not any(0 < abs(end) < 0.05 for end in ends) else 2


def places(low: float, high: float) -> int:
    """How many decimals one interval needs."""
    return decimals([(high - low) / 2], [low, high])


def number(value: float, places: int) -> str:
    """'88.4', with a true minus; a dash for what is not known."""
    if not math.isfinite(value):
        return NONE
    text = f"{value:.{places}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", "−")


def signed(value: float, places: int) -> str:
    """'+1.8', '−0.3', '0.0'."""
    text = number(value, places)
    return f"+{text}" if text != NONE and float(text.replace("−", "-")) > 0 else text


def level(mean: float, half: float, n: int, places: int) -> str:
    """'88.4 ± 0.9'; '88.4 (n=1)' where one seed gives no interval."""
    if not n:
        return NONE
    return (
        f"{number(mean, places)} ± {number(half, places)}" if math.isfinite(half) else f"{number(mean, places)} (n={n})"
    )


def interval(low: float, high: float, places: int, *, sign: bool = True) -> str:
    """'[+0.9, +2.7]'."""
    write = signed if sign else number
    return f"[{write(low, places)}, {write(high, places)}]"


def difference(mean: float, low: float, high: float, n: int, places: int) -> str:
    """'+1.8 [+0.9, +2.7]'; '+1.8 (n=1)' where one shared seed gives no interval."""
    if not n:
        return NONE
    return f"{signed(mean, places)} {interval(low, high, places) if math.isfinite(low) else f'(n={n})'}"


def ranks(low: float, high: float) -> str:
    """'1 to 4', '2'; a dash for what is not known."""
    if not math.isfinite(low):
        return NONE
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def spread(value: float, half: float, places: int) -> str:
    """'−0.12 ± 0.31'; without ± where one seed gives no interval."""
    around = f" ± {number(half, places)}" if math.isfinite(half) and math.isfinite(value) else ""
    return signed(value, places) + around


def counted(value: float) -> str:
    """'12,345'."""
    return f"{value:,.0f}" if math.isfinite(value) else NONE


def times(value: float, places: int = 2) -> str:
    """'1.84×'; whole ratios without decimals where `places` is 0."""
    return f"{value:.{places}f}×" if math.isfinite(value) else NONE


def joined(names: Sequence[str], word: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def plural(n: int, word: str) -> str:
    """'1 seed', '5 seeds'."""
    return f"{n} {word}{'' if n == 1 else 's'}"


def span(counts: Iterable[float], word: str) -> str:
    """'5 seeds', '3 to 5 seeds'."""
    whole = [int(n) for n in counts]
    low, high = min(whole), max(whole)
    return plural(high, word) if low == high else f"{low} to {high} {word}s"


def setting(value: Any) -> str:
    """A recorded value: '0.0833333', '100, 150', 'a: 1, b: 2', 'true'; a dash for what is empty."""
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {setting(own)}" for key, own in value.items()) or NONE
    if isinstance(value, list | tuple):
        return ", ".join(map(setting, value)) or NONE
    return value if isinstance(value, str) else json.dumps(value, default=str)
